"""Command client: send a command to the mitigator, and wait for its answer."""

import getpass
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from consumers.errors import MitigatorTimeout
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import ConfigError, PublishError
from fnm_bus.event import Audit, Command
from fnm_bus.kafka.publisher import BRIEF, KafkaPublisher
from fnm_bus.kafka.reader import ConsumedRecord, TopicReader
from fnm_bus.kafka.record import Record
from fnm_bus.kafka.route import Topics, headers_for

_TIMEOUT: Final = 10.0
"""Seconds that the mitigator gets for an answer."""
_PROGRAM: Final = "mitigations"


def new_command(verb: str, by: str | None, comment: str, **about: Any) -> Command:
    """Return a command of this user's.

    Args:
        verb: approve, reject, withdraw, add, pause or resume.
        by: who asks; else the user who is logged in.
        comment: the reason in that person's words.
        about: further fields of the command.
    """
    return Command(
        command_id=str(uuid4()),
        verb=verb,
        by=by or os.environ.get("SUDO_USER") or _user(),
        comment=comment,
        requested_at=datetime.now(UTC),
        **about,
    )


def _user() -> str:
    """Return who is logged in; in a container, a user may have no name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return f"uid {os.getuid()}"


def send_command(
    settings: Mapping[str, str], topics: Topics, codec: Codec, command: Command
) -> Audit:
    """Send a command and return the mitigator's answer.

    Args:
        settings: librdkafka's settings.
        topics: names of the topics.
        codec: reads audit records.
        command: what is asked.

    Raises:
        MitigatorTimeout: no answer; the command counts once a mitigator is active.
        PublishError, ConfigError: the command could not be sent.
    """
    record = _record(topics, command)
    with TopicReader(settings, [topics.audit], codec) as reader:
        end = time.monotonic() + _TIMEOUT
        # From the end on no answer is missed. A partition that cannot be read must not
        # keep a command from being sent: it may not be the one with the answer.
        while not reader.at_end and time.monotonic() < end:
            for _read in reader.read(1.0):
                pass
            reader.check()
        _publish(settings, record)
        end = time.monotonic() + _TIMEOUT
        while time.monotonic() < end:
            for received in reader.read(0.2):
                if isinstance(received.event, Audit) and _answers(received, command):
                    return received.event
    raise MitigatorTimeout(
        f"no mitigator answered within {_TIMEOUT:.0f} s. The command is stored and"
        " counts once one is active (approve, add and resume only for a few minutes)."
    )


def _answers(read: ConsumedRecord, command: Command) -> bool:
    return isinstance(read.event, Audit) and read.event.event_id == command.command_id


def _record(topics: Topics, command: Command) -> Record:
    for field in ("key", "by", "comment"):
        try:
            (getattr(command, field) or "").encode()
        except UnicodeEncodeError as exc:  # bytes of the command line that are no text
            raise ConfigError(f"{field}: expected UTF-8") from exc
    key = None if command.key is None else command.key.encode()
    headers = headers_for(command, _PROGRAM, command.command_id, command.requested_at)
    return Record(topics.command, key, Codec().encode(command, topics.command), headers)


def _publish(settings: Mapping[str, str], record: Record) -> None:
    publisher = KafkaPublisher(
        {"message.timeout.ms": f"{_TIMEOUT * 1000:.0f}", **settings}, BRIEF
    )
    answers: list[PublishError | None] = []
    try:
        publisher.publish(record, answers.append)
        publisher.flush(_TIMEOUT + 1)
    finally:
        publisher.close()
    if not answers:
        raise PublishError(f"{record.topic}: no answer within {_TIMEOUT:.0f} s")
    if answers[0] is not None:
        raise answers[0]
