"""A TCP proxy on loopback that can be cut and repaired."""

import selectors
import socket
import threading
from contextlib import suppress

_SIZE = 65_536


class TcpProxy:
    """Forwards connections to a server, but nothing while it is cut.

    As with a real cable nobody is told: connections stay, and what was under way
    arrives when it is mended, or never.

    Args:
        server: address and port of the server.
        host: where clients find this end.
        source: the address that the server sees.

    Attributes:
        port: where clients find this end.
    """

    def __init__(
        self,
        server: tuple[str, int],
        host: str = "127.0.0.1",
        source: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._server = server
        self._source = source
        self._listening = socket.create_server((host, port))
        self.port = int(self._listening.getsockname()[1])
        self._whole = threading.Event()
        self._whole.set()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Let nothing through any more."""
        self._whole.clear()

    def mend(self) -> None:
        """Let everything through again."""
        self._whole.set()

    def close(self) -> None:
        """Close all connections and end."""
        self._ended.set()
        self._whole.set()
        self._thread.join(10)
        for item in (*self._pairs, self._listening):
            item.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._whole.wait()
            for key, _events in self._selector.select(0.05):
                # `select` may have been under way when the cable was cut.
                if not self._whole.is_set() or self._ended.is_set():
                    break
                if key.fileobj is self._listening:
                    self._accept()
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    self._forward(key.fileobj)

    def _accept(self) -> None:
        client, _address = self._listening.accept()
        try:
            server = socket.create_connection(
                self._server, timeout=5, source_address=(self._source, 0)
            )
        except OSError:
            client.close()
            return
        for side, other in ((client, server), (server, client)):
            side.settimeout(5)
            self._pairs[side] = other
            self._selector.register(side, selectors.EVENT_READ)

    def _forward(self, one: socket.socket) -> None:
        other = self._pairs.get(one)
        if other is None:
            return
        data = b""
        with suppress(OSError):
            data = one.recv(_SIZE)
            if data:
                other.sendall(data)
        if not data:
            for connection in (one, other):
                self._selector.unregister(connection)
                self._pairs.pop(connection, None)
                connection.close()
