"""State: every mitigation, and what can be asked of them quickly.

It is what the mitigation topic says, in memory: `put` each record of the topic in
order and the state is as the mitigator that wrote them had it.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final, NamedTuple, TypeAlias

from consumers.mitigation.measure import NOTIFY, Network, measure_of
from consumers.policy.guardrails import Tally, meant
from fnm_bus.event import Mitigation, Reason


NONE: Final = "none"
"""Kind of a record that only remembers sequences."""
PAUSE: Final = "pause"
"""Kind and key of the record that says whether the red button is pressed."""

_MINUTE: Final = timedelta(seconds=60)
_TOLD: Final = 100_000

Place: TypeAlias = tuple[str, str, str]
"""Sensor, target and part of a reason."""


class Seen(NamedTuple):
    """What is remembered of the latest event of a place.

    Attributes:
        sequence: the event's.
        attack: what names its attack; "" when nothing did, or it is not known any more.
        closes: whether it was an unban.
    """

    sequence: int
    attack: str = ""
    closes: bool = False


_NEVER: Final = Seen(-1)


def place_of(reason: Reason) -> Place:
    """Return within what the reason's sequence compares."""
    return reason.sensor, reason.target, reason.part


class State:
    """All mitigations.

    Args:
        own: the operator's own networks, for the share of them that is affected.

    Attributes:
        mitigations: key → the latest record; ended ones until they are forgotten.
        paused: whether the red button is pressed.
        renewing: sensors that were seen to send status updates.
    """

    def __init__(self, own: tuple[Network, ...]) -> None:
        self._own = own
        self.mitigations: dict[str, Mitigation] = {}
        self.paused = False
        self.renewing: set[str] = set()
        self._seen: dict[Place, Seen] = {}
        self._holding: dict[Place, set[str]] = {}
        self._parts: dict[tuple[str, str], set[Place]] = {}
        self._total = 0
        self._customers: Counter[str] = Counter()
        self._networks: Counter[Network] = Counter()
        self._covered: Counter[int] = Counter()
        self._starts: deque[datetime] = deque()
        self._told: OrderedDict[Place, str] = OrderedDict()

    def put(self, mitigation: Mitigation) -> None:
        """Take a record in place of the one before it."""
        before = self.mitigations.get(mitigation.key)
        self._release(before)
        self.mitigations[mitigation.key] = mitigation
        if mitigation.kind == PAUSE:
            self.paused = mitigation.state == WANTED
        for reason in mitigation.reasons:
            place = place_of(reason)
            self.saw(place, Seen(reason.sequence))
            if reason.renewals:
                self.renewing.add(reason.sensor)
            if reason.holds and mitigation.state != ENDED:
                self._holding.setdefault(place, set()).add(mitigation.key)
                self._parts.setdefault(place[:2], set()).add(place)
        if _counts(mitigation):
            self._count(mitigation, 1)
            if before is None or not _counts(before):
                self._starts.append(mitigation.started_at)

    def forget(self, key: str) -> None:
        """Forget a mitigation, as its tombstone says, and the sequences it kept."""
        gone = self.mitigations.pop(key, None)
        self._release(gone)
        for reason in gone.reasons if gone else ():
            if not self._holding.get(place_of(reason)):
                self._seen.pop(place_of(reason), None)

    def saw(self, place: Place, seen: Seen) -> None:
        """Remember what has the greatest sequence of a place."""
        last = self.last(place)
        if seen.sequence > last.sequence or (
            # As it is known from the event, and not from the record that it led to.
            seen.sequence == last.sequence and seen.attack
        ):
            self._seen[place] = seen

    def last(self, place: Place) -> Seen:
        """Return what has the greatest sequence of a place; -1 when nothing came."""
        return self._seen.get(place, _NEVER)

    def holding(self, place: Place) -> list[str]:
        """Return the keys of the mitigations that have a holding reason there."""
        return sorted(self._holding.get(place, ()))

    def places(self, sensor: str, target: str) -> list[Place]:
        """Return the places of a target, all its parts, where something holds."""
        return sorted(self._parts.get((sensor, target), ()))

    def standing(self) -> list[Mitigation]:
        """Return what is not ended, in the order in which it started."""
        found = [it for it in self.mitigations.values() if it.state != ENDED]
        return sorted((it for it in found if it.kind != PAUSE), key=_started)

    def tally(self, now: datetime) -> Tally:
        """Return what stands, as far as caps are concerned."""
        while self._starts and self._starts[0] <= now - _MINUTE:
            self._starts.popleft()
        return Tally(
            self._total,
            self._customers,
            len(self._starts),
            self._covered,
            self._networks,
        )

    def news(self, place: Place, text: str) -> bool:
        """Return whether *text* is news of a place: each is told once in a row."""
        if self._told.get(place) == text:
            return False
        self._told[place] = text
        self._told.move_to_end(place)
        if len(self._told) > _TOLD:
            self._told.popitem(last=False)
        return True

    def _release(self, mitigation: Mitigation | None) -> None:
        if mitigation is None:
            return
        if _counts(mitigation):
            self._count(mitigation, -1)
        for reason in mitigation.reasons:
            place = place_of(reason)
            keys = self._holding.get(place, set())
            keys.discard(mitigation.key)
            if not keys:
                self._holding.pop(place, None)
                parts = self._parts.get(place[:2], set())
                parts.discard(place)
                if not parts:
                    self._parts.pop(place[:2], None)

    def _count(self, mitigation: Mitigation, step: int) -> None:
        self._total += step
        if mitigation.customer is not None:
            self._customers[mitigation.customer] += step
        network = meant(measure_of(mitigation), self._own)
        if network is None:
            return
        self._networks[network] += step
        there = self._networks[network]
        if there == (1 if step > 0 else 0):
            self._covered[network.version] += step * network.num_addresses
        if not there:
            del self._networks[network]


def rebuilt(
    records: Iterable[tuple[str, Mitigation | None]], own: tuple[Network, ...]
) -> State:
    """Return the state that *records* of the topic tell of: key, and None to forget."""
    latest = dict(records)
    state = State(own)
    found = [it for it in latest.values() if it is not None]
    for it in sorted(found, key=_started):
        state.put(it)
    return state


def _started(mitigation: Mitigation) -> datetime:
    return mitigation.started_at


def _counts(mitigation: Mitigation) -> bool:
    """Return whether a mitigation counts against the caps: it touches traffic."""
    return mitigation.state == WANTED and mitigation.kind not in {NOTIFY, NONE, PAUSE}
