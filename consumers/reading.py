"""Reading: what commands for people look at; nothing is written."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from consumers.mitigation.clock import now as boottime
from consumers.mitigator.context import Moment
from consumers.mitigator.kafka.stored_state import StoredState, read_state
from consumers.settings import FullSettings
from fnm_bus import build
from fnm_bus.build import REGISTRY_PAUSE
from fnm_bus.event import AnyRecord, Event, HostEvent, HostgroupEvent, StatusEvent
from fnm_bus.kafka.reader import ConsumedRecord, TopicReader

log = logging.getLogger(__name__)


def read_records(
    settings: FullSettings, topics: Sequence[str]
) -> Iterator[ConsumedRecord]:
    """Yield all records of *topics*.

    Raises:
        BrokerUnavailable, TopicRefused, ConfigError: they cannot be read.
    """
    codec = build.reading_codec(settings, REGISTRY_PAUSE)
    kafka = build.kafka(settings)
    with TopicReader(kafka, topics, codec, from_beginning=True) as reader:
        while not reader.at_end:
            yield from reader.read(1.0)
            reader.check()


def read_events(settings: FullSettings) -> Iterator[Event]:
    """Yield all events of the host, hostgroup and status topics.

    What cannot be decoded is logged and left out.

    Raises:
        BrokerUnavailable, TopicRefused, ConfigError: they cannot be read.
    """
    names = build.topics(settings)
    for read in read_records(settings, [names.host, names.hostgroup, names.status]):
        if isinstance(read.event, HostEvent | HostgroupEvent | StatusEvent):
            yield read.event
        elif read.value:
            place = f"{read.topic}[{read.partition}]@{read.offset}"
            fault = read.error or f"a {type(read.event).__name__}, expected an event"
            log.warning("left out: %s: %s", place, fault)


def read_wanted_state(settings: FullSettings) -> StoredState:
    """Return the latest reasons and mitigations.

    Raises:
        BrokerUnavailable, TopicRefused, ConfigError: they cannot be read.
    """
    return read_state(build.kafka(settings), build.topics(settings))


def moment_of(stored: StoredState) -> Moment:
    """Return now by this machine's clock, and at least the latest record's time."""
    now = datetime.now(UTC)
    return Moment(boottime(), max(now, stored.latest() or now))


def to_json(record: AnyRecord) -> Mapping[str, Any]:
    """Return a record as JSON values."""
    values: Mapping[str, Any] = msgspec.to_builtins(record)
    return values
