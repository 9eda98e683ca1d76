"""The server for web callbacks in docs/fastnetmon.md: 200 only for stored documents."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from support.process import wait_until

PAGE = Path(__file__).parents[3] / "docs/fastnetmon.md"
BAN = b'{"action":"ban","ip":"192.0.2.1"}'


class Server:
    """The server, with a program named `fnm-bus` whose status is in a file."""

    def __init__(self, root: Path) -> None:
        (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
        (root / "callback.py").write_text(code)
        self.stored, self._status = root / "stored", root / "status"
        program = root / "fnm-bus"
        program.write_text(
            f"#!/bin/sh\ncat >>'{self.stored}'\nexit $(cat '{self._status}')\n"
        )
        program.chmod(0o755)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.process = subprocess.Popen(
            [sys.executable, root / "callback.py", str(self._port)],
            env={**os.environ, "PATH": f"{root}:{os.environ['PATH']}"},
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._listens, 20, "the server listens")

    def _listens(self) -> bool:
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self._port)) == 0

    def post(self, body: bytes, status: int = 0, length: str | None = None) -> int:
        self._status.write_text(str(status))
        connection = HTTPConnection("127.0.0.1", self._port, timeout=20)
        headers = {} if length is None else {"Content-Length": length}
        connection.request("POST", "/", body, headers)
        try:
            return connection.getresponse().status
        finally:
            connection.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.process.kill()
    server.process.wait(20)


@pytest.mark.parametrize(("status", "answer"), [(0, 200), (65, 200), (75, 503)])
def test_the_status_tells_whether_the_document_is_stored(
    server: Server, status: int, answer: int
) -> None:
    assert server.post(BAN, status) == answer
    assert server.stored.read_bytes() == BAN


@pytest.mark.parametrize(
    ("length", "answer"), [("0", 413), (str(1 << 40), 413), ("-1", 411), ("x", 411)]
)
def test_an_invalid_length_stores_nothing(
    server: Server, length: str, answer: int
) -> None:
    assert server.post(b"", length=length) == answer
    assert not server.stored.exists()


def test_an_incomplete_document_is_not_stored(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server._port)) as half:
        half.sendall(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\n" + BAN)
        half.shutdown(socket.SHUT_WR)
        assert half.recv(100) == b""  # it has read to the end, and answers nothing
    assert not server.stored.exists()
