import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from fnm_bus.errors import ConfigError
from fnm_bus.health import HealthServer
from fnm_bus.metrics import RelayMetrics


@contextmanager
def serving(metrics: RelayMetrics, *, well: bool) -> Iterator[str]:
    server = HealthServer(
        "127.0.0.1", 0, metrics.registry(), lambda: (well, {"spool_files": 3})
    )
    port = server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()


def test_metrics_shows_what_was_counted() -> None:
    metrics = RelayMetrics()
    metrics.published.labels("fastnetmon.host.v1").inc(7)
    with serving(metrics, well=True) as address, urlopen(f"{address}/metrics") as page:
        text = page.read().decode()
    assert 'fnm_bus_published_total{topic="fastnetmon.host.v1"} 7.0' in text


def test_healthz_says_that_all_is_well_and_shows_the_facts() -> None:
    with (
        serving(RelayMetrics(), well=True) as address,
        urlopen(f"{address}/healthz") as page,
    ):
        assert json.load(page) == {"ok": True, "spool_files": 3}


def test_healthz_fails_when_all_is_not_well() -> None:
    with serving(RelayMetrics(), well=False) as address:
        with pytest.raises(HTTPError) as caught:
            urlopen(f"{address}/healthz")
        with caught.value as answer:
            assert answer.code == 503
            assert json.load(answer)["ok"] is False


def test_an_unknown_page_names_the_known_ones() -> None:
    with serving(RelayMetrics(), well=True) as address:
        with pytest.raises(HTTPError) as caught:
            urlopen(f"{address}/")
        with caught.value as answer:
            assert answer.code == 404
            assert b"/metrics" in answer.read()


def test_a_port_that_is_taken_is_a_configuration_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = HealthServer(
            "127.0.0.1",
            taken.getsockname()[1],
            RelayMetrics().registry(),
            lambda: (True, {}),
        )
        with pytest.raises(ConfigError, match="metrics_port"):
            server.start()
