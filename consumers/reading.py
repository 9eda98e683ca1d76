"""Read topics and the wanted state, for the commands for people; write nothing."""

from collections.abc import Iterator, Mapping
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
from fnm_bus.kafka.reader import TopicReader
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)


def read_events(settings: FullSettings) -> Iterator[Event]:
    """Yield all events of the host, hostgroup and status topics.

    Records that cannot be decoded are logged and left out.

    Raises:
        BrokerUnavailable, TopicRefused, ConfigError: the topics cannot be read.
    """
    names = build.topic_names(settings)
    topics = (names.host, names.hostgroup, names.status)
    codec = build.build_reading_codec(settings, REGISTRY_PAUSE)
    kafka = build.kafka_settings(settings)
    with TopicReader(kafka, topics, codec, from_beginning=True) as reader:
        while not reader.at_end:
            for record in reader.read(1.0):
                if isinstance(record.event, HostEvent | HostgroupEvent | StatusEvent):
                    yield record.event
                elif record.value:
                    position = f"{record.topic}[{record.partition}]@{record.offset}"
                    kind = type(record.event).__name__
                    fault = record.error or f"expected an event, got a {kind}"
                    log.warning("record_left_out", record=position, error=fault)
            reader.check()


def read_wanted_state(settings: FullSettings) -> StoredState:
    """Return the latest reasons and mitigations.

    Raises:
        BrokerUnavailable, TopicRefused, ConfigError: the topics cannot be read.
    """
    return read_state(build.kafka_settings(settings), build.topic_names(settings))


def moment_of(stored: StoredState) -> Moment:
    """Return the time by this machine's clock, or the latest record's if later."""
    now = datetime.now(UTC)
    return Moment(boottime(), max(now, stored.latest() or now))


def to_json(record: AnyRecord) -> Mapping[str, Any]:
    """Return a record as JSON values."""
    values: Mapping[str, Any] = msgspec.to_builtins(record)
    return values
