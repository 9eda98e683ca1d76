"""Everything put together from the settings; the only place that knows all of it."""

import logging
import os
import signal
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from time import monotonic
from typing import Final, Protocol

from prometheus_client import CollectorRegistry

from consumers.enforcers.audit_publisher import AuditPublisher
from consumers.enforcers.backend import Backend
from consumers.enforcers.enforcer import Enforcer
from consumers.enforcers.wanted_reader import (
    CommandReader,
    TolerantCodec,
    WantedStateReader,
)
from consumers.metrics import EnforcerMetrics, MitigatorMetrics
from consumers.mitigation.clock import BrokerClock
from consumers.mitigation.measure import Network
from consumers.mitigator.service import Mitigator
from consumers.mitigator.turn import Terms
from consumers.policy.file import load as policy_file
from consumers.settings import AllSettings, EnforcerSettings
from fnm_bus import config, wiring
from fnm_bus import log as logs
from fnm_bus.errors import ConfigError
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


def terms(it: AllSettings) -> Terms:
    """Return what the mitigator decides by.

    Raises:
        ConfigError: the policy is wrong; all problems at once.
    """
    of = it.consumers.mitigator
    return Terms(
        policy_file.load(of.policy),
        dry_run=it.dry_run,
        ban_time=of.ban_time,
        memory=of.memory,
    )


def mitigator(it: AllSettings, metrics: MitigatorMetrics) -> Mitigator:
    """Return the mitigator.

    Raises:
        ConfigError: the policy is wrong, or a secret cannot be read.
    """
    return Mitigator(
        settings=wiring.kafka(it),
        name=it.consumers.mitigator.transactional_id,
        topics=wiring.topics(it),
        codec=wiring.reading_codec(it),
        terms=terms(it),
        metrics=metrics,
    )


def enforcement(
    it: AllSettings, of: EnforcerSettings, backend: Backend, metrics: EnforcerMetrics
) -> Enforcer:
    """Return an enforcer for *backend*.

    Raises:
        ConfigError: a secret cannot be read, or it may not go live.
    """
    kafka, names = wiring.kafka(it), wiring.topics(it)
    # What ends a block depends on no registry.
    codec = TolerantCodec()
    broker_clock = BrokerClock()
    return Enforcer(
        backend=backend,
        wanted_reader=WantedStateReader(kafka, names.mitigation, codec),
        command_reader=CommandReader(kafka, names.command, codec),
        audit=AuditPublisher(kafka, names.audit, codec, backend.name, broker_clock),
        broker_clock=broker_clock,
        path=of.snapshot,
        interval=of.reconcile_interval,
        max_clock_skew=of.max_clock_skew,
        own_networks=own_networks(it),
        dry_run=it.dry_run,
        metrics=metrics,
    )


def own_networks(it: AllSettings) -> tuple[Network, ...] | None:
    """Return the networks in which enforcers allow measures; None: all, in a dry run.

    Raises:
        ConfigError: none are configured and this is not a dry run.
    """
    texts = it.consumers.enforcer.own_networks
    if texts:
        return tuple(map(ip_network, texts))
    need = "consumers.enforcer.own_networks: wanted your own networks, got none"
    if not it.dry_run:
        raise ConfigError(f"{need}; an enforcer does not go live without them")
    log.warning("%s; needed before dry_run = false", need)
    return None


def check_enforcer(it: AllSettings, of: EnforcerSettings) -> None:
    """Make sure that an enforcer with these settings can start.

    Raises:
        ConfigError: librdkafka refuses `[kafka]`, a secret cannot be read, the snapshot
            cannot be written, or it may not go live.
    """
    own_networks(it)
    AuditPublisher(
        wiring.kafka(it), it.topics.audit, TolerantCodec(), "", BrokerClock()
    ).open()
    directory = of.snapshot.absolute().parent
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigError(f"snapshot: {directory} is missing or cannot be written")


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
