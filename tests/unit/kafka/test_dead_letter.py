"""The dead letter of a record."""

import hashlib
from datetime import UTC, datetime

from fnm_bus.avro.codec import Codec
from fnm_bus.kafka.dead_letter import build_dead_letter
from fnm_bus.kafka.reader import ConsumedRecord


def test_a_dead_letter_names_the_record_and_the_program() -> None:
    at = datetime(2026, 5, 1, tzinfo=UTC)
    read = ConsumedRecord("t", 3, 7, at, b"k", (), b"x" * 5000, None, "")
    letter = build_dead_letter(read, "why \ud800" + "y" * 2000, 5, "my-group")
    assert (letter.origin_topic, letter.origin_partition, letter.origin_offset) == (
        "t",
        3,
        7,
    )
    assert (letter.attempts, letter.producer_name) == (5, "my-group")
    assert (len(letter.head), letter.size) == (4096, 5000)
    assert letter.digest == f"sha256:{hashlib.sha256(b'x' * 5000).hexdigest()}"
    assert len(letter.reason) == 1000
    assert Codec().decode(Codec().encode(letter, "dead")) == letter
