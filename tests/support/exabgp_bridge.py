"""An API process that connects ExaBGP's pipes to a socket.

    exabgp_bridge.py SOCKET     bridge, one connection at a time
    exabgp_bridge.py --watchdog SETTINGS     run the watchdog, with settings as JSON

So a test can act as the enforcer, stop and kill ExaBGP's process, and reconnect.
SOCKET.pid has the process id.
"""

import os
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

from consumers.enforcers.exabgp import watchdog
from consumers.settings import ExabgpSettings
from fnm_bus.ops.log import configure


class Bridge:
    """Copies in both directions; ExaBGP's output without a connection is lost."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connected: socket.socket | None = None

    def run(self) -> None:
        threading.Thread(target=self._copy_output, daemon=True).start()
        self._path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(self._path))
            listening.listen()
            while True:
                self._connected, _ = listening.accept()
                with self._connected as connected:
                    self._copy_commands(connected)

    def _copy_commands(self, connected: socket.socket) -> None:
        with suppress(OSError):
            while data := connected.recv(1 << 16):
                while data:
                    data = data[os.write(1, data) :]
        self._connected = None

    def _copy_output(self) -> None:
        while data := os.read(0, 1 << 16):
            connected = self._connected
            if connected is not None:
                with suppress(OSError):
                    connected.sendall(data)
        os._exit(0)  # ExaBGP has exited


def main() -> None:
    path = Path(sys.argv[-1])
    temporary = path.with_suffix(".tmp")
    temporary.write_text(str(os.getpid()))
    temporary.rename(path.with_suffix(".pid"))
    if sys.argv[1] == "--watchdog":
        configure("info", "console")
        watchdog.run(ExabgpSettings.model_validate_json(path.read_bytes()))
    else:
        Bridge(path).run()


if __name__ == "__main__":
    main()
