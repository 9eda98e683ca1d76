"""Member: a member of a Kafka consumer group, with offsets committed by hand."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, Final

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from fnm_bus.consume.offset_commits import OffsetCommitter
from fnm_bus.consume.partition import PartitionState
from fnm_bus.errors import BrokerUnavailable
from fnm_bus.kafka.client import ConnectionState, build_consumer
from fnm_bus.kafka.client_errors import access_error, is_fatal, topic_error
from fnm_bus.kafka.names import READ
from fnm_bus.kafka.reader import UNREADABLE_CODES, ConsumedRecord, raw_record

log = logging.getLogger(__name__)

_STEP: Final = 0.05
"""Seconds of one look for an answer."""
_TRIES: Final = 3
"""Commits at the end: one that was under way, the last one, and for bad luck."""
_PROMPT: Final = {
    # What a dead member had is read by another one after this, not after 45 s.
    "session.timeout.ms": "10000",
}
_LOOK: Final = "60000"
"""Milliseconds between two looks at how many partitions the topics have; librdkafka
would look every five minutes."""
_QUESTION: Final = 1.0
"""Seconds for a question that may as well stay without an answer."""

Place = tuple[str, int]


class GroupMember:
    """Reads the partitions that the group gives to this process.

    Args:
        settings: librdkafka's settings.
        group: name of the group.
        topics: names of the topics.
        take: called by `poll` with each record.
        leaving: called by `poll` before partitions go to another member; the last time
            to commit what is done.
        gone: called with topic and number of a partition that went.

    Attributes:
        connection: what is known of the way to the brokers.
        refusals: topic → why it, which could be read before, cannot be read now.
    """

    def __init__(  # noqa: PLR0913 - what it reads, and whom it tells
        self,
        settings: Mapping[str, str],
        group: str,
        topics: Sequence[str],
        *,
        take: Callable[[PartitionState, ConsumedRecord], None],
        leaving: Callable[[], None],
        gone: Callable[[str, int], None],
    ) -> None:
        self._settings: dict[str, Any] = {
            "auto.offset.reset": "earliest",
            "topic.metadata.refresh.interval.ms": _LOOK,
            # With the newer protocol that is the broker's to say.
            **({} if settings.get("group.protocol") == "consumer" else _PROMPT),
            **settings,
            "group.id": group,
            "enable.auto.commit": "false",
            "enable.auto.offset.store": "false",
            "enable.partition.eof": "true",
            "on_commit": self._committed,
        }
        self._group = group
        self._topics = list(topics)
        self._take = take
        self._leaving = leaving
        self._gone = gone
        self._consumer: Consumer | None = None
        self._parts: dict[Place, PartitionState] = {}
        self._known: set[str] = set()
        self._unseen = list(topics)
        self._commits = OffsetCommitter(self._parts)
        self._ending = False
        self.connection = ConnectionState(self._settings)
        self.refusals: dict[str, str] = {}

    def join(self) -> None:
        """Begin to join the group.

        Raises:
            ConfigError: librdkafka refuses the settings.
        """
        self._consumer = build_consumer(self._settings, self.connection)
        self._consumer.subscribe(
            self._topics,
            on_assign=self._given,
            on_revoke=self._taken,
            on_lost=self._lost,
        )

    def leave(self, seconds: float, *, commit: bool) -> None:
        """Leave the group, after what is done was committed if *commit* says so.

        Kafka gets *seconds* for each of its answers. Without them the group is left
        without a word, and finds out by itself: librdkafka waits for the answer to a
        commit until the session's end, and so it does when it is let go.
        """
        consumer, self._ending = self._consumer, True
        if consumer is None:
            return
        try:
            for _ in range(_TRIES if commit else 0):
                self._await(consumer, seconds)
                if (
                    self._commits.asked
                    or self.connection.is_down
                    or not self._commits.wanted()
                ):
                    break
                self.commit(now=False)
            self._await(consumer, seconds)
            # A daemon's: what does not end in time keeps no process from ending.
            closing = threading.Thread(target=consumer.close, daemon=True)
            closing.start()
            closing.join(seconds)
            if closing.is_alive():
                log.warning("no broker reachable; the group is left without a word")
        finally:
            self._parts.clear()
            self._consumer = None

    def poll(self, seconds: float) -> bool:
        """Take what comes first, if something comes within *seconds*.

        Raises:
            TopicRefused: a topic does not exist, or it or the group must not be read.
            BrokerUnavailable: another process took this one's place in the group.
        """
        message = self._joined().poll(seconds)
        if message is None:
            return False
        error = message.error()
        if error is not None:
            self._told(message, error)
            return True
        self.connection.mark_connected()
        read = raw_record(message)
        self.refusals.pop(read.topic, None)
        part = self._parts.get((read.topic, read.partition))
        # A record of a partition that was taken away comes to whoever has it now.
        if part is not None:
            part.at = read.offset + 1
            self._take(part, read)
        return True

    def check(self) -> None:
        """Look whether the topics are there, until each was seen once.

        With the newer group protocol librdkafka does not say that one is not. That a
        topic is refused it reports once, and never that it can be read again.

        Raises:
            TopicRefused: a topic does not exist, or must not be read.
        """
        self._try_refused()
        while self._unseen and not self.connection.is_down:
            topic = self._unseen[-1]
            try:
                found = self._joined().list_topics(topic, timeout=_QUESTION)
            except KafkaException:  # the next look asks again
                return
            error = found.topics[topic].error
            if error is not None and error.code() in UNREADABLE_CODES:
                raise topic_error(error, topic, READ, self._settings)
            self._unseen.pop()

    def parts(self) -> tuple[PartitionState, ...]:
        """Return the partitions that are ours."""
        return tuple(self._parts.values())

    def pause(self, part: PartitionState) -> None:
        """Let nothing come of a partition."""
        if part.again is None:
            self._joined().pause([_at(part)])

    def resume(self, part: PartitionState) -> None:
        """Let a partition that was paused go on."""
        paused = part.again is not None
        part.go_on()
        if paused:
            self._joined().resume([_at(part)])

    def commit(self, *, now: bool) -> None:
        """Commit what is done; *now* waits for the answer."""
        self._commits.commit(self._joined(), now=now)

    def lags(self) -> Iterator[tuple[PartitionState, int | None]]:
        """Yield for each partition how many records were not taken, if that is known.

        What pauses is not fetched, so its end has to be asked for.
        """
        consumer, ask = self._joined(), not self.connection.is_down
        for part in self.parts():
            end = -1
            try:
                if part.again is None:
                    _, end = consumer.get_watermark_offsets(_at(part), cached=True)
                elif ask:
                    _, end = consumer.get_watermark_offsets(
                        _at(part), timeout=_QUESTION
                    )
            except KafkaException:
                ask = False
            known = end >= 0 and part.at >= 0
            yield part, max(end - part.at, 0) if known else None

    def _joined(self) -> Consumer:
        if self._consumer is None:
            raise BrokerUnavailable("not a member of the group: `join` first")
        return self._consumer

    def _await(self, consumer: Consumer, seconds: float) -> None:
        """Wait for the answer to a commit; records that come are nobody's."""
        end = monotonic() + seconds
        while self._commits.asked and not self.connection.is_down and monotonic() < end:
            consumer.poll(_STEP)

    def _told(self, message: Message, error: KafkaError) -> None:
        code, topic = error.code(), message.topic() or ""
        if code == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its name
            part = self._parts.get((topic, message.partition() or 0))
            self.refusals.pop(topic, None)
            if part is not None:
                part.at = message.offset() or 0
        elif is_fatal(error):
            raise BrokerUnavailable(f"this consumer is shut out: {error.str()}")
        elif code == KafkaError.GROUP_AUTHORIZATION_FAILED:
            denied = access_error(error, self._settings, group=self._group)
            raise denied or BrokerUnavailable(error.str())
        elif code in UNREADABLE_CODES and topic not in self._known:
            raise topic_error(error, topic, READ, self._settings)
        else:  # a topic that was there may be so again: Kafka starts piece by piece
            log.warning("%s: %s", topic or f"group {self._group}", error.str())
            if code in UNREADABLE_CODES:
                refusal = topic_error(error, topic, READ, self._settings)
                self.refusals[topic] = str(refusal)

    def _try_refused(self) -> None:
        """Fetch again from topics that were refused: an answer ends the refusal."""
        for part in self._parts.values():
            if part.topic not in self.refusals or part.at < 0 or part.again is not None:
                continue
            try:
                self._joined().seek(TopicPartition(part.topic, part.number, part.at))
            except KafkaException as exc:  # the next look tries again
                log.debug("%s[%d]: %s", part.topic, part.number, exc)

    def _given(self, _consumer: Consumer, places: list[TopicPartition]) -> None:
        for it in places:
            self._parts[it.topic, it.partition] = PartitionState(it.topic, it.partition)
            self._known.add(it.topic)
        log.info("reading %d partitions", len(self._parts))

    def _taken(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        if not self._ending:
            self._leaving()
        self._lost(consumer, places)

    def _lost(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        for it in places:
            part = self._parts.pop((it.topic, it.partition), None)
            if part is None:
                continue
            if part.again is not None and not self._ending:
                # librdkafka would keep it paused if it came back.
                consumer.resume([_at(part)])
            self._gone(part.topic, part.number)
        ours = {topic for topic, _number in self._parts}
        for topic in self.refusals.keys() - ours:
            del self.refusals[topic]

    def _committed(
        self, error: KafkaError | None, offsets: list[TopicPartition]
    ) -> None:
        if error is None:
            self.connection.mark_connected()
        self._commits.answered(error, offsets)


def _at(part: PartitionState) -> TopicPartition:
    return TopicPartition(part.topic, part.number)
