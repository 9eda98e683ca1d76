"""`fnm-bus-consumer exabgp` as a process: its start and its end."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.process import child_ids, free_port, wait_until

pytest.importorskip("exabgp")


class Program:
    """The command with its own configuration.

    Args:
        root: an empty directory.
        lines: additional lines of `[kafka]`.
    """

    def __init__(self, root: Path, lines: Sequence[str] = ()) -> None:
        self.root = root
        self.file = root / "fnm-bus.toml"
        self.log = root / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.configure(lines)

    def configure(
        self, lines: Sequence[str] = (), own_networks: str = '["203.0.113.0/24"]'
    ) -> None:
        self.file.write_text(
            "\n".join(
                [
                    "dry_run = false",
                    "[kafka]",
                    '"bootstrap.servers" = "127.0.0.1:1"',
                    *lines,
                    "[consumers.enforcer]",
                    f"own_networks = {own_networks}",
                    "[consumers.exabgp]",
                    f"port = {free_port()}",
                    f'snapshot = "{self.root}/s.json"',
                ]
            )
        )

    def start(self) -> None:
        command = ["-P", "-m", "consumers", "exabgp", "--config", str(self.file)]
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                cwd=self.root,
                stdout=output,
                stderr=output,
                env={**os.environ, "RUNTIME_DIRECTORY": f"{self.root}/run"},
            )

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_enforcing(self) -> None:
        wait_until(
            lambda: "enforcing backend=exabgp" in self.output(), 30, "the enforcer"
        )

    def process_ids(self, word: str) -> list[int]:
        assert self._process is not None
        return child_ids(self._process.pid, word)

    def wait_end(self, number: int | None = None) -> int:
        assert self._process is not None
        if number is not None:
            self._process.send_signal(number)
        return self._process.wait(60)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def program() -> Iterator[Program]:
    with TemporaryDirectory(prefix="fnm-") as root:
        program = Program(Path(root))
        yield program
        program.close()


@pytest.mark.parametrize(
    ("lines", "own_networks", "reason"),
    [
        (['"no.such.thing" = "1"'], '["203.0.113.0/24"]', "no.such.thing"),
        (['"auto.offset.reset" = "x"'], '["203.0.113.0/24"]', "auto.offset.reset"),
        ([], "[]", "consumers.enforcer.own_networks"),
        ([], '["203.0.113.7/24"]', "host bits"),
    ],
)
def test_wrong_configuration_exits_with_78(
    program: Program, lines: Sequence[str], own_networks: str, reason: str
) -> None:
    program.configure(lines, own_networks)
    program.start()
    assert program.wait_end() == 78
    assert reason in program.output()
    assert not list(program.root.rglob("exabgp.conf"))


def test_unwritable_snapshot_exits_with_78(program: Program) -> None:
    text = program.file.read_text().replace("/s.json", "/missing/s.json")
    program.file.write_text(text)
    program.start()
    assert program.wait_end() == 78
    assert "missing" in program.output()


def test_folder_in_current_directory_is_not_imported(program: Program) -> None:
    trap = program.root / "consumers"
    trap.mkdir()
    (trap / "__init__.py").write_text('raise SystemExit("the wrong program")')
    program.start()
    program.wait_enforcing()
    assert program.wait_end(signal.SIGTERM) == 0
    assert "the wrong program" not in program.output()


def test_configuration_that_becomes_wrong_exits_with_reason(
    program: Program,
) -> None:
    program.start()
    program.wait_enforcing()
    program.configure(['"no.such.thing" = "1"'])
    (enforcer,) = program.process_ids("--api")
    os.kill(enforcer, signal.SIGKILL)
    assert program.wait_end() == 78
    assert "ExaBGP has ended: [kafka]" in program.output()
    assert "no.such.thing" in program.output()


def test_process_that_dies_too_often_exits_with_70(program: Program) -> None:
    program.start()
    program.wait_enforcing()
    dead: set[int] = set()

    def has_ended() -> bool:
        for child in set(program.process_ids("--watchdog")) - dead:
            dead.add(child)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        assert program._process is not None
        return program._process.poll() is not None

    wait_until(has_ended, 90, "the end of ExaBGP")
    assert program.wait_end() == 70
    assert "without a stop signal" in program.output()
