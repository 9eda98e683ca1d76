"""The dead letter of a record that nobody can deal with."""

import hashlib
from datetime import UTC, datetime
from typing import Final

from confluent_kafka import Message

from fnm_bus import __version__
from fnm_bus.event import DeadLetter

HEAD: Final = 4096
"""Bytes of the value that a dead letter shows; the record itself stays on its topic."""


def letter_of(message: Message, why: str, attempts: int, program: str) -> DeadLetter:
    """Return the dead letter of *message*: where it stands, and why nobody can use it.

    Args:
        message: the record.
        why: for people.
        attempts: how often it was tried.
        program: who gave up.
    """
    value = message.value() or b""
    return DeadLetter(
        reason=why,
        head=value[:HEAD],
        size=len(value),
        digest=f"sha256:{hashlib.sha256(value).hexdigest()}",
        failed_at=datetime.now(UTC),
        attempts=attempts,
        origin_topic=message.topic(),
        origin_partition=message.partition(),
        origin_offset=message.offset(),
        producer_name=program,
        producer_version=__version__,
    )
