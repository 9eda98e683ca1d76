"""Asking: read the wanted state, and ask the mitigator to change it."""

import getpass
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

import msgspec

from consumers.settings import AllSettings
from fnm_bus import wiring
from fnm_bus.codec import Codec
from fnm_bus.errors import FnmBusError, PublishError
from fnm_bus.event import AnyRecord, Audit, Command, Mitigation
from fnm_bus.publish import BRIEF, KafkaPublisher
from fnm_bus.reader import Read, Reader
from fnm_bus.record import Record

_ANSWER: Final = 10.0
"""Seconds that the mitigator gets for an answer."""


class NoAnswer(FnmBusError):
    """No mitigator said anything; the command waits for one."""

    exit_code = 75
    retryable = True


def records(settings: AllSettings, topics: Sequence[str]) -> Iterator[Read]:
    """Yield all records of *topics* that are there.

    Raises:
        BrokerUnavailable, TopicRefused, ConfigError: they cannot be read.
    """
    codec = wiring.reading_codec(settings)
    kafka = wiring.kafka(settings)
    with Reader(kafka, topics, codec, from_beginning=True) as reader:
        while not reader.at_end:
            yield from reader.read(1.0)
            reader.check()


def wanted_state(
    settings: AllSettings,
) -> Iterator[tuple[str, Mitigation | None]]:
    """Yield key and mitigation of each record of the wanted state, None to forget.

    Raises:
        BrokerUnavailable, TopicRefused, ConfigError: it cannot be read.
    """
    for it in records(settings, [wiring.topics(settings).mitigation]):
        key = (it.key or b"").decode(errors="replace")
        if not it.value:
            yield key, None
        elif isinstance(it.event, Mitigation):
            yield key, it.event


def command(verb: str, by: str | None, why: str, **about: Any) -> Command:
    """Return a command of this user's.

    Args:
        verb: what is asked.
        by: who asks; else whoever is logged in.
        why: in that person's words.
        about: further fields.
    """
    return Command(
        command_id=str(uuid4()),
        verb=verb,
        by=by or os.environ.get("SUDO_USER") or getpass.getuser(),
        why=why,
        asked_at=datetime.now(UTC),
        **about,
    )


def ask(settings: AllSettings, it: Command) -> Audit:
    """Send a command and return the mitigator's answer.

    Raises:
        NoAnswer: none came; the command counts as soon as a mitigator is active.
        PublishError, ConfigError: the command could not be sent.
    """
    names, codec = wiring.topics(settings), Codec()
    kafka = wiring.kafka(settings)
    with Reader(kafka, [names.audit], wiring.reading_codec(settings)) as reader:
        while not reader.at_end:  # from now on nothing is missed
            for _found in reader.read(1.0):
                pass
            reader.check()
        key = None if it.key is None else it.key.encode()
        _send(kafka, Record(names.command, key, codec.encode(it, names.command)))
        end = time.monotonic() + _ANSWER
        while time.monotonic() < end:
            for found in reader.read(0.2):
                if _answers(found.event, it):
                    assert isinstance(found.event, Audit)  # noqa: S101 - _answers said so
                    return found.event
    raise NoAnswer(
        f"no mitigator answered within {_ANSWER:.0f} s."
        " The command is kept and counts when one is active"
        " (approve, add and resume only while they are fresh)."
    )


def as_json(record: AnyRecord) -> Mapping[str, Any]:
    """Return a record as JSON values."""
    found: Mapping[str, Any] = msgspec.to_builtins(record)
    return found


def _answers(event: AnyRecord | None, it: Command) -> bool:
    return isinstance(event, Audit) and event.event_id == it.command_id


def _send(kafka: Mapping[str, str], record: Record) -> None:
    publisher = KafkaPublisher(
        {"message.timeout.ms": f"{_ANSWER * 1000:.0f}", **kafka}, BRIEF
    )
    answers: list[PublishError | None] = []
    try:
        publisher.publish(record, answers.append)
        publisher.flush(_ANSWER + 1)
    finally:
        publisher.close()
    if not answers:
        raise PublishError(f"{record.topic}: no answer within {_ANSWER:.0f} s")
    if answers[0] is not None:
        raise answers[0]
