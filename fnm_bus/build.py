"""Everything put together from the settings; the only place that knows all of it."""

import os
from collections.abc import Mapping
from pathlib import Path
from time import monotonic

from fnm_bus.avro import schema_ids
from fnm_bus.avro.codec import Codec
from fnm_bus.avro.registry import PausingLookup, Registry
from fnm_bus.config.settings import Settings
from fnm_bus.errors import ConfigError, SchemaError, SpoolError
from fnm_bus.hook import python_hook
from fnm_bus.kafka.publisher import BRIEF, LASTING, KafkaPublisher, Publisher
from fnm_bus.kafka.route import Topics
from fnm_bus.kafka.topics import TopicSpec, wanted
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

HUNG: float = 30.0
"""Seconds without a turn of the relay's loop after which /healthz says so."""
REGISTRY_PAUSE: float = 10.0
"""Seconds for which a program that reads other records, too, leaves a registry alone
that did not answer."""

_LAST = 1.0
"""Seconds that records in flight get when a short drain ends by an error."""

_PROMPT: Mapping[str, str] = {"reconnect.backoff.max.ms": "1000"}
"""A broker that is back is found within a second; librdkafka's default is ten."""


def kafka(settings: Settings) -> dict[str, str]:
    """Return librdkafka's settings, secrets read from their files.

    Raises:
        ConfigError: a file with a secret cannot be read.
    """
    secrets = {}
    for name, path in settings.kafka_files.items():
        try:
            secrets[name] = Path(path).read_text("utf-8").strip()
        except OSError as exc:
            # The password itself may stand in the place of a file's name.
            place = path if path.is_absolute() else "not an absolute path"
            text = f'[kafka_files] "{name}": {place}: {exc.strerror}'
            raise ConfigError(text) from None
        except UnicodeDecodeError:  # the error would quote the secret
            raise ConfigError(f'[kafka_files] "{name}": {path}: not UTF-8') from None
    return {**_PROMPT, **settings.kafka, **secrets}


def topics(settings: Settings) -> Topics:
    """Return the names of the topics."""
    it = settings.topics
    return Topics(
        host=it.host,
        hostgroup=it.hostgroup,
        status=it.status,
        reason=it.reason,
        mitigation=it.mitigation,
        command=it.command,
        audit=it.audit,
        deadletter=it.deadletter,
    )


def topic_plan(settings: Settings) -> tuple[TopicSpec, ...]:
    """Return all topics as configured."""
    table = settings.topics
    return wanted(topics(settings), table.partitions, table.replication)


def registry(settings: Settings) -> Registry:
    """Return the schema registry.

    Raises:
        ConfigError: none is configured.
    """
    it = settings.registry
    if it.url is None:
        raise ConfigError("[registry] url: wanted an address, got nothing")
    return Registry(it.url, it.timeout, it.client)


def codec(settings: Settings) -> Codec:
    """Return the codec of a writer: pinned ids when a registry is configured.

    Raises:
        SchemaError: the pins are missing, or are not for this version's schemas.
    """
    if settings.registry.url is None:
        return Codec()
    pinned = schema_ids.read(settings.registry.schema_ids_file)
    pinned.check(topics(settings).of_events())
    return Codec(pinned)


def reading_codec(settings: Settings, pause: float = 0.0) -> Codec:
    """Return the codec of a reader, who looks up what is not pinned.

    Args:
        settings: the settings.
        pause: seconds for which a registry that did not answer is not asked again.

    Raises:
        SchemaError: there are pins, and they must not be used.
    """
    return Codec(
        _pins_if_any(settings),
        None
        if settings.registry.url is None
        else PausingLookup(registry(settings).schema_of, pause),
    )


def independent_codec(settings: Settings) -> Codec:
    """Return the codec of a program that must run whatever the registry's state is.

    It is for programs that end a block, and for what people ask of them: it never asks
    the registry, and pins that must not be used are a warning. Audit records have
    Confluent's framing where their id is pinned.
    """
    try:
        return Codec(_pins_if_any(settings))
    except SchemaError as exc:
        log.warning("schema_ids_unusable", framing="Avro single object", error=exc)
        return Codec()


def _pins_if_any(settings: Settings) -> schema_ids.SchemaIds | None:
    """Return the pins, or None where there is no such file.

    Raises:
        SchemaError: there may be pins, and they cannot or must not be used.
    """
    path = settings.registry.schema_ids_file
    try:
        exists = path.exists()
    except OSError:  # such as a directory of another user
        exists = True
    return schema_ids.read(path) if exists else None


def epochs(settings: Settings) -> BootEpochs:
    """Return the places of the boots."""
    return BootEpochs(
        settings.spool.directory / "state/epochs.json", python_hook.boot_id()
    )


def spools(settings: Settings, places: BootEpochs) -> tuple[Spool, ...]:
    """Return the spool, and the fallback spool if it is there or can be made.

    `/run` is empty after a boot, so the fallback spool may have to be made anew. A
    relay without it is better than none; the hook then says what it cannot do.
    """
    spool = Spool(settings.spool.directory, places)
    fallback = Spool(settings.spool.fallback, places)
    try:
        if not (fallback.root / "lock").exists():
            facts = spool.root.stat()
            fallback.make(facts.st_uid, facts.st_gid)
    except (OSError, SpoolError) as exc:
        log.warning("fallback_spool_unusable", spool=fallback.root, error=exc)
        return (spool,)
    return (spool, fallback)


def quarantine(settings: Settings) -> Quarantine:
    """Return the quarantine."""
    it = settings.spool
    return Quarantine(it.directory, it.quarantine_files, it.quarantine_bytes)


def pipeline(settings: Settings) -> Pipeline:
    """Return what every entry goes through, with all schemas read.

    Raises:
        SchemaError: as `codec`, or the installation is broken: see `Pipeline.check`.
    """
    made = Pipeline(settings.sensor, topics(settings), codec(settings))
    made.check()
    return made


def intake(settings: Settings, metrics: RelayMetrics) -> EntrySource:
    """Return what finds the entries and makes records of them.

    Raises:
        SchemaError: as `pipeline`.
    """
    places = epochs(settings)
    return EntrySource(
        spools(settings, places),
        quarantine(settings),
        places,
        pipeline(settings),
        metrics,
    )


def _drain(entries: EntrySource, publisher: Publisher, settings: Settings) -> Drain:
    it = settings.relay
    return Drain(
        entries, publisher, InFlightLimits(it.in_flight_records, it.in_flight_bytes)
    )


def relay(settings: Settings, metrics: RelayMetrics) -> Relay:
    """Return the relay.

    Raises:
        ConfigError: a secret cannot be read.
        SchemaError: as `pipeline`.
    """
    entries = intake(settings, metrics)
    publisher = KafkaPublisher(kafka(settings), LASTING)
    drain = _drain(entries, publisher, settings)
    it = settings.spool
    limits = Limits(
        it.soft_limit_files,
        it.soft_limit_bytes,
        it.hard_limit_files,
        it.hard_limit_bytes,
        it.status_reserve,
    )
    buckets = [path for spool in entries.spools for path in spool.buckets()]
    return Relay(
        spool=entries.spools[0],
        drain=drain,
        keeper=Housekeeping(entries.spools, entries.quarantine, drain, limits, metrics),
        publisher=publisher,
        watch=Watch(buckets),
        systemd=Systemd(),
        flush=settings.relay.shutdown_timeout,
    )


def health(settings: Settings, it: Relay, metrics: RelayMetrics) -> HttpServer:
    """Return the server of /metrics and /healthz."""
    address = settings.relay.metrics_host, settings.relay.metrics_port
    return HttpServer(*address, metrics.registry(), lambda: relay_state(it))


def relay_state(it: Relay) -> tuple[bool, Mapping[str, object]]:
    """Return whether a relay is healthy, and what /healthz shows of it."""
    silent = monotonic() - it.turned_at
    # An entry on trial is being read, by another process.
    refused = 0 if it.drain.on_trial else it.drain.disk_refused
    problem = it.publisher.problem or it.drain.refusals
    facts = {
        "draining": it.draining,
        "in_flight": it.drain.in_flight,
        "problem": problem,
        "seconds_since_turn": round(silent, 3),
        "disk_errors": dict(it.drain.disk.current),
        "disk_refused": refused,
    }
    healthy = not (it.drain.disk.current or problem or refused)
    return silent < HUNG and healthy, facts


def drain_once(
    settings: Settings, deadline: float
) -> tuple[DrainOutcome, Mapping[str, Mapping[str, str]]]:
    """Drain for up to *deadline* seconds, if nobody else does.

    Returns:
        How it ended, and the documents that were refused, by name, with the reason.

    Raises:
        ConfigError: a secret cannot be read, or librdkafka refuses its settings.
        SchemaError: as `pipeline`.
        SpoolError: the spool is not this user's.
    """
    root = settings.spool.directory
    backoff = Backoff(root)
    if backoff.pausing():
        return DrainOutcome.PAUSED, {}
    entries = intake(settings, RelayMetrics())
    publisher = KafkaPublisher(kafka(settings), BRIEF)
    drain = _drain(entries, publisher, settings)
    try:
        ended = drain_within(deadline, entries.spools[0], backoff, drain)
    except BaseException:
        # What was handed over leaves the disk when Kafka has it, however this ends.
        publisher.flush(_LAST)
        raise
    finally:
        publisher.close()
        drain.close()
    return ended, drain.refused


def pause(settings: Settings) -> float:
    """Return the seconds for which short drains are not tried; 0.0 for none."""
    return Backoff(settings.spool.directory).pausing()


def may_drain(settings: Settings) -> bool:
    """Return whether this process is the spool's owner, or root, who becomes it."""
    try:
        owner = (settings.spool.directory / "lock").stat().st_uid
    except OSError:
        return False
    return os.geteuid() in {0, owner}
