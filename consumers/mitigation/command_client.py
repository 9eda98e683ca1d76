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
from fnm_bus.kafka.addressing import Topics, headers_for
from fnm_bus.kafka.publisher import ONE_SHOT_PRODUCER, KafkaPublisher
from fnm_bus.kafka.reader import TopicReader
from fnm_bus.kafka.record import Record

_TIMEOUT: Final = 10.0
"""Seconds until a command without an answer fails."""
_PROGRAM: Final = "mitigations"


def new_command(verb: str, by: str | None, comment: str, **fields: Any) -> Command:
    """Return a command of this user.

    Args:
        verb: approve, reject, withdraw, add, pause or resume.
        by: the sender; None for the user who is logged in.
        comment: the sender's reason, free text.
        fields: further fields of the command.
    """
    return Command(
        command_id=str(uuid4()),
        verb=verb,
        by=by or os.environ.get("SUDO_USER") or _user(),
        comment=comment,
        requested_at=datetime.now(UTC),
        **fields,
    )


def _user() -> str:
    """Return the user's name; in a container, a user may have only a number."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return f"uid {os.getuid()}"


def send_command(
    settings: Mapping[str, str], topics: Topics, codec: Codec, command: Command
) -> Audit:
    """Send a command and return the mitigator's answer.

    Raises:
        MitigatorTimeout: no answer; the command counts once a mitigator is active.
        PublishError, ConfigError: the command could not be sent.
    """
    record = _encode(topics, command)
    with TopicReader(settings, [topics.audit], codec) as reader:
        end = time.monotonic() + _TIMEOUT
        # The reader is at the topic's end before the command is sent, so it misses no
        # answer. An unreadable partition must not prevent the command: the answer may
        # be in another partition.
        while not reader.at_end and time.monotonic() < end:
            for _ in reader.read(1.0):
                pass
            reader.check()
        _publish(settings, record)
        end = time.monotonic() + _TIMEOUT
        while time.monotonic() < end:
            for received in reader.read(0.2):
                audit = received.event
                if isinstance(audit, Audit) and audit.event_id == command.command_id:
                    return audit
    raise MitigatorTimeout(
        f"no mitigator answered within {_TIMEOUT:.0f} s. The command is stored and"
        " counts once one is active (approve, add and resume only for a few minutes)."
    )


def _encode(topics: Topics, command: Command) -> Record:
    for field in ("key", "by", "comment"):
        try:
            (getattr(command, field) or "").encode()
        except UnicodeEncodeError as exc:  # command line arguments may be any bytes
            raise ConfigError(f"{field}: expected UTF-8") from exc
    key = None if command.key is None else command.key.encode()
    headers = headers_for(command, _PROGRAM, command.command_id, command.requested_at)
    return Record(topics.command, key, Codec().encode(command, topics.command), headers)


def _publish(settings: Mapping[str, str], record: Record) -> None:
    publisher = KafkaPublisher(
        {"message.timeout.ms": f"{_TIMEOUT * 1000:.0f}", **settings}, ONE_SHOT_PRODUCER
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
