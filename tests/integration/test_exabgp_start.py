"""`fnm-bus-consumer exabgp` as a process: how it starts, and how it ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.process import free_port, wait_until

pytest.importorskip("exabgp")


class Program:
    """The command, with a configuration of its own.

    Args:
        root: an empty directory.
        lines: further lines of `[kafka]`.
    """

    def __init__(self, root: Path, lines: Sequence[str] = ()) -> None:
        self.root = root
        self.file = root / "fnm-bus.toml"
        self.log = root / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.configure(lines)

    def configure(
        self, lines: Sequence[str] = (), own: str = '["203.0.113.0/24"]'
    ) -> None:
        self.file.write_text(
            "\n".join(
                [
                    "dry_run = false",
                    "[kafka]",
                    '"bootstrap.servers" = "127.0.0.1:1"',
                    *lines,
                    "[consumers.enforcer]",
                    f"own_networks = {own}",
                    "[consumers.exabgp]",
                    f"port = {free_port()}",
                    f'snapshot = "{self.root}/s.json"',
                ]
            )
        )

    def start(self) -> None:
        command = ["-P", "-m", "consumers", "exabgp", "--config", str(self.file)]
        with self.log.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                cwd=self.root,
                stdout=said,
                stderr=said,
                env={**os.environ, "RUNTIME_DIRECTORY": f"{self.root}/run"},
            )

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def enforcing(self) -> None:
        wait_until(lambda: "enforcing: exabgp" in self.said(), 30, "the enforcer")

    def children(self, word: str) -> list[int]:
        assert self._process is not None
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                line = (path / "cmdline").read_bytes().split(b"\0")
                status = (path / "stat").read_text().rpartition(")")[2].split()
                if word.encode() in line and int(status[1]) == self._process.pid:
                    found.append(int(path.name))
        return found

    def end(self, number: int | None = None) -> int:
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
        made = Program(Path(root))
        yield made
        made.close()


@pytest.mark.parametrize(
    ("lines", "own", "reason"),
    [
        (['"no.such.thing" = "1"'], '["203.0.113.0/24"]', "no.such.thing"),
        (['"auto.offset.reset" = "x"'], '["203.0.113.0/24"]', "auto.offset.reset"),
        ([], "[]", "consumers.enforcer.own_networks"),
        ([], '["203.0.113.7/24"]', "host bits"),
    ],
)
def test_a_wrong_configuration_ends_it_at_once(
    program: Program, lines: Sequence[str], own: str, reason: str
) -> None:
    program.configure(lines, own)
    program.start()
    assert program.end() == 78
    assert reason in program.said()
    assert not list(program.root.rglob("exabgp.conf"))


def test_a_snapshot_that_cannot_be_written_ends_it_at_once(program: Program) -> None:
    text = program.file.read_text().replace("/s.json", "/missing/s.json")
    program.file.write_text(text)
    program.start()
    assert program.end() == 78
    assert "missing" in program.said()


def test_a_folder_in_the_current_directory_is_not_imported(program: Program) -> None:
    trap = program.root / "consumers"
    trap.mkdir()
    (trap / "__init__.py").write_text('raise SystemExit("the wrong program")')
    program.start()
    program.enforcing()
    assert program.end(signal.SIGTERM) == 0
    assert "the wrong program" not in program.said()


def test_a_configuration_that_became_wrong_ends_it_with_the_reason(
    program: Program,
) -> None:
    program.start()
    program.enforcing()
    program.configure(['"no.such.thing" = "1"'])
    (enforcer,) = program.children("--api")
    os.kill(enforcer, signal.SIGKILL)
    assert program.end() == 78
    assert "ExaBGP has ended: [kafka]" in program.said()
    assert "no.such.thing" in program.said()


def test_a_process_that_dies_too_often_ends_it_with_a_status(program: Program) -> None:
    program.start()
    program.enforcing()
    dead: set[int] = set()

    def ended() -> bool:
        for child in set(program.children("--watchdog")) - dead:
            dead.add(child)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        assert program._process is not None
        return program._process.poll() is not None

    wait_until(ended, 90, "the end of ExaBGP")
    assert program.end() == 70
    assert "without a stop signal" in program.said()
