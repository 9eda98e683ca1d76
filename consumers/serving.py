"""Run one consumer as a service: settings, signals, metrics and health.

Imports neither the mitigator nor an enforcer: a consumer that only reports does not
depend on programs that decide.
"""

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry

from consumers.settings import FullSettings
from fnm_bus import build as bus
from fnm_bus.config import load
from fnm_bus.consume.handler import Handler
from fnm_bus.consume.loop import ConsumerLoop
from fnm_bus.consume.metrics import ConsumeMetrics
from fnm_bus.kafka.publisher import SERVICE_PRODUCER, KafkaPublisher
from fnm_bus.ops.http_server import HttpServer
from fnm_bus.ops.log import configure, get_logger

log = get_logger(__name__)

HUNG: Final = 30.0
"""Seconds without an iteration of a consumer's loop until /healthz reports 503."""


class Service(Protocol):
    """A program that runs until `stop`.

    Attributes:
        iterated_at: start of its loop's last iteration, on the monotonic clock.
    """

    iterated_at: float

    def run(self) -> None:
        """Work until `stop`."""

    def stop(self) -> None:
        """Ask `run` to end; may be called from a signal handler."""

    def health(self) -> tuple[bool, Mapping[str, object]]:
        """Return whether it works without a person's help, and values for /healthz."""


def load_settings(file: Path | None) -> FullSettings:
    """Return the settings, and configure logging by them.

    Raises:
        ConfigError: the settings are invalid.
    """
    loaded = load.load_as(FullSettings, file).settings
    configure(loaded.log.level, loaded.log.format)
    return loaded


def serve(
    settings: FullSettings, service: Service, registry: CollectorRegistry
) -> None:
    """Run *service* until a signal arrives, with its metrics and health on a port.

    Raises:
        ConfigError: the port cannot be used. The service's errors are raised, too.
    """

    def state() -> tuple[bool, Mapping[str, object]]:
        idle = monotonic() - service.iterated_at
        is_healthy, values = service.health()
        shown = {"seconds_since_iteration": round(idle, 3), **values}
        return is_healthy and idle < HUNG, shown

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


def consume(
    settings: FullSettings,
    group: str,
    topics: Sequence[str],
    handler: Handler,
    **options: Any,
) -> None:
    """Run a `ConsumerLoop` until a signal arrives; a dry run does not apply to it.

    Raises:
        ConfigError: the port or Kafka's settings are invalid.
        TopicRefused: a topic does not exist, or may not be read.
        AbortConsumer: from the handler or a callback.
    """
    kafka = bus.kafka_settings(settings)
    publisher = KafkaPublisher(kafka, SERVICE_PRODUCER)
    metrics = ConsumeMetrics()
    loop = ConsumerLoop(
        kafka,
        group,
        topics,
        bus.build_reading_codec(settings),
        handler,
        deadletter_topic=bus.topic_names(settings).deadletter,
        publisher=publisher,
        metrics=metrics,
        max_attempts=settings.consumers.max_attempts,
        **options,
    )
    live = settings.model_copy(update={"dry_run": False})
    try:
        serve(live, loop, metrics.registry())
    finally:
        publisher.close()
