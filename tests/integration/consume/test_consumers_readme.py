"""The program in consumers/README.md, as it is printed there."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.consumer_processes import ConsumerProcesses

CONSUMERS = Path(__file__).parents[3] / "consumers"
README = CONSUMERS / "README.md"


def program() -> str:
    [blocks] = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    return str(blocks)


def test_the_printed_program_is_the_sample() -> None:
    assert program() == (CONSUMERS / "samples" / "print_bans.py").read_text()


@pytest.mark.kafka
def test_the_example_prints_each_ban(services: ConsumerProcesses) -> None:
    script = services.relays.root / "bans.py"
    script.write_text(program())
    services.tell("ban", "203.0.113.7", total_incoming_pps=123456)
    services.tell("unban", "203.0.113.7")
    [last] = services.tell("ban", "203.0.113.7", total_incoming_pps=5)
    with subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "FNM_BUS_CONFIG": str(services.relays.config)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert lines[0].startswith("203.0.113.7 123,456 packets/s event-")
    assert lines[1] == f"203.0.113.7 5 packets/s {last}\n"
