"""Webhook: tell people of mitigations, one notice for each storm.

    mitigation topic ▶ storms ▶ notice ▶ outbox ▶ POST
                                            └─ taken or given up ▶ offsets

An offset is committed when the notices that tell of its record are out. So a restart
repeats what was in flight, with the same keys, and loses nothing. Run one: several
members of the group would each see, and tell, only a part of a storm.
"""

import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Any, Final, TypeAlias

from consumers import serving
from consumers.mitigation.clock import BrokerClock
from consumers.mitigation.clock import now as boottime
from consumers.mitigation.states import PAUSE
from consumers.settings import FullSettings, WebhookSettings
from consumers.webhook import notice, post
from consumers.webhook.bulletin import Bulletin
from consumers.webhook.left_out import LeftOut, WebhookMetrics
from consumers.webhook.outbox import Logged, Outbox, Sending
from consumers.webhook.post import Letter, Post
from consumers.webhook.recall import ends_of, members_of, position, recalled
from consumers.webhook.record_check import LATEST, problem_of
from consumers.webhook.storm import Storms
from fnm_bus import build as bus
from fnm_bus.avro.codec import Codec
from fnm_bus.consume.handler import Deferred, RetryLater
from fnm_bus.consume.loop import ConsumerLoop
from fnm_bus.errors import BrokerUnavailable, ConfigError, ConnectionRejected
from fnm_bus.event import EPOCH, Mitigation
from fnm_bus.kafka.publisher import SERVICE_PRODUCER, KafkaPublisher
from fnm_bus.kafka.reader import ConsumedRecord

log = logging.getLogger(__name__)

_LONGEST: Final = 1.0
_PROMPT: Final = 0.1
"""Seconds until the next look, at most, and while notices are on their way."""
_MAX_HELD: Final = 100_000
_MAX_BEHIND: Final = 500_000
"""Changes that wait to be reported; records of a partition since the oldest one."""
_RETRY: Final = 1.0
"""Seconds until a record is taken again that exceeded these bounds."""

Place: TypeAlias = tuple[int, int]
"""Partition and offset of a record."""


@dataclass
class Webhook:
    """Makes notices of the mitigation topic's records.

    Attributes:
        storms: groups the changes.
        sending: takes the notices.
        template: json or slack.
        clock: the broker's time, learned from the records.
        left_out: counts what cannot be used.
    """

    storms: Storms[Place]
    sending: Sending[tuple[Place, ...]]
    template: str = "json"
    clock: BrokerClock = field(default_factory=BrokerClock)
    left_out: LeftOut = field(default_factory=LeftOut)
    _held: dict[int, dict[int, list[Deferred]]] = field(default_factory=dict)
    _seen: dict[int, tuple[int, datetime]] = field(default_factory=dict)

    def remember(self, told: Iterable[ConsumedRecord]) -> None:
        """Take over what was reported before a restart: the latest record of each key.

        Records that cannot be used are left out.
        """
        usable = []
        for read in told:
            self._witness(read)
            if self._is_usable(read):
                usable.append(read)
        self.storms.remember(members_of(usable, self._broker_time()), boottime())

    def handle(self, read: ConsumedRecord) -> Deferred | None:
        """Take one record; a change is held until it was reported.

        Raises:
            TryLater: too many changes wait; the record was not taken.
        """
        self._witness(read)
        if not isinstance(read.event, Mitigation):
            return None
        held = self._held.setdefault(read.partition, {})
        if not self._is_replay(read):
            self._check_room(read, held)
            self._seen[read.partition] = read.offset, read.at
            if self._is_usable(read) and self._take(read, read.event):
                held[read.offset] = []
        if read.offset not in held:
            return None
        hold = Deferred()
        held[read.offset].append(hold)
        return hold

    def turn(self) -> float:
        """Hand over the notices that are due; return when to call again, in seconds."""
        self.release()
        if self.sending.full:
            return _PROMPT
        for bulletin in self.storms.due(boottime()):
            try:
                self._send(bulletin)
            except MemoryError:
                raise
            except Exception as exc:
                # One storm that cannot be put into words must not silence the others.
                log.exception("a notice of %s cannot be made", bulletin.group)
                self.left_out.add("notice", f"notice of {bulletin.group}", repr(exc))
                self._release(bulletin.tokens)
        longest = _LONGEST if self.sending.idle else _PROMPT
        return min(max(self.storms.next() - boottime(), 0.0), longest)

    def release(self) -> None:
        """Release the offsets of what was reported."""
        for places in self.sending.done():
            self._release(places)

    def _release(self, places: Iterable[Place]) -> None:
        for partition, offset in places:
            for hold in self._held.get(partition, {}).pop(offset, ()):
                hold.release()

    def _send(self, bulletin: Bulletin[Place]) -> None:
        document = notice.notice_of(bulletin, self.clock.datetime())
        body = notice.body(document, self.template)
        log.info("notice %s: %s", document.key, document.title)
        letter = Letter(document.key, document.title, body)
        self.sending.put(letter, bulletin.tokens)

    def _take(self, read: ConsumedRecord, mitigation: Mitigation) -> bool:
        """Return whether a record is news."""
        ends = ends_of(mitigation, read.at, self._broker_time())
        before = self.storms.left_out
        place = read.partition, read.offset
        news = self.storms.take(mitigation, boottime(), ends, place)
        if self.storms.left_out > before:
            text = "more mitigations than are remembered"
            self.left_out.add("bound", _name(read), text)
        return news

    def _is_usable(self, read: ConsumedRecord) -> bool:
        if read.error:
            self.left_out.add("decode", _name(read), f"{read.error:.200}")
        if not isinstance(read.event, Mitigation):
            return False
        problem = problem_of(read.event, len(read.value or b""))
        if problem is not None:
            self.left_out.add(problem.code, _name(read), problem.text)
        return problem is None

    def _check_room(self, read: ConsumedRecord, held: Mapping[int, Any]) -> None:
        count = sum(map(len, self._held.values()))
        if count >= _MAX_HELD:
            raise RetryLater(f"{count} changes wait to be reported", _RETRY)
        behind = read.offset - next(iter(held), read.offset)
        if behind >= _MAX_BEHIND:
            text = f"{behind} records wait behind a change that was not reported"
            raise RetryLater(text, _RETRY)

    def _witness(self, read: ConsumedRecord) -> None:
        # A time that no clock shows would stay the broker's time for ever.
        if EPOCH <= read.at < LATEST:
            self.clock.witness(read.at.timestamp())

    def _broker_time(self) -> float:
        return self.clock.datetime().timestamp()

    def _is_replay(self, read: ConsumedRecord) -> bool:
        """Return whether a record is read again: its partition was away meanwhile.

        What it says was taken already, and may be older than what is known now. On a
        topic that was made anew offsets are small, and times are not.
        """
        offset, at = self._seen.get(read.partition, (-1, read.at))
        return read.offset <= offset and read.at <= at


def sending_of(
    settings: WebhookSettings, *, dry_run: bool
) -> Sending[tuple[Place, ...]]:
    """Return where notices go.

    Raises:
        ConfigError: no address is configured though notices are to be sent, or the
            address or a file cannot be used.
    """
    if dry_run:
        log.info("dry run: notices are logged and not sent; set dry_run = false")
        return Logged()
    name = "[consumers.webhook]"
    if settings.url_file is not None:
        url = post.secret_of(settings.url_file, f"{name} url_file")
    elif settings.url is not None:
        url = settings.url
    else:
        raise ConfigError(f"{name} url: wanted an address, or url_file, got nothing")
    secret = None
    if settings.secret_file is not None:
        found = post.secret_of(settings.secret_file, f"{name} secret_file")
        secret = found.encode()
    return Outbox(Post(url, secret, settings.timeout), settings.retry_timeout)


@dataclass
class Service:
    """The webhook as a program.

    Attributes:
        settings: everything that is configured.
        webhook: makes the notices.
        metrics: of the loop, and of what is left out.
        turned_at: when it turned last, on the monotonic clock.
    """

    settings: FullSettings
    webhook: Webhook
    metrics: WebhookMetrics
    turned_at: float = field(default_factory=monotonic)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _loop: ConsumerLoop | None = None
    _problem: str = ""

    def run(self) -> None:
        """Learn what was told before, then read and tell until `stop`.

        Raises:
            ConfigError: librdkafka refuses the settings.
            TopicRefused: the topic does not exist, or must not be read.
        """
        kafka, names = bus.kafka_settings(self.settings), bus.topic_names(self.settings)
        # As with everything about mitigations, no registry is needed.
        codec = Codec()
        publisher = KafkaPublisher(kafka, SERVICE_PRODUCER)
        own = {}
        if kafka.get("group.protocol") != "consumer":
            # Started again it gets all partitions at once, even after a kill.
            own["group.instance.id"] = self.settings.consumers.webhook.group
        self._loop = ConsumerLoop(
            # What was there before a new group, `offsets` has passed over.
            {**own, **kafka, "auto.offset.reset": "earliest"},
            self.settings.consumers.webhook.group,
            [names.mitigation],
            codec,
            self.webhook.handle,
            deadletter_topic=names.deadletter,
            publisher=publisher,
            metrics=self.metrics,
            max_attempts=self.settings.consumers.max_attempts,
            between_records=self._turn,
            before_commit=self._settle,
        )
        try:
            while not self._stopping.is_set() and not self._recalled(kafka, codec):
                self.turned_at = monotonic()
                self._stopping.wait(_LONGEST)
            if not self._stopping.is_set():
                self._loop.run()
        finally:
            self._close()
            publisher.close()

    def stop(self) -> None:
        """Ask `run` to end; may be called from a signal handler."""
        self._stopping.set()
        if self._loop is not None:
            self._loop.stop()

    def healthy(self) -> bool:
        """Return whether no person has to act before it can work."""
        return not self._current_problem()

    def facts(self) -> Mapping[str, object]:
        """Return what /healthz shows."""
        return {"problem": self._current_problem()}

    def _current_problem(self) -> str:
        return self._problem or (self._loop.problem if self._loop else "")

    def _turn(self) -> float:
        self.turned_at = monotonic()
        return self.webhook.turn()

    def _settle(self) -> None:
        if self._stopping.is_set():
            self._close()
        self.webhook.release()

    def _close(self) -> None:
        self.webhook.sending.close(self.settings.consumers.webhook.timeout)

    def _recalled(self, kafka: Mapping[str, str], codec: Codec) -> bool:
        topic = self.settings.topics.mitigation
        try:
            group = position(kafka, self.settings.consumers.webhook.group, topic)
            told = recalled(kafka, topic, codec, group.offsets)
        except BrokerUnavailable as exc:
            log.warning("what was reported before cannot be read now: %s", exc)
            self._problem = str(exc) if isinstance(exc, ConnectionRejected) else ""
            return False
        self._problem = ""
        if group.is_new:
            told = [read for read in told if _is_pause(read)]
        self.webhook.remember(told)
        return True


def main(settings: FullSettings) -> None:
    """Tell people of mitigations until a signal comes.

    Raises:
        ConfigError: the address, a file or Kafka's settings cannot be used.
        TopicRefused: the mitigation topic does not exist, or must not be read.
    """
    of = settings.consumers.webhook
    sending = sending_of(of, dry_run=settings.dry_run)
    storms: Storms[Place] = Storms(of.group_wait, of.group_interval)
    metrics = WebhookMetrics()
    left_out = LeftOut(metrics.left_out)
    webhook = Webhook(storms, sending, of.template, left_out=left_out)
    service = Service(settings, webhook, metrics)
    serving.serve(settings, service, metrics.registry(), service.facts, service.healthy)


def _is_pause(read: ConsumedRecord) -> bool:
    return isinstance(read.event, Mitigation) and read.event.kind == PAUSE


def _name(read: ConsumedRecord) -> str:
    return f"{read.topic}[{read.partition}]@{read.offset}"
