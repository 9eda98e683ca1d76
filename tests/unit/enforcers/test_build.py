"""An enforcer from the settings, and its health."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError
from support.process import free_port

from consumers import serving
from consumers.enforcers.backend import MemoryBackend
from consumers.enforcers.build import allowed_networks, build_enforcer, check_enforcer
from consumers.metrics import EnforcerMetrics
from consumers.mitigation.enforcer_names import known_enforcers
from consumers.settings import ConsumerSettings, FullSettings, GuardSettings


def settings(*own: str, dry_run: bool = False, **kafka: str) -> FullSettings:
    consumers = ConsumerSettings(
        enforcer=GuardSettings(own_networks=own), metrics_port=free_port()
    )
    bootstrap = {"bootstrap.servers": "127.0.0.1:1"}
    return FullSettings(
        consumers=consumers, dry_run=dry_run, kafka={**bootstrap, **kafka}
    )


def test_live_enforcer_needs_own_networks() -> None:
    config = settings()
    for build in (
        lambda: check_enforcer(config, config.consumers.exabgp),
        lambda: build_enforcer(
            config, config.consumers.exabgp, MemoryBackend(), EnforcerMetrics()
        ),
    ):
        with pytest.raises(Exception, match=r"consumers\.enforcer\.own_networks"):
            build()


def test_dry_run_without_own_networks_warns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert allowed_networks(settings(dry_run=True)) is None
    assert "consumers.enforcer.own_networks" in caplog.text


def test_own_networks_are_parsed() -> None:
    result = allowed_networks(settings("203.0.113.0/24", "2001:db8::/32"))
    assert list(map(str, result or ())) == ["203.0.113.0/24", "2001:db8::/32"]


@pytest.mark.parametrize(
    "value",
    [7, "203.0.113.7/24", "0.0.0.0/0", "::/0", "203.0.113.7", "2001:DB8::/32", "x", ""],
)
def test_value_that_is_not_a_network_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError):
        GuardSettings(own_networks=(value,))


@pytest.mark.parametrize("setting", ["no.such.thing", "auto.offset.reset"])
def test_settings_refused_by_librdkafka_fail_the_check(
    setting: str, tmp_path: Path
) -> None:
    config = settings("203.0.113.0/24", **{setting: "x"})
    own_settings = config.consumers.exabgp.model_copy(
        update={"snapshot": tmp_path / "s.json"}
    )
    with pytest.raises(Exception, match=setting):
        check_enforcer(config, own_settings)
    check_enforcer(settings("203.0.113.0/24"), own_settings)


class _Service:
    """Requests its own health while it runs."""

    def __init__(self, port: int) -> None:
        self.turned_at = time.monotonic()
        self._port = port
        self.answers: list[tuple[int, Any]] = []

    def run(self) -> None:
        try:
            with urlopen(
                f"http://127.0.0.1:{self._port}/healthz", timeout=10
            ) as answer:
                self.answers.append((answer.status, json.load(answer)))
        except HTTPError as exc:
            self.answers.append((exc.code, json.load(exc)))

    def stop(self) -> None:
        pass


@pytest.fixture
def signals() -> Iterator[None]:
    before = {
        number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(("healthy", "status"), [(True, 200), (False, 503)])
def test_healthz_shows_unhealthy_service(
    healthy: bool,  # noqa: FBT001 - a parameter of the test
    status: int,
) -> None:
    config = settings(dry_run=True)
    service = _Service(config.consumers.metrics_port)
    serving.serve(
        config, service, CollectorRegistry(), lambda: {"x": 1}, lambda: healthy
    )
    ((result, answer),) = service.answers
    assert result == status
    assert answer["x"] == 1


def test_known_enforcers_are_the_backends() -> None:
    assert known_enforcers() == ("exabgp", "nftables")
