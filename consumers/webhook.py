"""Webhook: tell people of mitigations, one notice for each storm.

    mitigation topic ▶ storms ▶ notice ▶ outbox ▶ POST
                                            └─ taken or given up ▶ offsets

An offset is committed when the notices that tell of its record are out. So a restart
repeats what was in flight, with the same keys, and loses nothing. Run one: several
members of the group would each see, and tell, only a part of a storm.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Final, Protocol

from msgspec.structs import replace

from consumers import notice, post
from consumers.bulletin import Member, why_over
from consumers.outbox import Outbox
from consumers.post import Letter, Post
from consumers.recall import offsets, recalled
from consumers.settings import AllSettings, WebhookSettings
from consumers.snapshot import now as boottime
from consumers.state import PAUSE, PROPOSED, WANTED
from consumers.storm import Storms
from fnm_bus import wiring
from fnm_bus.consume import Hold, Loop
from fnm_bus.errors import BrokerUnavailable, ConfigError
from fnm_bus.event import EPOCH, Mitigation
from fnm_bus.reader import Read

log = logging.getLogger(__name__)

GROUP: Final = "fnm-bus-webhook"
_LONGEST: Final = 1.0
_PROMPT: Final = 0.1
"""Seconds until the next look, at most, and while notices are on their way."""
_OLD: Final = timedelta(days=1)
"""A lease that ran out longer ago is not told after a restart."""


class Sending(Protocol):
    """Where notices go."""

    def put(self, letter: Letter, token: tuple[Hold, ...]) -> None:
        """Take a notice; *token* comes back from `done` once it is out."""

    def done(self) -> list[tuple[Hold, ...]]:
        """Return the tokens of the notices that are out."""

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""

    def close(self, seconds: float) -> None:
        """End within *seconds*."""


class Logged:
    """Logs notices instead of sending them: the dry run."""

    def __init__(self) -> None:
        self._done: list[tuple[Hold, ...]] = []

    def put(self, letter: Letter, token: tuple[Hold, ...]) -> None:
        """Log a notice."""
        log.info("dry run, not sent: notice %s: %s", letter.key, letter.body.decode())
        self._done.append(token)

    def done(self) -> list[tuple[Hold, ...]]:
        """Return the tokens of what was logged."""
        found, self._done = self._done, []
        return found

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""
        return not self._done

    def close(self, seconds: float) -> None:
        """Do nothing."""


@dataclass
class Webhook:
    """Makes notices of the mitigation topic's records.

    Attributes:
        storms: groups the changes.
        sending: takes the notices.
        template: json or slack.
    """

    storms: Storms[Hold]
    sending: Sending
    template: str = "json"

    def handle(self, read: Read) -> Hold | None:
        """Take one record; a change is held until it was told of."""
        it = read.event
        if not isinstance(it, Mitigation):  # a tombstone: its end was told before
            return None
        hold = Hold()
        news = self.storms.take(it, boottime(), ends_of(it, read.at), hold)
        return hold if news else None

    def turn(self) -> float:
        """Hand over the notices that are due; return when to call again, in seconds."""
        for holds in self.sending.done():
            for hold in holds:
                hold.release()
        for it in self.storms.due(boottime()):
            told = notice.notice_of(it, datetime.now(UTC))
            log.info("notice %s: %s", told.key, told.title)
            letter = Letter(told.key, told.title, notice.body(told, self.template))
            self.sending.put(letter, it.tokens)
        longest = _LONGEST if self.sending.idle else _PROMPT
        return min(max(self.storms.next() - boottime(), 0.0), longest)


def ends_of(mitigation: Mitigation, at: datetime) -> float:
    """Return when a lease runs out on the clock of `snapshot.now`; `inf` without one.

    It runs from the broker's time of the record. What ran out before it was read ends
    now at the earliest: its renewal may be the next record.
    """
    if not mitigation.lease_ms:
        return inf
    gone = (datetime.now(UTC) - at).total_seconds()
    return boottime() + max(mitigation.lease_ms / 1000 - gone, 0.0)


def members_of(told: Iterable[Read]) -> list[Member]:
    """Return what the records of a topic say that was told of before a restart."""
    found = []
    for read in told:
        it = read.event
        if not isinstance(it, Mitigation):
            continue
        if it.state == WANTED or (it.state == PROPOSED and it.kind != PAUSE):
            lease = timedelta(milliseconds=it.lease_ms)
            if not it.lease_ms or read.at + lease > datetime.now(UTC) - _OLD:
                found.append(Member(it, ends_of(it, read.at), cause=it.cause))
            continue
        why = why_over(replace(it, expires_at=EPOCH), it)
        found.append(Member(it, inf, why, it.changed_at, it.cause))
    return found


def sending_of(settings: WebhookSettings, *, dry_run: bool) -> Sending:
    """Return where notices go.

    Raises:
        ConfigError: no address is configured though notices are to be sent, or the
            address or a file cannot be used.
    """
    if dry_run:
        log.warning("dry run: notices are logged and not sent; set dry_run = false")
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
