"""The whole line on one machine, for looking at it: broker, relay, hook, spool.

Real parts throughout: the hook is installed and started as FastNetMon would, the relay
is a process of its own. Only the broker is librdkafka's mock cluster.
"""

import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

from fnm_bus.broker import EmbeddedBroker
from fnm_bus.demo.attack import Call
from fnm_bus.errors import FnmBusError
from fnm_bus.event import DeadLetter, Event
from fnm_bus.pipeline import digest
from fnm_bus.route import Topics
from fnm_bus.systemd import READY

SENSOR: Final = "demo"
_READY_WITHIN: Final = 20.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Where everything is.

    Attributes:
        directory: holds the rest.
        config: the configuration file that relay and readers use.
        hook: the installed hook.
        bootstrap: address of the broker.
    """

    directory: Path
    config: Path
    hook: Path
    bootstrap: str


@contextmanager
def stage(directory: Path) -> Iterator[Stage]:
    """Set everything up in *directory*, and stop all processes at the end.

    Raises:
        FnmBusError: the relay did not become ready.
    """
    with EmbeddedBroker() as broker:
        names = Topics()
        broker.make(*astuple(names))
        it = Stage(
            directory,
            directory / "fnm-bus.toml",
            directory / "fnm-bus-hook",
            broker.bootstrap,
        )
        spool, fallback = directory / "spool", directory / "fallback"
        it.config.write_text(_config(it, spool, fallback))
        run(it, "hook", "install", str(it.hook), "--config", str(it.config))
        with _relay(it):
            yield it


def run(it: Stage, *arguments: str) -> None:
    """Run one command of fnm-bus.

    Raises:
        FnmBusError: it fails; the text is what it said.
    """
    ended = subprocess.run(  # noqa: S603 - this very program
        [sys.executable, "-m", "fnm_bus", *arguments],
        cwd=it.directory,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise FnmBusError(f"fnm-bus {' '.join(arguments)}: {ended.stderr.strip()}")


class Arrival:
    """Compares what arrived with what was sent.

    Args:
        calls: what was sent.

    Attributes:
        events: events that arrived, each counted once by its `event_id`.
        duplicates: records that repeated one of them.
    """

    def __init__(self, calls: Iterable[Call]) -> None:
        self._missing = Counter((digest(it.document), it.arguments) for it in calls)
        self._seen: set[str] = set()
        self._surplus = 0
        self.events = 0
        self.duplicates = 0

    def note(self, event: Event | DeadLetter) -> None:
        """Count *event* as arrived."""
        if isinstance(event, DeadLetter):
            name, what = event.entry or "", (event.digest, event.arguments)
        else:
            receipt = event.receipt
            name, what = receipt.event_id, (receipt.raw_digest, receipt.arguments)
        if name in self._seen:
            self.duplicates += 1
            return
        self._seen.add(name)
        self.events += 1
        if self._missing[what] > 0:
            self._missing[what] -= 1
        else:
            self._surplus += 1

    @property
    def missing(self) -> int:
        """Calls of which nothing has arrived yet."""
        return sum(self._missing.values())

    @property
    def surplus(self) -> int:
        """Events that nobody sent."""
        return self._surplus


def _config(it: Stage, spool: Path, fallback: Path) -> str:
    tables: Mapping[str, Mapping[str, object]] = {
        "kafka": {"bootstrap.servers": it.bootstrap},
        "spool": {"directory": str(spool), "fallback": str(fallback)},
        "relay": {"metrics_port": 0},
    }
    lines = [f'sensor = "{SENSOR}"']
    for name, table in tables.items():
        lines.append(f"\n[{name}]")
        lines += [
            f'"{key}" = {value if isinstance(value, int) else _quoted(value)}'
            for key, value in table.items()
        ]
    return "\n".join(lines) + "\n"


def _quoted(value: object) -> str:
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


@contextmanager
def _relay(it: Stage) -> Iterator[None]:
    """Run a relay; it says through systemd's protocol when it is ready."""
    address = it.directory / "notify"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        (it.directory / "relay.log").open("wb") as said,
    ):
        manager.bind(str(address))
        manager.settimeout(_READY_WITHIN)
        relay = subprocess.Popen(  # noqa: S603 - this very program
            [sys.executable, "-m", "fnm_bus", "relay", "--config", str(it.config)],
            cwd=it.directory,
            env={**os.environ, "NOTIFY_SOCKET": str(address)},
            stderr=said,
        )
        try:
            _await_ready(manager, it.directory / "relay.log")
            yield
        finally:
            relay.terminate()
            relay.wait()


def _await_ready(manager: socket.socket, said: Path) -> None:
    try:
        while READY not in manager.recv(1024).decode():
            continue
    except TimeoutError as exc:
        raise FnmBusError(f"the relay did not start: {said.read_text()}") from exc
