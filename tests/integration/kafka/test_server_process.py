"""Servers of the tests end with their parent, and their errors have their output."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
from support.process import Server


def test_a_server_dies_with_its_parent_process(tmp_path: Path) -> None:
    starter = """
import sys
from pathlib import Path
from support.process import Server
server = Server(["/bin/sleep", "600"], Path(sys.argv[1]) / "log")
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", starter, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout is not None
        handle = os.pidfd_open(int(process.stdout.readline()))
        try:
            process.kill()
            # A pidfd is readable when its process has ended.
            readable, _, _ = select.select([handle], [], [], 10)
            assert readable
        finally:
            os.close(handle)


def test_the_error_of_an_ended_server_has_its_output(tmp_path: Path) -> None:
    server = Server(["/bin/sh", "-c", "echo wrong settings"], tmp_path / "log")
    server.start()
    with pytest.raises(RuntimeError, match="wrong settings"):
        server.wait(lambda: False, seconds=30)
