"""An enforcer, put together from the settings."""

import logging
import os
from ipaddress import ip_network

from consumers.enforcers.audit_publisher import AuditPublisher
from consumers.enforcers.backend import Backend
from consumers.enforcers.enforcer import Enforcer
from consumers.enforcers.wanted_reader import (
    CommandReader,
    WantedStateReader,
)
from consumers.metrics import EnforcerMetrics
from consumers.mitigation.clock import BrokerClock
from consumers.mitigation.measure import Network
from consumers.settings import EnforcerSettings, FullSettings
from fnm_bus import build
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import ConfigError

log = logging.getLogger(__name__)


def build_enforcer(
    it: FullSettings, of: EnforcerSettings, backend: Backend, metrics: EnforcerMetrics
) -> Enforcer:
    """Return an enforcer for *backend*.

    Raises:
        ConfigError: a secret cannot be read, or it may not go live.
    """
    kafka, names = build.kafka_settings(it), build.topic_names(it)
    # What ends a block depends on no registry.
    codec = Codec()
    audit_codec = build.build_independent_codec(it)
    broker_clock = BrokerClock()
    return Enforcer(
        backend=backend,
        wanted_reader=WantedStateReader(kafka, names.mitigation, codec),
        command_reader=CommandReader(kafka, names.command, codec),
        audit=AuditPublisher(
            kafka, names.audit, audit_codec, backend.name, broker_clock
        ),
        broker_clock=broker_clock,
        path=of.snapshot,
        interval=of.reconcile_interval,
        max_clock_skew=of.max_clock_skew,
        own_networks=allowed_networks(it),
        dry_run=it.dry_run,
        metrics=metrics,
    )


def allowed_networks(it: FullSettings) -> tuple[Network, ...] | None:
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


def check_enforcer(it: FullSettings, of: EnforcerSettings) -> None:
    """Make sure that an enforcer with these settings can start.

    Raises:
        ConfigError: librdkafka refuses `[kafka]`, a secret cannot be read, the snapshot
            cannot be written, or it may not go live.
    """
    allowed_networks(it)
    kafka, codec = build.kafka_settings(it), Codec()
    AuditPublisher(kafka, it.topics.audit, codec, "", BrokerClock()).open()
    WantedStateReader(kafka, it.topics.mitigation, codec).check_settings()
    directory = of.snapshot.absolute().parent
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigError(f"snapshot: {directory} is missing or cannot be written")
