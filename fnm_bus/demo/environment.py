"""The demo's environment on one machine: embedded broker, relay, hook, spool.

The hook is installed and started as FastNetMon starts it; the relay is a process of
its own. Only the broker is librdkafka's mock cluster.

Nothing here uses the caller's configuration. Child processes get the demo's file, and
none of the variables that would override it (`child_environment`).
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

from fnm_bus.config.spool_paths import PREFIX
from fnm_bus.config.toml_text import Value, toml_text
from fnm_bus.demo import marker
from fnm_bus.errors import FnmBusError
from fnm_bus.kafka.addressing import Topics
from fnm_bus.kafka.embedded_broker import EmbeddedBroker
from fnm_bus.ops.systemd import READY

SENSOR: Final = "demo"
_READY_TIMEOUT: Final = 20.0
_COMMAND_TIMEOUT: Final = 60.0
_SERVICE_VARIABLES: Final = frozenset(
    {
        "CACHE_DIRECTORY",
        "CONFIGURATION_DIRECTORY",
        "CREDENTIALS_DIRECTORY",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LOGS_DIRECTORY",
        "NOTIFY_SOCKET",
        "RUNTIME_DIRECTORY",
        "STATE_DIRECTORY",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
    }
)
"""Variables of systemd's services (systemd.exec(5)): they name the caller's files."""


@dataclass(frozen=True, slots=True)
class DemoEnvironment:
    """Paths and addresses of a running demo.

    Attributes:
        directory: the directory with all files of the demo.
        config: the configuration file that relay and readers use.
        hook: the installed hook.
        bootstrap: address of the embedded broker.
    """

    directory: Path
    config: Path
    hook: Path
    bootstrap: str

    @property
    def spools(self) -> tuple[Path, Path]:
        """The spool and the fallback spool."""
        return self.directory / "spool", self.directory / "fallback"


@contextmanager
def start(directory: Path) -> Iterator[DemoEnvironment]:
    """Start broker and relay in *directory*, and stop all processes at the end.

    Raises:
        FnmBusError: the relay is not ready in time.
    """
    with EmbeddedBroker() as broker:
        broker.create_topics(*astuple(Topics()))
        demo = DemoEnvironment(
            directory,
            directory / "fnm-bus.toml",
            directory / "fnm-bus-hook",
            broker.bootstrap,
        )
        demo.config.write_text(_config_text(demo), encoding="utf-8")
        # Without --no-drain a call could publish with its caller's variables.
        install = ("hook", "install", str(demo.hook), "--no-drain")
        run_command(demo, *install, "--config", str(demo.config))
        for spool in demo.spools:
            marker.write_marker(spool, demo.bootstrap)
        with _running_relay(demo):
            yield demo


def child_environment(
    variables: Mapping[str, str], environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return the environment of a demo's child process.

    Args:
        variables: variables of the demo.
        environ: the caller's environment. Its settings of fnm-bus and the variables
            of its systemd service are removed, because they name real systems.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(PREFIX) and name not in _SERVICE_VARIABLES
    }
    return {**kept, **variables}


def run_command(demo: DemoEnvironment, *arguments: str) -> None:
    """Run one command of fnm-bus.

    Raises:
        FnmBusError: the command failed; the text is its standard error.
    """
    done = subprocess.run(  # noqa: S603 - this very program
        [sys.executable, "-m", "fnm_bus", *arguments],
        cwd=demo.directory,
        env=child_environment({}),
        capture_output=True,
        text=True,
        check=False,
        timeout=_COMMAND_TIMEOUT,
    )
    if done.returncode:
        raise FnmBusError(f"fnm-bus {' '.join(arguments)}: {done.stderr.strip()}")


def _config_text(demo: DemoEnvironment) -> str:
    spool, fallback = demo.spools
    tables: Mapping[str, Mapping[str, Value]] = {
        "kafka": {"bootstrap.servers": demo.bootstrap},
        "spool": {"directory": str(spool), "fallback": str(fallback)},
        "relay": {"metrics_port": 0},
    }
    return toml_text({"sensor": SENSOR}, tables)


@contextmanager
def _running_relay(demo: DemoEnvironment) -> Iterator[None]:
    """Run a relay, and wait until it reports that it is ready (sd_notify(3))."""
    address = demo.directory / "notify"
    log = demo.directory / "relay.log"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        log.open("wb") as output,
    ):
        manager.bind(str(address))
        manager.settimeout(_READY_TIMEOUT)
        relay = subprocess.Popen(  # noqa: S603 - this very program
            [sys.executable, "-m", "fnm_bus", "relay", "--config", str(demo.config)],
            cwd=demo.directory,
            env=child_environment({"NOTIFY_SOCKET": str(address)}),
            stdin=subprocess.DEVNULL,
            stderr=output,
        )
        try:
            _wait_until_ready(manager, log)
            yield
        finally:
            relay.terminate()
            relay.wait()


def _wait_until_ready(manager: socket.socket, log: Path) -> None:
    try:
        while READY not in manager.recv(1024).decode():
            continue
    except TimeoutError as exc:
        raise FnmBusError(f"the relay did not start: {log.read_text()}") from exc
