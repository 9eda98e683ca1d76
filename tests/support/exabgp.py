"""The real ExaBGP with our configuration, and BIRD as its neighbor."""

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

# Starts ExaBGP like the command, with other API processes.
_RUN = """
import sys
from pathlib import Path
from consumers.enforcers.exabgp import conf_files, config
from consumers.settings import ExabgpSettings
settings = ExabgpSettings.model_validate_json(Path(sys.argv[1]).read_bytes())
enforcer, watchdog = (words.split(chr(31)) for words in sys.argv[2:])
config.run(settings, None, conf_files.Commands(enforcer, watchdog))
"""


class Exabgp:
    """One ExaBGP whose enforcer's pipes are open to the test.

    Args:
        root: a directory for its files, with a short path, since a socket's path has at
            most 107 bytes.
        bird: its running neighbor.
        grace: the watchdog's grace, in seconds.

    Attributes:
        settings: its settings.
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
        self._watchdog_settings = root / "watchdog.json"
        self._pids = (root / "api.pid", root / "watchdog.pid")
        self._server: Server | None = None
        self._open: list[tuple[ExabgpBackend, socket.socket]] = []

    def start(self) -> None:
        """Start or restart ExaBGP, and wait for its API processes."""
        self._watchdog_settings.write_text(self.settings.model_dump_json())
        for path in (self._socket, *self._pids):
            path.unlink(missing_ok=True)
        # -P: this file is in the same directory and has the name of ExaBGP's package.
        bridge = (sys.executable, "-P", exabgp_bridge.__file__)
        started = Commands(
            (*bridge, str(self._socket)),
            (*bridge, "--watchdog", str(self._watchdog_settings)),
        )
        commands = (chr(31).join(words) for words in started)
        self._server = Server(
            [sys.executable, "-c", _RUN, str(self._watchdog_settings), *commands],
            self._root / "exabgp.log",
        )
        self._server.start()
        self._server.wait(
            lambda: all(path.exists() for path in (self._socket, *self._pids)),
            seconds=60,
        )

    def connect(self, timeout: float = 30.0) -> ExabgpBackend:
        """Return the backend of a new connection; closes the earlier one.

        Args:
            timeout: the backend's.
        """
        self.disconnect()
        connection = socket.socket(socket.AF_UNIX)

        def connect() -> bool:
            with suppress(OSError):  # the process may be restarting
                connection.connect(str(self._socket))
                return True
            return False

        wait_until(connect, 30, "the API process")
        descriptor = connection.fileno()
        backend = ExabgpBackend(descriptor, descriptor, self.settings, timeout)
        self._open.append((backend, connection))
        return backend

    def disconnect(self) -> None:
        for backend, connection in self._open:
            backend.close()
            connection.close()
        self._open.clear()

    @property
    def enforcer(self) -> int:
        return int(self._pids[0].read_text())

    @property
    def watchdog(self) -> int:
        return int(self._pids[1].read_text())

    @property
    def pid(self) -> int:
        assert self._server is not None
        return self._server.pid

    @property
    def alive(self) -> bool:
        return self._server is not None and self._server.alive

    def output(self) -> str:
        return (self._root / "exabgp.log").read_text()

    def close(self) -> None:
        self.disconnect()
        if self._server is None:
            return
        with suppress(ProcessLookupError):
            os.kill(self._server.pid, signal.SIGCONT)
        self._server.kill()
        # They exit by themselves, unless a test has stopped one.
        for file in self._pids:
            with suppress(ProcessLookupError, FileNotFoundError):
                os.kill(int(file.read_text()), signal.SIGCONT)
