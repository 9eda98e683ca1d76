"""Webhook: tell people of mitigations, one notice for each storm.

    mitigation topic ▶ storms ▶ notice ▶ outbox ▶ POST
                                            └─ taken or given up ▶ offsets

An offset is committed when the notices that tell of its record are out. So a restart
repeats what was in flight, with the same keys, and loses nothing. Run one: several
members of the group would each see, and tell, only a part of a storm.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Final, TypeAlias

from consumers import serving
from consumers.mitigation.clock import now as boottime
from consumers.settings import AllSettings, WebhookSettings
from consumers.webhook import notice, post
from consumers.webhook.outbox import Logged, Outbox, Sending
from consumers.webhook.post import Letter, Post
from consumers.webhook.recall import ends_of, members_of, offsets, recalled
from consumers.webhook.storm import Storms
from fnm_bus import wiring as bus
from fnm_bus.codec import Codec
from fnm_bus.consume import Loop
from fnm_bus.consume_metrics import ConsumeMetrics
from fnm_bus.errors import BrokerUnavailable, ConfigError
from fnm_bus.event import Mitigation
from fnm_bus.handling import Hold
from fnm_bus.publish import LASTING, KafkaPublisher
from fnm_bus.reader import Read

log = logging.getLogger(__name__)

_LONGEST: Final = 1.0
_PROMPT: Final = 0.1
"""Seconds until the next look, at most, and while notices are on their way."""

Place: TypeAlias = tuple[int, int]
"""Partition and offset of a record."""


@dataclass
class Webhook:
    """Makes notices of the mitigation topic's records.

    Attributes:
        storms: groups the changes.
        sending: takes the notices.
        template: json or slack.
    """

    storms: Storms[Place]
    sending: Sending[tuple[Place, ...]]
    template: str = "json"
    _held: dict[Place, list[Hold]] = field(default_factory=dict)
    _seen: dict[int, tuple[int, datetime]] = field(default_factory=dict)

    def handle(self, read: Read) -> Hold | None:
        """Take one record; a change is held until it was told of."""
        it, place = read.event, (read.partition, read.offset)
        if not isinstance(it, Mitigation):
            return None
        if not self._is_replay(read):
            self._seen[read.partition] = read.offset, read.at
            ends = ends_of(it, read.at)
            if self.storms.take(it, boottime(), ends, place):
                self._held[place] = []
        if place not in self._held:
            return None
        hold = Hold()
        self._held[place].append(hold)
        return hold

    def turn(self) -> float:
        """Hand over the notices that are due; return when to call again, in seconds."""
        self.release()
        for it in self.storms.due(boottime()):
            told = notice.notice_of(it, datetime.now(UTC))
            log.info("notice %s: %s", told.key, told.title)
            letter = Letter(told.key, told.title, notice.body(told, self.template))
            self.sending.put(letter, it.tokens)
        longest = _LONGEST if self.sending.idle else _PROMPT
        return min(max(self.storms.next() - boottime(), 0.0), longest)

    def release(self) -> None:
        """Let the offsets go of what was told of."""
        for places in self.sending.done():
            for place in places:
                for hold in self._held.pop(place, ()):
                    hold.release()

    def _is_replay(self, read: Read) -> bool:
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
    return Outbox(Post(url, secret, settings.timeout), settings.give_up)


@dataclass
class Service:
    """The webhook as a program.

    Attributes:
        settings: everything that is configured.
        webhook: makes the notices.
        metrics: the loop's figures.
        turned_at: when it turned last, on the monotonic clock.
    """

    settings: AllSettings
    webhook: Webhook
    metrics: ConsumeMetrics
    turned_at: float = field(default_factory=monotonic)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _loop: Loop | None = None

    def run(self) -> None:
        """Learn what was told before, then read and tell until `stop`.

        Raises:
            ConfigError: librdkafka refuses the settings.
            TopicRefused: the topic does not exist, or must not be read.
        """
        kafka, names = bus.kafka(self.settings), bus.topics(self.settings)
        # As with everything about mitigations, no registry is needed.
        codec = Codec()
        publisher = KafkaPublisher(kafka, LASTING)
        own = {}
        if kafka.get("group.protocol") != "consumer":
            # Started again it gets all partitions at once, even after a kill.
            own["group.instance.id"] = self.settings.consumers.webhook.group
        self._loop = Loop(
            # What was there before a new group, `offsets` has passed over.
            {**own, **kafka, "auto.offset.reset": "earliest"},
            self.settings.consumers.webhook.group,
            [names.mitigation],
            codec,
            self.webhook.handle,
            deadletter_topic=names.deadletter,
            publisher=publisher,
            metrics=self.metrics,
            attempts=self.settings.consumers.attempts,
            turn=self._turn,
            settle=self._settle,
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
            below = offsets(kafka, self.settings.consumers.webhook.group, topic)
            told = recalled(kafka, topic, codec, below)
        except BrokerUnavailable as exc:
            log.warning("what was told before cannot be read now: %s", exc)
            return False
        self.webhook.storms.remember(members_of(told), boottime())
        return True


def main(settings: AllSettings) -> None:
    """Tell people of mitigations until a signal comes.

    Raises:
        ConfigError: the address, a file or Kafka's settings cannot be used.
        TopicRefused: the mitigation topic does not exist, or must not be read.
    """
    of = settings.consumers.webhook
    sending = sending_of(of, dry_run=settings.dry_run)
    storms: Storms[Place] = Storms(of.group_wait, of.group_interval)
    metrics = ConsumeMetrics()
    service = Service(settings, Webhook(storms, sending, of.template), metrics)
    serving.serve(settings, service, metrics.registry())
