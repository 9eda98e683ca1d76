"""The health that a service serves."""

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from support.consumer_processes import health_at
from support.process import free_port

from consumers import serving
from consumers.settings import ConsumerSettings, FullSettings


class _Service:
    """Asks for its own health while it runs."""

    def __init__(self, port: int, *, is_healthy: bool) -> None:
        self.iterated_at = time.monotonic()
        self._port = port
        self._is_healthy = is_healthy
        self.answers: list[tuple[int, Any]] = []

    def run(self) -> None:
        self.answers.append(health_at(f"http://127.0.0.1:{self._port}"))

    def stop(self) -> None:
        pass

    def health(self) -> tuple[bool, dict[str, object]]:
        return self._is_healthy, {"x": 1}


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
def test_an_unhealthy_service_has_status_503_at_healthz(
    healthy: bool,  # noqa: FBT001 - a parameter of the test
    status: int,
) -> None:
    settings = FullSettings(
        consumers=ConsumerSettings(metrics_port=free_port()),
        dry_run=True,
        kafka={"bootstrap.servers": "127.0.0.1:1"},
    )
    service = _Service(settings.consumers.metrics_port, is_healthy=healthy)
    serving.serve(settings, service, CollectorRegistry())
    ((code, answer),) = service.answers
    assert code == status
    assert answer["x"] == 1
