"""Jsonlines: decoded events as lines of JSON, for a SIEM.

An offset is committed when its line is on disk. A line that was written and not
committed is written again after a crash: topic, partition and offset name it.
"""

from collections.abc import Sequence
from typing import Any

from consumers import serving
from consumers.lines import Lines
from consumers.settings import FullSettings
from fnm_bus import build as bus
from fnm_bus.consume.loop import ConsumerLoop
from fnm_bus.consume.metrics import ConsumeMetrics
from fnm_bus.event.json_value import bytes_as_text, event_as_json
from fnm_bus.kafka.publisher import LASTING, KafkaPublisher
from fnm_bus.kafka.reader import ConsumedRecord
from fnm_bus.ops.terminal import json_line


def line_of(read: ConsumedRecord) -> bytes:
    """Return a record as one line of JSON; a tombstone's event is null."""
    found: dict[str, Any] = {
        "topic": read.topic,
        "partition": read.partition,
        "offset": read.offset,
        "timestamp": read.at.isoformat(),
        "key": bytes_as_text(read.key),
        "event": None if read.event is None else event_as_json(read.event),
    }
    return json_line(found).encode() + b"\n"


def topics(settings: FullSettings) -> Sequence[str]:
    """Return the names of the topics to read."""
    names = bus.topics(settings)
    chosen = settings.consumers.jsonlines.topics
    return chosen or (names.host, names.hostgroup, names.status, names.audit)


def main(settings: FullSettings) -> None:
    """Write lines until a signal comes.

    Raises:
        ConfigError: the file, or Kafka's settings, cannot be used.
        TopicRefused: a topic does not exist, or must not be read.
        GiveUp: nobody reads stdout any more.
    """
    of = settings.consumers.jsonlines
    lines = Lines(of.path, fsync=of.fsync)
    lines.open()
    kafka = bus.kafka(settings)
    publisher = KafkaPublisher(kafka, LASTING)
    metrics = ConsumeMetrics()
    loop = ConsumerLoop(
        kafka,
        of.group,
        topics(settings),
        bus.reading_codec(settings),
        lambda read: lines.add(line_of(read)),
        deadletter_topic=bus.topics(settings).deadletter,
        publisher=publisher,
        metrics=metrics,
        attempts=settings.consumers.max_attempts,
        settle=lines.settle,
        tombstones=True,
    )
    # Lines are no action that a dry run would have to hold back.
    known = settings.model_copy(update={"dry_run": False})
    try:
        serving.serve(known, loop, metrics.registry(), loop.facts, loop.healthy)
    finally:
        lines.close()
        publisher.close()
