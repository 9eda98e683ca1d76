"""Run one consumer as a service: settings, signals, metrics and health.

Imports neither the mitigator nor an enforcer: a consumer that only reports does not
depend on programs that decide.
"""

import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Final, Protocol

from prometheus_client import CollectorRegistry

from consumers.settings import FullSettings
from fnm_bus.config import load
from fnm_bus.ops.http_server import HttpServer
from fnm_bus.ops.log import configure, get_logger

log = get_logger(__name__)

HUNG: Final = 30.0
"""Seconds without an iteration of a consumer's loop until /healthz reports 503."""


class Service(Protocol):
    """A program that runs until `stop`.

    Attributes:
        turned_at: start of its loop's last iteration, on the monotonic clock.
    """

    turned_at: float

    def run(self) -> None:
        """Work until `stop`."""

    def stop(self) -> None:
        """Ask `run` to end; may be called from a signal handler."""


def load_settings(file: Path | None) -> FullSettings:
    """Return the settings, and configure logging by them.

    Raises:
        ConfigError: the settings are invalid.
    """
    loaded = load.load_as(FullSettings, file).settings
    configure(loaded.log.level, loaded.log.format)
    return loaded


def serve(
    settings: FullSettings,
    service: Service,
    registry: CollectorRegistry,
    facts: Callable[[], Mapping[str, object]] = dict,
    healthy: Callable[[], bool] = lambda: True,
) -> None:
    """Run *service* until a signal arrives, with its metrics and health on a port.

    Raises:
        ConfigError: the port cannot be used. The service's errors are raised, too.
    """

    def state() -> tuple[bool, Mapping[str, object]]:
        idle = monotonic() - service.turned_at
        is_healthy = idle < HUNG and healthy()
        return is_healthy, {"seconds_since_turn": round(idle, 3), **facts()}

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: service.stop())
    tables = settings.consumers
    address = tables.metrics_host, tables.metrics_port
    server = HttpServer(*address, registry, state, "consumers")
    port = server.start()
    log.info("serving", address=f"{tables.metrics_host}:{port}")
    if settings.dry_run:
        log.info("dry_run", remedy="set dry_run = false to affect traffic")
    try:
        service.run()
    finally:
        server.stop()
