"""A CONNECT proxy with a CA of its own: every host answers from this machine."""

import ssl
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self


class Request(NamedTuple):
    """A request to a host behind the proxy."""

    host: str
    path: str
    body: bytes


class ConnectProxy:
    """Accepts CONNECT to any of *hosts*, and answers each request with 200.

    Attributes:
        requests: all requests, in order.
        ca: file with the certificate of the CA.
    """

    def __init__(self, root: Path, hosts: Sequence[str]) -> None:
        self.requests: list[Request] = []
        self.ca = root / "proxy.pem"
        key = root / "proxy.key"
        names = ",".join(f"DNS:{host}" for host in hosts)
        command = (
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes"),
            *("-days", "2", "-subj", "/CN=proxy", "-addext", f"subjectAltName={names}"),
            *("-keyout", key, "-out", self.ca),
        )
        subprocess.run(command, check=True, capture_output=True)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.ca, key)
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            host = ""

            def do_CONNECT(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.host = self.path
                context = proxy._context
                with (
                    suppress(OSError),
                    context.wrap_socket(self.connection, server_side=True) as tls,
                ):
                    self.rfile = tls.makefile("rb")
                    self.wfile = tls.makefile("wb", buffering=0)
                    self.handle_one_request()
                self.close_connection = True

            def do_POST(self) -> None:
                size = int(self.headers.get("Content-Length", 0))
                request = Request(self.host, self.path, self.rfile.read(size))
                proxy.requests.append(request)
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_args: Any) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which a program uses the proxy and trusts its CA."""
        port = self._server.server_port if self._server else 0
        return {
            "HTTPS_PROXY": f"http://127.0.0.1:{port}",
            "NO_PROXY": "127.0.0.1",
            "REQUESTS_CA_BUNDLE": str(self.ca),
        }
