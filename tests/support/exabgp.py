"""The real ExaBGP, with our configuration, beside a real BIRD."""

import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from consumers.enforcers.exabgp.backend import ExabgpBackend
from consumers.enforcers.exabgp.conf_files import Commands
from consumers.settings import ExabgpSettings
from support import exabgp_bridge
from support.bird import Bird
from support.process import Server, wait_until

# Becomes ExaBGP as `consumers.config.run` does it, with other API processes.
_RUN = """
import sys
from pathlib import Path
from consumers.enforcers.exabgp import conf_files, config
from consumers.settings import ExabgpSettings
settings = ExabgpSettings.model_validate_json(Path(sys.argv[1]).read_bytes())
enforcer, watchdog = (it.split(chr(31)) for it in sys.argv[2:])
config.run(settings, None, conf_files.Commands(enforcer, watchdog))
"""


class Exabgp:
    """One ExaBGP, its enforcer's pipes open to the test.

    Args:
        root: a directory for its files, with a short path: sockets have no more than
            107 bytes of it.
        bird: its neighbor, open.
        grace: the watchdog's.

    Attributes:
        settings: what it runs with.
    """

    def __init__(self, root: Path, bird: Bird, grace: float = 5.0) -> None:
        self.settings = ExabgpSettings(
            neighbor=bird.address,
            port=bird.port,
            snapshot=root / "exabgp.json",
            watchdog_grace=grace,
        )
        self._root = root
        self._socket = root / "api"
        self._dog = root / "dog.json"
        self._pids = (root / "api.pid", root / "dog.pid")
        self._server: Server | None = None
        self._open: list[tuple[ExabgpBackend, socket.socket]] = []

    def start(self) -> None:
        """Start it, again or for the first time."""
        self._dog.write_text(self.settings.model_dump_json())
        for it in (self._socket, *self._pids):
            it.unlink(missing_ok=True)
        # -P: beside the program lies this file, with the name of ExaBGP's package.
        bridge = (sys.executable, "-P", exabgp_bridge.__file__)
        started = Commands(
            (*bridge, str(self._socket)), (*bridge, "--watchdog", str(self._dog))
        )
        commands = (chr(31).join(it) for it in started)
        self._server = Server(
            [sys.executable, "-c", _RUN, str(self._dog), *commands],
            self._root / "exabgp.log",
        )
        self._server.start()
        self._server.wait(
            lambda: all(it.exists() for it in (self._socket, *self._pids)), seconds=60
        )

    def connect(self, patience: float = 30.0) -> ExabgpBackend:
        """Return the enforcer's side, as a process that has just started.

        There is one at a time: those from before are closed.
        """
        self.disconnect()
        it = socket.socket(socket.AF_UNIX)

        def connected() -> bool:
            with suppress(OSError):  # between two processes nobody listens
                it.connect(str(self._socket))
                return True
            return False

        wait_until(connected, 30, "the API process")
        backend = ExabgpBackend(it.fileno(), it.fileno(), self.settings, patience)
        self._open.append((backend, it))
        return backend

    def disconnect(self) -> None:
        """Close what `connect` has made."""
        for backend, it in self._open:
            backend.close()
            it.close()
        self._open.clear()

    @property
    def enforcer(self) -> int:
        """The number of the process that ExaBGP has as enforcer."""
        return int(self._pids[0].read_text())

    @property
    def watchdog(self) -> int:
        """The number of the process that ExaBGP has as watchdog."""
        return int(self._pids[1].read_text())

    @property
    def pid(self) -> int:
        """ExaBGP's own."""
        assert self._server is not None
        return self._server.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._server is not None and self._server.alive

    def said(self) -> str:
        """Return what it and its processes printed."""
        return (self._root / "exabgp.log").read_text()

    def close(self) -> None:
        """End it at once, with its processes."""
        self.disconnect()
        if self._server is None:
            return
        with suppress(ProcessLookupError):
            os.kill(self._server.pid, signal.SIGCONT)
        self._server.kill()
        # They end by themselves, unless a test has stopped one.
        for file in self._pids:
            with suppress(ProcessLookupError, FileNotFoundError):
                os.kill(int(file.read_text()), signal.SIGCONT)
