"""Serve /metrics and /healthz, even to slow and hostile clients.

One daemon thread with its own event loop serves all connections. All limits are
absolute: `TIMEOUT` seconds from a connection's start to the end of its response, and
`MAX_REQUEST` bytes for a request. A connection beyond `MAX_CONNECTIONS` closes the
oldest one. So no client delays another client or the end of the program.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, make_wsgi_app

from fnm_bus.errors import ConfigError
from fnm_bus.ops.http_message import MAX_REQUEST, header_fields, read_head, response
from fnm_bus.ops.log import get_logger
from fnm_bus.ops.terminal import json_line

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

log = get_logger(__name__)

TIMEOUT: Final = 5.0
"""Seconds from a connection's start to the end of its response."""
MAX_CONNECTIONS: Final = 64
"""Open connections; one more closes the oldest."""
_BACKLOG: Final = 64
_SHOWN_TARGET: Final = 200
"""Characters of a request's target in a log line."""
_PAUSE: Final = 1.0
"""Seconds without new connections after a failure to accept one."""
_JOIN: Final = 1.0
"""Seconds that `stop` waits for the thread; a daemon thread ends with the program."""


class HttpServer:
    """An HTTP server in a daemon thread.

    Args:
        host: address to listen on, IPv4 or IPv6.
        port: port to listen on; 0 takes a free one.
        registry: the metrics of /metrics.
        health: returns whether the program is healthy, and the fields of /healthz.
        table: configuration table of the address, for error messages.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        health: Callable[[], tuple[bool, Mapping[str, object]]],
        table: str = "relay",
    ) -> None:
        self._table = table
        self._address = (host, port)
        self._metrics = make_wsgi_app(registry)
        self._health = health
        self._connections: dict[asyncio.Task[None], socket.socket] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Listen and return the port.

        Raises:
            ConfigError: the address cannot be used.
        """
        listener = self._listen()
        port = int(listener.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._run, args=(self._loop, listener), name="http", daemon=True
        )
        self._thread.start()
        return port

    def stop(self) -> None:
        """Close the port and all connections; return within a second."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._loop = self._thread = None
        with suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(self._stopped.set)
        thread.join(_JOIN)

    def _listen(self) -> socket.socket:
        host, port = self._address
        listener = None
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listener = socket.socket(family, kind, protocol)
            # A restart must not wait for the end of old connections (TIME_WAIT).
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
            listener.settimeout(0)
        except OSError as exc:
            if listener is not None:
                listener.close()
            raise ConfigError(
                f"[{self._table}] metrics_host, metrics_port: cannot listen on"
                f" {host}:{port}: {exc.strerror}"
            ) from exc
        return listener

    def _run(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        try:
            with listener, asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._serve(loop, listener))
        except Exception:
            log.exception("http_server_failed")

    async def _serve(
        self, loop: asyncio.AbstractEventLoop, listener: socket.socket
    ) -> None:
        loop.add_reader(listener, self._accept, loop, listener)
        await self._stopped.wait()
        loop.remove_reader(listener)  # the runner cancels open connections

    def _accept(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except (
            BlockingIOError,
            ConnectionAbortedError,
        ):  # the client has closed the connection
            return
        except OSError as exc:  # no file descriptor is free
            log.warning("http_accept_failed", error=exc)
            loop.remove_reader(listener)
            loop.call_later(
                _PAUSE, loop.add_reader, *(listener, self._accept, loop, listener)
            )
            return
        client.settimeout(0)
        task = loop.create_task(self._handle(loop, client))
        self._connections[task] = client
        task.add_done_callback(self._close)
        if len(self._connections) > MAX_CONNECTIONS:
            oldest = next(task for task in self._connections if not task.cancelling())
            oldest.cancel()

    def _close(self, task: "asyncio.Task[None]") -> None:
        self._connections.pop(task).close()

    async def _handle(
        self, loop: asyncio.AbstractEventLoop, client: socket.socket
    ) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                await loop.sock_sendall(client, await self._respond(loop, client))
                client.shutdown(socket.SHUT_WR)
                # Closing with unread bytes sends a reset, which can overtake the
                # response.
                while await loop.sock_recv(client, MAX_REQUEST):
                    pass
        except (TimeoutError, EOFError, OSError) as exc:
            log.debug("http_connection_closed", error=repr(exc))

    async def _respond(
        self, loop: asyncio.AbstractEventLoop, client: socket.socket
    ) -> bytes:
        try:
            lines = await read_head(loop, client)
        except ValueError:
            return response("431 Request Header Fields Too Large")
        method, _, rest = lines[0].partition(" ")
        if method not in {"GET", "HEAD"}:
            return response("405 Method Not Allowed", [("Allow", "GET, HEAD")])
        target = rest.partition(" ")[0]
        try:
            status, headers, body = self._page(target, header_fields(lines[1:]))
        except Exception:
            log.exception("http_request_failed", target=target[:_SHOWN_TARGET])
            return response("500 Internal Server Error")
        return response(status, headers, body, with_body=method == "GET")

    def _page(
        self, target: str, fields: Mapping[str, str]
    ) -> tuple[str, Sequence[tuple[str, str]], bytes]:
        """Return status, headers and body for a request's target."""
        path, _, query = target.partition("?")
        if path == "/metrics":
            return self._get_metrics(query, fields)
        if path != "/healthz":
            kind = [("Content-Type", "text/plain")]
            return "404 Not Found", kind, b"the pages are /metrics and /healthz\n"
        healthy, facts = self._health()
        status = "200 OK" if healthy else "503 Service Unavailable"
        body = json_line({"ok": healthy, **facts}).encode() + b"\n"
        return status, [("Content-Type", "application/json")], body

    def _get_metrics(
        self, query: str, fields: Mapping[str, str]
    ) -> tuple[str, Sequence[tuple[str, str]], bytes]:
        # The library chooses format and compression; WSGI is its interface for that.
        environ: WSGIEnvironment = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/metrics",
            "QUERY_STRING": query,
            "HTTP_ACCEPT": fields.get("accept", ""),
            "HTTP_ACCEPT_ENCODING": fields.get("accept-encoding", ""),
        }
        started: list[tuple[str, Sequence[tuple[str, str]]]] = []

        def start_response(status: str, headers: Any, _exc: Any = None) -> Any:
            started.append((status, headers))

        body: Iterable[bytes] = self._metrics(environ, start_response)
        [(status, headers)] = started
        return status, headers, b"".join(body)
