"""A web server on loopback that keeps what it gets and answers as it is told."""

import threading
import time
from collections import deque
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self


class Answer(NamedTuple):
    """How one request is answered."""

    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes = b"ok"


class Got(NamedTuple):
    """One request."""

    at: float
    path: str
    headers: Mapping[str, str]
    body: bytes


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients are killed on purpose."""


class Receiver:
    """Takes requests while its context is open.

    Args:
        port: where to listen; 0 takes a free one.

    Attributes:
        answers: what the next requests get; 200 when none is left.
        got: the requests, in order.
        held: while it is set, requests are taken and not answered.
    """

    def __init__(self, port: int = 0) -> None:
        self._port = port
        self._server: _Server | None = None
        self._news = threading.Condition()
        self.answers: deque[Answer] = deque()
        self.got: list[Got] = []
        self.held = threading.Event()

    def __enter__(self) -> Self:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._answer(self)

            do_GET = do_POST  # noqa: N815 - its name

            def log_message(self, *_args: Any) -> None:
                """Say nothing."""

        self._server = _Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_port
        threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        ).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.held.clear()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/services/T00/s3cr3t-path"

    def wait_for(self, count: int, seconds: float = 30) -> list[Got]:
        """Return the requests once there are *count*.

        Raises:
            TimeoutError: there were fewer within *seconds*.
        """
        with self._news:
            if not self._news.wait_for(lambda: len(self.got) >= count, seconds):
                raise TimeoutError(f"{len(self.got)} requests, wanted {count}")
            return list(self.got)

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in request.headers.items()}
        with self._news:
            answer = self.answers.popleft() if self.answers else Answer()
            self.got.append(Got(time.monotonic(), request.path, headers, body))
            self._news.notify_all()
        while self.held.is_set():
            time.sleep(0.01)
        request.send_response(answer.status)
        for name, value in answer.headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(answer.body)))
        request.end_headers()
        request.wfile.write(answer.body)
