"""The port of /metrics and /healthz, under clients that do not behave."""

import gzip
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from support.process import wait_until

from fnm_bus.errors import ConfigError
from fnm_bus.ops import http_server
from fnm_bus.ops.http_message import MAX_REQUEST
from fnm_bus.ops.http_server import MAX_CONNECTIONS, HttpServer
from fnm_bus.relay.metrics import RelayMetrics

HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def create_server(
    health: Callable[[], tuple[bool, dict[str, Any]]] = lambda: (True, {"files": 3}),
    host: str = "127.0.0.1",
    port: int = 0,
    metrics: RelayMetrics | None = None,
) -> HttpServer:
    registry = (metrics or RelayMetrics()).registry()
    return HttpServer(host, port, registry, health, "consumers")


@contextmanager
def serving(*arguments: Any, **options: Any) -> Iterator[int]:
    """Serve as `create_server` does; yield the port."""
    server = create_server(*arguments, **options)
    try:
        yield server.start()
    finally:
        server.stop()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def read_all(client: socket.socket) -> bytes:
    parts = []
    with suppress(ConnectionResetError):
        while part := client.recv(65536):
            parts.append(part)
    return b"".join(parts)


def ask(port: int, request: bytes) -> bytes:
    """Return the whole response to *request*."""
    with connect(port) as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        return read_all(client)


def get(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as page:
            return page.status, page.read()
    except HTTPError as exc:
        with exc:
            return exc.code, exc.read()


def test_metrics_has_the_counted_values() -> None:
    metrics = RelayMetrics()
    metrics.published.labels("fastnetmon.host.v1").inc(7)
    with serving(metrics=metrics) as port:
        status, text = get(port, "/metrics")
    assert status == 200
    assert b'fnm_bus_published_total{topic="fastnetmon.host.v1"} 7.0' in text


def test_metrics_are_compressed_for_a_client_that_accepts_gzip() -> None:
    with serving() as port:
        address = f"http://127.0.0.1:{port}/metrics"
        request = Request(address, headers={"Accept-Encoding": "gzip"})
        with urlopen(request, timeout=10) as page:
            assert page.headers["Content-Encoding"] == "gzip"
            assert b"fnm_bus_published" in gzip.decompress(page.read())


@pytest.mark.parametrize(("healthy", "status"), [(True, 200), (False, 503)])
def test_healthz_has_the_state_and_the_facts(healthy: bool, status: int) -> None:  # noqa: FBT001 - the case
    with serving(lambda: (healthy, {"files": 3})) as port:
        code, body = get(port, "/healthz")
    assert code == status
    assert json.loads(body) == {"ok": healthy, "files": 3}


def test_an_unknown_page_names_the_known_ones() -> None:
    with serving() as port:
        status, body = get(port, "/")
    assert status == 404
    assert b"/metrics" in body


def test_head_has_the_headers_only() -> None:
    with serving() as port:
        response = ask(port, HEALTHZ.replace(b"GET", b"HEAD"))
    assert response.startswith(b"HTTP/1.1 200 OK\r\n")
    assert response.endswith(b"\r\n\r\n")


def test_lines_may_end_without_carriage_return() -> None:
    with serving() as port:
        assert b"200 OK" in ask(port, b"GET /healthz HTTP/1.0\n\n")


def test_another_method_is_refused() -> None:
    with serving() as port:
        response = ask(port, b"POST /healthz HTTP/1.1\r\nContent-Length: 4\r\n\r\nxxxx")
    assert response.startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + b"x" * MAX_REQUEST + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * MAX_REQUEST,
        b"x" * 100 * MAX_REQUEST,
    ],
)
def test_a_request_that_is_too_large_is_refused(request_: bytes) -> None:
    with serving() as port, connect(port) as client:
        with suppress(ConnectionError):  # closed before all of it was sent
            client.sendall(request_)
        assert read_all(client).startswith(b"HTTP/1.1 431 ")


def test_an_error_of_the_health_function_fails_its_request_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = iter([(True, {})])
    with serving(lambda: next(answers)) as port:
        assert get(port, "/healthz")[0] == 200
        assert get(port, "/healthz")[0] == 500
        assert get(port, "/metrics")[0] == 200
    assert "StopIteration" in caplog.text


@pytest.mark.parametrize("sent", [b"", HEALTHZ[:20], b"\r\n"])
def test_a_client_that_sends_no_whole_request_delays_no_other(sent: bytes) -> None:
    with serving() as port, connect(port) as silent:
        silent.sendall(sent)
        start = time.monotonic()
        assert get(port, "/healthz")[0] == 200
        assert time.monotonic() - start < 2


def test_a_silent_client_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "TIMEOUT", 0.2)
    with serving() as port, connect(port) as silent:
        assert read_all(silent) == b""


def test_a_client_that_sends_slowly_is_disconnected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_server, "TIMEOUT", 0.5)
    with serving() as port, connect(port) as slow:
        slow.settimeout(0.05)
        start = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() - start < 10:
                slow.sendall(b"x")
                with suppress(TimeoutError):
                    if not slow.recv(1):
                        break
        assert time.monotonic() - start < 5


def test_a_client_that_does_not_read_is_disconnected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_server, "TIMEOUT", 0.2)
    size = 8 << 20
    server = create_server(lambda: (True, {"large": "x" * size}))
    port = server.start()
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(30)
        deaf.connect(("127.0.0.1", port))
        deaf.sendall(HEALTHZ)
        wait_until(lambda: bool(server._connections), 10, "the connection")
        wait_until(lambda: not server._connections, 10, "the end of the connection")
        assert len(read_all(deaf)) < size
    server.stop()


def test_too_many_silent_clients_keep_no_client_out() -> None:
    with serving() as port, ExitStack() as clients:
        silent = [
            clients.enter_context(connect(port)) for _ in range(3 * MAX_CONNECTIONS)
        ]
        assert get(port, "/healthz")[0] == 200
        assert read_all(silent[0]) == b""  # the oldest ones were closed


def test_stop_does_not_wait_for_clients() -> None:
    with ExitStack() as clients:
        with serving() as port:
            for sent in (b"", HEALTHZ[:20], HEALTHZ):
                clients.enter_context(connect(port)).sendall(sent)
            start = time.monotonic()
        assert time.monotonic() - start < 1


def test_stop_frees_the_port() -> None:
    with serving() as port:
        pass
    with serving(port=port) as again:
        assert again == port


def test_stop_without_start_does_nothing() -> None:
    create_server().stop()


@pytest.mark.parametrize("host", ["127.0.0.1", "not.a.host.invalid"])
def test_an_unusable_address_is_a_configuration_error(host: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=r"\[consumers\] .*metrics_port.*" + host):
            create_server(host=host, port=port).start()


def test_an_ipv6_address_is_listened_on() -> None:
    with serving(host="::1") as port:
        address = f"http://[::1]:{port}/healthz"
        with urlopen(address, timeout=10) as page:
            assert page.status == 200
