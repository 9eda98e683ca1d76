"""Serve /metrics and /healthz on a port of one's own."""

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from fnm_bus.errors import ConfigError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
        """Say nothing: a scrape every few seconds is no news."""


class HealthServer:
    """An HTTP server in a thread of its own.

    Args:
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        registry: what /metrics shows.
        health: returns whether all is well and what to show at /healthz.
        table: where the address is configured, for what is said when it is wrong.
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
        self._server: WSGIServer | None = None

    def start(self) -> int:
        """Listen and return the port.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        try:
            server = make_server(*self._address, self._app, handler_class=_Quiet)
        except OSError as exc:
            host, port = self._address
            raise ConfigError(
                f"[{self._table}] metrics_host, metrics_port: cannot listen on"
                f" {host}:{port}:"
                f" {exc.strerror}"
            ) from exc
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._server = server
        return int(server.server_port)

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _app(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            answer: Iterable[bytes] = self._metrics(environ, start_response)
            return answer
        if path != "/healthz":
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"look at /metrics or /healthz\n"]
        well, facts = self._health()
        start_response(
            "200 OK" if well else "503 Service Unavailable",
            [("Content-Type", "application/json")],
        )
        return [json.dumps({"ok": well, **facts}).encode() + b"\n"]
