"""Build an enforcer from the settings."""

import os
from ipaddress import ip_network

from consumers.enforcers.audit_publisher import AuditPublisher
from consumers.enforcers.backend import Backend
from consumers.enforcers.enforcer import Enforcer
from consumers.enforcers.wanted_reader import TopicFollower
from consumers.metrics import EnforcerMetrics
from consumers.mitigation.clock import BrokerClock
from consumers.mitigation.measure import Network
from consumers.settings import EnforcerSettings, FullSettings
from fnm_bus import build
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import ConfigError
from fnm_bus.kafka.client import ConnectionState, build_reader
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)


def build_enforcer(
    settings: FullSettings,
    own: EnforcerSettings,
    backend: Backend,
    metrics: EnforcerMetrics,
) -> Enforcer:
    """Return an enforcer for *backend*.

    Raises:
        ConfigError: a secret cannot be read, or `own_networks` is missing.
    """
    kafka, names = build.kafka_settings(settings), build.topic_names(settings)
    # The end of a block must not depend on a registry.
    codec = Codec()
    audit_codec = build.build_independent_codec(settings)
    broker_clock = BrokerClock()
    return Enforcer(
        backend=backend,
        wanted_reader=TopicFollower(
            kafka, names.mitigation, codec, from_beginning=True
        ),
        # An enforcer stores no offsets, so it obeys only new commands.
        command_reader=TopicFollower(kafka, names.command, codec, from_beginning=False),
        audit=AuditPublisher(
            kafka, names.audit, audit_codec, backend.name, broker_clock
        ),
        broker_clock=broker_clock,
        path=own.snapshot,
        interval=own.reconcile_interval,
        max_clock_skew=own.max_clock_skew,
        own_networks=allowed_networks(settings),
        dry_run=settings.dry_run,
        metrics=metrics,
    )


def allowed_networks(settings: FullSettings) -> tuple[Network, ...] | None:
    """Return the networks in which enforcers allow measures; None: all, in a dry run.

    Raises:
        ConfigError: no network is configured and this is not a dry run.
    """
    texts = settings.consumers.enforcer.own_networks
    if texts:
        return tuple(map(ip_network, texts))
    if not settings.dry_run:
        raise ConfigError(
            "consumers.enforcer.own_networks is empty; list your own networks, or set"
            " dry_run = true"
        )
    log.warning(
        "no_own_networks",
        setting="consumers.enforcer.own_networks",
        remedy="list your own networks before you set dry_run = false",
    )
    return None


def check_enforcer(settings: FullSettings, own: EnforcerSettings) -> None:
    """Make sure that an enforcer with these settings can start.

    Raises:
        ConfigError: librdkafka refuses `[kafka]`, a secret cannot be read, the snapshot
            cannot be written, or `own_networks` is missing.
    """
    allowed_networks(settings)
    kafka = build.kafka_settings(settings)
    AuditPublisher(kafka, settings.topics.audit, Codec(), "", BrokerClock()).open()
    build_reader(kafka, ConnectionState(kafka)).close()
    directory = own.snapshot.absolute().parent
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigError(
            f"snapshot: the directory {directory} is missing or not writable"
        )
