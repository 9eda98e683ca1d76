"""Build the objects of fnm-bus from its settings."""

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from time import monotonic

from fnm_bus.avro import schema_ids
from fnm_bus.avro.codec import Codec
from fnm_bus.avro.registry import Registry
from fnm_bus.avro.schema_lookup import PausingLookup
from fnm_bus.config.settings import Settings
from fnm_bus.errors import ConfigError, SchemaError, SpoolError
from fnm_bus.hook import python_hook
from fnm_bus.kafka.addressing import Topics
from fnm_bus.kafka.publisher import (
    ONE_SHOT_PRODUCER,
    SERVICE_PRODUCER,
    KafkaPublisher,
    Publisher,
)
from fnm_bus.kafka.topics import TopicSpec, planned_topics
from fnm_bus.ops.http_server import HttpServer
from fnm_bus.ops.log import get_logger
from fnm_bus.ops.systemd import Systemd
from fnm_bus.relay.drain import Drain, InFlightLimits
from fnm_bus.relay.housekeeping import Housekeeping
from fnm_bus.relay.metrics import RelayMetrics
from fnm_bus.relay.one_shot import DrainOutcome, drain_within
from fnm_bus.relay.pipeline import Pipeline
from fnm_bus.relay.service import Relay
from fnm_bus.relay.source import EntrySource
from fnm_bus.spool.drain_backoff import Backoff
from fnm_bus.spool.limits import Limits
from fnm_bus.spool.quarantine import Quarantine
from fnm_bus.spool.sequence import BootEpochs
from fnm_bus.spool.spool import Spool
from fnm_bus.spool.watch import Watch

log = get_logger(__name__)

LOOP_TIMEOUT: float = 30.0
"""Seconds without a run of the relay's loop after which /healthz is unhealthy."""
REGISTRY_PAUSE: float = 10.0
"""Seconds without a request after a failed one, for programs that can continue with
records whose schema ids are pinned."""

_ABORT_FLUSH = 1.0
"""Seconds for records in flight after an error in a short drain."""

_RECONNECT: Mapping[str, str] = {"reconnect.backoff.max.ms": "1000"}
"""Reconnect within a second after a broker has restarted; librdkafka's default is ten
seconds."""


def kafka_settings(settings: Settings) -> dict[str, str]:
    """Return librdkafka's settings, including the secrets from `kafka_files`.

    Raises:
        ConfigError: a file with a secret cannot be read.
    """
    secrets = {}
    for name, path in settings.kafka_files.items():
        try:
            secrets[name] = Path(path).read_text("utf-8").strip()
        except OSError as exc:
            # A user may have written the password instead of the file's name.
            shown_path = path if path.is_absolute() else "not an absolute path"
            text = f'[kafka_files] "{name}": {shown_path}: {exc.strerror}'
            raise ConfigError(text) from None
        except UnicodeDecodeError:  # the error would quote the secret
            raise ConfigError(f'[kafka_files] "{name}": {path}: not UTF-8') from None
    return {**_RECONNECT, **settings.kafka, **secrets}


def topic_names(settings: Settings) -> Topics:
    """Return the names of the topics."""
    return Topics(
        **{field.name: getattr(settings.topics, field.name) for field in fields(Topics)}
    )


def topic_plan(settings: Settings) -> tuple[TopicSpec, ...]:
    """Return all topics as configured."""
    table = settings.topics
    return planned_topics(topic_names(settings), table.partitions, table.replication)


def build_registry(settings: Settings) -> Registry:
    """Return the schema registry.

    Raises:
        ConfigError: `[registry] url` is not set.
    """
    table = settings.registry
    if table.url is None:
        raise ConfigError("[registry] url: wanted an address, got nothing")
    return Registry(table.url, table.timeout, table.client)


def build_codec(settings: Settings) -> Codec:
    """Return a writer's codec: with pinned schema ids if a registry is configured.

    Raises:
        SchemaError: the file of schema ids is missing, or is for other schemas.
    """
    if settings.registry.url is None:
        return Codec()
    pinned = schema_ids.read(settings.registry.schema_ids_file)
    pinned.check(topic_names(settings).of_events())
    return Codec(pinned)


def build_reading_codec(settings: Settings, pause: float = 0.0) -> Codec:
    """Return a reader's codec, which requests unknown schemas from the registry.

    Args:
        settings: the settings.
        pause: seconds without a request after a failed one.

    Raises:
        SchemaError: the file of schema ids exists and is unusable.
    """
    return Codec(
        _pinned_ids(settings),
        None
        if settings.registry.url is None
        else PausingLookup(build_registry(settings).schema_of, pause),
    )


def build_independent_codec(settings: Settings) -> Codec:
    """Return a codec that works in any state of the registry.

    It is for programs that end a block, and for operators' commands. It sends no
    request to the registry, and an unusable file of schema ids is only a warning. Audit
    records have Confluent's framing if their id is pinned.
    """
    try:
        return Codec(_pinned_ids(settings))
    except SchemaError as exc:
        log.warning("schema_ids_unusable", framing="Avro single object", error=exc)
        return Codec()


def _pinned_ids(settings: Settings) -> schema_ids.SchemaIds | None:
    """Return the pinned schema ids, or None if the file does not exist.

    Raises:
        SchemaError: the file may exist, and is unreadable or unusable.
    """
    path = settings.registry.schema_ids_file
    try:
        exists = path.exists()
    except OSError:  # such as a directory of another user
        exists = True
    return schema_ids.read(path) if exists else None


def build_boot_epochs(settings: Settings) -> BootEpochs:
    """Return the order of this machine's boots."""
    return BootEpochs(
        settings.spool.directory / "state/epochs.json", python_hook.boot_id()
    )


def build_spools(settings: Settings, epochs: BootEpochs) -> tuple[Spool, ...]:
    """Return the spool, and the fallback spool if it exists or can be created.

    `/run` is empty after a boot, so the fallback spool may have to be created again.
    The relay starts without it; the hook then reports that it cannot use it.
    """
    spool = Spool(settings.spool.directory, epochs)
    fallback = Spool(settings.spool.fallback, epochs)
    try:
        if not (fallback.root / "lock").exists():
            stat = spool.root.stat()
            fallback.make(stat.st_uid, stat.st_gid)
    except (OSError, SpoolError) as exc:
        log.warning("fallback_spool_unusable", spool=fallback.root, error=exc)
        return (spool,)
    return (spool, fallback)


def build_quarantine(settings: Settings) -> Quarantine:
    """Return the quarantine."""
    table = settings.spool
    return Quarantine(table.directory, table.quarantine_files, table.quarantine_bytes)


def _build_source(settings: Settings, metrics: RelayMetrics) -> EntrySource:
    """Return the source that lists entries and makes records of them.

    Raises:
        SchemaError: as `build_codec`, or the installation is broken: see
            `Pipeline.check`.
    """
    epochs = build_boot_epochs(settings)
    pipeline = Pipeline(settings.sensor, topic_names(settings), build_codec(settings))
    pipeline.check()
    return EntrySource(
        build_spools(settings, epochs),
        build_quarantine(settings),
        epochs,
        pipeline,
        metrics,
    )


def _build_drain(
    source: EntrySource, publisher: Publisher, settings: Settings
) -> Drain:
    table = settings.relay
    limits = InFlightLimits(table.in_flight_records, table.in_flight_bytes)
    return Drain(source, publisher, limits)


def build_relay(settings: Settings, metrics: RelayMetrics) -> Relay:
    """Return the relay.

    Raises:
        ConfigError: a secret cannot be read.
        SchemaError: the schema ids are missing, or the installation is broken.
    """
    source = _build_source(settings, metrics)
    publisher = KafkaPublisher(kafka_settings(settings), SERVICE_PRODUCER)
    drain = _build_drain(source, publisher, settings)
    table = settings.spool
    limits = Limits(
        table.soft_limit_files,
        table.soft_limit_bytes,
        table.hard_limit_files,
        table.hard_limit_bytes,
        table.status_reserve,
    )
    return Relay(
        spool=source.spools[0],
        drain=drain,
        housekeeping=Housekeeping(
            source.spools, source.quarantine, drain, limits, metrics
        ),
        publisher=publisher,
        watch=Watch([path for spool in source.spools for path in spool.buckets()]),
        systemd=Systemd(),
        shutdown_timeout=settings.relay.shutdown_timeout,
    )


def build_http_server(
    settings: Settings, relay: Relay, metrics: RelayMetrics
) -> HttpServer:
    """Return the server of /metrics and /healthz."""
    address = settings.relay.metrics_host, settings.relay.metrics_port
    return HttpServer(*address, metrics.registry(), lambda: relay_health(relay))


def relay_health(relay: Relay) -> tuple[bool, Mapping[str, object]]:
    """Return whether a relay is healthy, and its values for /healthz."""
    silent = monotonic() - relay.iterated_at
    # A suspect entry is still being read, by a child process.
    io_blocked = 0 if relay.drain.is_reading_suspect else relay.drain.io_blocked
    problem = relay.publisher.problem or relay.drain.topic_refusals
    facts = {
        "draining": relay.draining,
        "in_flight": relay.drain.in_flight,
        "problem": problem,
        "seconds_since_iteration": round(silent, 3),
        "disk_errors": dict(relay.drain.disk_errors.current),
        "io_blocked_entries": io_blocked,
    }
    healthy = not (relay.drain.disk_errors.current or problem or io_blocked)
    return silent < LOOP_TIMEOUT and healthy, facts


def drain_once(
    settings: Settings, deadline: float
) -> tuple[DrainOutcome, Mapping[str, Mapping[str, str]]]:
    """Drain for up to *deadline* seconds, unless another process drains.

    Returns:
        The outcome, and name → reason of each invalid or refused document.

    Raises:
        ConfigError: a secret cannot be read, or librdkafka refuses its settings.
        SchemaError: the schema ids are missing, or the installation is broken.
        SpoolError: the spool belongs to another user.
    """
    backoff = Backoff(settings.spool.directory)
    if backoff.seconds_left():
        return DrainOutcome.PAUSED, {}
    source = _build_source(settings, RelayMetrics())
    publisher = KafkaPublisher(kafka_settings(settings), ONE_SHOT_PRODUCER)
    drain = _build_drain(source, publisher, settings)
    try:
        outcome = drain_within(deadline, source.spools[0], backoff, drain)
    except BaseException:
        # Records in flight are removed from disk if Kafka still acknowledges them.
        publisher.flush(_ABORT_FLUSH)
        raise
    finally:
        publisher.close()
        drain.close()
    return outcome, drain.quarantined


def may_drain(settings: Settings) -> bool:
    """Return whether this process runs as the spool's owner, or as root."""
    try:
        owner = (settings.spool.directory / "lock").stat().st_uid
    except OSError:
        return False
    return os.geteuid() in {0, owner}
