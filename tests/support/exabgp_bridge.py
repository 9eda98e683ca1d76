"""An API process that hands ExaBGP's pipes to whoever connects to a socket.

    exabgp_bridge.py SOCKET     bridge, one connection at a time
    exabgp_bridge.py --watchdog SETTINGS     be the watchdog, with settings as JSON

So a test is the enforcer itself, can stop and kill the process that ExaBGP knows, and
can come back. Beside the socket, SOCKET.pid has the number of the process.
"""

import os
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

from consumers.enforcers.exabgp import watchdog
from consumers.settings import ExabgpSettings


class Bridge:
    """Copies both ways; what comes while nobody is connected is lost."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connected: socket.socket | None = None

    def run(self) -> None:
        threading.Thread(target=self._down, daemon=True).start()
        self._path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(self._path))
            listening.listen()
            while True:
                self._connected, _ = listening.accept()
                with self._connected as it:
                    self._up(it)

    def _up(self, connected: socket.socket) -> None:
        with suppress(OSError):
            while data := connected.recv(1 << 16):
                while data:
                    data = data[os.write(1, data) :]
        self._connected = None

    def _down(self) -> None:
        while data := os.read(0, 1 << 16):
            it = self._connected
            if it is not None:
                with suppress(OSError):
                    it.sendall(data)
        os._exit(0)  # ExaBGP has ended


def main() -> None:
    path = Path(sys.argv[-1])
    half = path.with_suffix(".half")
    half.write_text(str(os.getpid()))
    half.rename(path.with_suffix(".pid"))
    if sys.argv[1] == "--watchdog":
        watchdog.run(ExabgpSettings.model_validate_json(path.read_bytes()))
    else:
        Bridge(path).run()


if __name__ == "__main__":
    main()
