"""The relay: documents a second, memory, first record, idle latency."""

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import calls
import msgspec
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from environment import DOCUMENTS, Environment, peak_memory
from fastavro import schemaless_writer
from report import Row

from fnm_bus.avro import schema
from fnm_bus.avro.codec import Codec
from fnm_bus.avro.union_hints import union_hinter
from fnm_bus.hook import python_hook
from fnm_bus.kafka.addressing import Topics
from fnm_bus.relay.pipeline import Pipeline
from fnm_bus.spool.entry import Entry

_GOALS = {"19 KB": 2_500, "1.5 KB": 8_000}
_WITHIN = 300.0


def rates(environment: Environment, bootstrap: str, *, quick: bool) -> list[Row]:
    """Measure the relay against its two libraries alone, on the same documents."""
    rows = []
    for size, document in DOCUMENTS.items():
        count = (1_000 if quick else 10_000) * (1 if size == "19 KB" else 2)
        environment.fill(document, count)
        with environment.relay() as relay:
            began, before = time.perf_counter(), _cpu(relay.pid)
            _until_empty(environment)
            took, cpu = time.perf_counter() - began, _cpu(relay.pid) - before
        rate, per_core = count / took, count / cpu
        encoding, producing = _avro_alone(document), _produce_alone(document, bootstrap)
        goal = _GOALS[size]
        subject = f"relay, {size}"
        rows += [
            Row(
                subject,
                "whole line: disk, JSON, checks, Avro, Kafka, disk",
                f"{rate:,.0f}/s; {per_core:,.0f} for each second of CPU",
                "1.00",
                f">= {goal:,}/s",
                (rate if size == "19 KB" else per_core) >= goal,
            ),
            Row(
                subject,
                "fastavro alone",
                f"{encoding:,.0f}/s",
                f"{encoding / rate:.1f}",
            ),
            Row(
                subject,
                "librdkafka alone",
                f"{producing:,.0f}/s",
                f"{producing / rate:.1f}",
            ),
        ]
    return rows


def waiting(environment: Environment, bootstrap: str, *, quick: bool) -> list[Row]:
    """Measure a relay that starts with 100,000 files waiting."""
    count = 5_000 if quick else 100_000
    crowded = calls.crowded(
        environment, lambda: environment.fill(DOCUMENTS["1.5 KB"], count), count
    )
    with _at_the_end(bootstrap) as consumer:
        began = time.perf_counter()
        with environment.relay() as relay:
            started = time.perf_counter()
            while consumer.poll(1) is None:
                continue
            first = time.perf_counter() - began
            _until_empty(environment)
            took, memory = time.perf_counter() - started, peak_memory(relay.pid)
    name = f"{count:,} files waiting"
    return [
        *crowded,
        Row(name, "start of the process to the lock", f"{started - began:.2f} s"),
        Row(
            name,
            "start of the process to the first record in a reader's hands",
            f"{first:.2f} s",
            goal="<= 1 s",
            met=first <= 1,
        ),
        Row(name, "until all are on Kafka", f"{took:.1f} s"),
        Row(
            name,
            "peak memory",
            f"{memory:.0f} MB",
            goal="<= 100 MB",
            met=memory <= 100,  # noqa: PLR2004 - the goal beside it
        ),
    ]


def latency(environment: Environment, bootstrap: str, *, quick: bool) -> list[Row]:
    """Measure from the rename of a file to its record in a reader's hands."""
    times = []
    with _at_the_end(bootstrap) as consumer, environment.relay():
        for number in range(20 if quick else 200):
            name = python_hook.new_entry_name()[:-8] + f"{number:08x}"
            python_hook.store_entry(
                str(environment.spool.root),
                name,
                python_hook.encode_entry((), DOCUMENTS["1.5 KB"]),
            )
            stored = time.perf_counter()
            while consumer.poll(5) is None:
                continue
            times.append(time.perf_counter() - stored)
    # The first few find caches and connections cold.
    ordered = sorted(times[5:])
    p50, p99 = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
    return [
        Row(
            "idle relay",
            "rename to a reader's hands",
            f"p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms",
            goal="p50 <= 5 ms",
            met=p50 <= 0.005,  # noqa: PLR2004 - the goal beside it
        )
    ]


@contextmanager
def _at_the_end(bootstrap: str) -> Iterator[Consumer]:
    """Read the host topic from where it ends now."""
    topic = Topics().host
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": uuid4().hex})
    parts = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([_end(consumer, topic, number) for number in parts])
    try:
        yield consumer
    finally:
        consumer.close()


def _end(consumer: Consumer, topic: str, number: int) -> TopicPartition:
    """Return where a partition ends; a topic that was just made has no leader yet."""
    part, until = TopicPartition(topic, number), time.monotonic() + 30
    while True:
        try:
            part.offset = consumer.get_watermark_offsets(part, timeout=10)[1]
        except KafkaException:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            return part


def _avro_alone(document: bytes) -> float:
    event = _prepared(document).event
    full_name = f"fastnetmon.{type(event).__name__}"
    avro: Any = schema.load()[full_name]
    datum = union_hinter(full_name)(
        msgspec.to_builtins(event, builtin_types=(bytes, datetime))
    )
    began, count = time.perf_counter(), 5_000
    for _ in range(count):
        schemaless_writer(BytesIO(), avro, datum)
    return count / (time.perf_counter() - began)


def _produce_alone(document: bytes, bootstrap: str) -> float:
    record = _prepared(document).record
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "queue.buffering.max.messages": 200_000,
        }
    )
    producer.produce("bench.producer", b"warm")
    producer.flush(30)
    began, count = time.perf_counter(), 20_000
    for _ in range(count):
        producer.produce("bench.producer", record.value, record.key)
        producer.poll(0)
    producer.flush(60)
    return count / (time.perf_counter() - began)


def _prepared(document: bytes) -> Any:
    entry = Entry("bench", (), document, datetime.now(UTC), len(document), "")
    return Pipeline("bench", Topics(), Codec()).prepare(entry, 1)


def _left(environment: Environment) -> int:
    return sum(
        sum(1 for _ in bucket.iterdir()) for bucket in environment.spool.buckets()
    )


def _until_empty(environment: Environment) -> None:
    end = time.monotonic() + _WITHIN
    while _left(environment):
        if time.monotonic() > end:
            raise TimeoutError(f"{_left(environment)} files left after {_WITHIN:.0f} s")
        time.sleep(0.1)  # a look at 20,000 names costs a core some time


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
