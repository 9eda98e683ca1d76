"""What every consumer's process does: read the settings, serve metrics and health."""

import logging
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Final, Protocol

from prometheus_client import CollectorRegistry

from consumers.settings import AllSettings
from fnm_bus import config
from fnm_bus import log as logs
from fnm_bus.health import HealthServer

log = logging.getLogger(__name__)

HUNG: Final = 30.0
"""Seconds without a turn of a consumer's loop after which /healthz says so."""


class Service(Protocol):
    """What runs until it is asked to stop.

    Attributes:
        turned_at: when its loop turned last, on the monotonic clock.
    """

    turned_at: float

    def run(self) -> None:
        """Work until `stop`."""

    def stop(self) -> None:
        """Ask `run` to end; may be called from a signal handler."""


def settings(file: Path | None) -> AllSettings:
    """Return the settings; from here on logging is as they say.

    Raises:
        ConfigError: they are wrong.
    """
    found = config.load_as(AllSettings, file).settings
    logs.configure(found.log.level, found.log.format)
    return found


def serve(
    it: AllSettings,
    service: Service,
    registry: CollectorRegistry,
    facts: Callable[[], Mapping[str, object]] = dict,
    healthy: Callable[[], bool] = lambda: True,
) -> None:
    """Run *service* until a signal comes, with its figures and its health on a port.

    Raises:
        ConfigError: the port cannot be listened on, or what the service raises.
    """

    def state() -> tuple[bool, Mapping[str, object]]:
        silent = monotonic() - service.turned_at
        well = silent < HUNG and healthy()
        return well, {"seconds_since_turn": round(silent, 3), **facts()}

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: service.stop())
    of = it.consumers
    address = of.metrics_host, of.metrics_port
    server = HealthServer(*address, registry, state, "consumers")
    port = server.start()
    log.info("metrics and health on %s:%d", of.metrics_host, port)
    if it.dry_run:
        log.info("dry run: nothing is touched until dry_run = false")
    try:
        service.run()
    finally:
        server.stop()
