"""Of two records of one key in two partitions, the later one counts."""

import pytest
from confluent_kafka import Producer

from consumers.mitigation.latest_record import Origin, partition_of, supersedes
from fnm_bus.kafka.embedded_broker import EmbeddedBroker

KNOWN = Origin(0, 5.0, 3)


@pytest.mark.parametrize(
    ("new", "counts"),
    [
        (Origin(0, 4.0, 1), True),  # one partition: the order counts
        (Origin(1, 6.0, 1), True),
        (Origin(1, 4.0, 9), False),
        (Origin(1, 5.0, 4), True),
        (Origin(1, 5.0, 2), False),
    ],
)
def test_the_later_record_counts_then_the_higher_revision(
    new: Origin, *, counts: bool
) -> None:
    assert supersedes(new, KNOWN, is_tombstone=False) == counts


def test_a_tombstone_of_another_partition_does_not_count() -> None:
    assert not supersedes(Origin(1, 9.0), KNOWN, is_tombstone=True)
    assert supersedes(Origin(0, 1.0), KNOWN, is_tombstone=True)


def test_any_record_replaces_an_unknown_one() -> None:
    assert supersedes(Origin(1, 0.0), None, is_tombstone=False)


def test_a_key_has_librdkafkas_default_partition() -> None:
    keys = [f"blackhole|203.0.113.{number}/32".encode() for number in range(20)]
    partitions: dict[bytes, int] = {}
    with EmbeddedBroker() as broker:
        broker.make("t")
        producer = Producer({"bootstrap.servers": broker.bootstrap})
        count = len(producer.list_topics("t", timeout=10).topics["t"].partitions)
        for key in keys:
            producer.produce(
                "t",
                key=key,
                value=b"",
                on_delivery=lambda _error, message: partitions.update(
                    {message.key(): message.partition()}
                ),
            )
        assert producer.flush(10) == 0
    assert partitions == {key: partition_of(key, count) for key in keys}
