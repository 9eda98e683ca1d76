"""Call order: which of two events about a target FastNetMon meant to be later.

FastNetMon makes its calls in threads, and `sequence` says when a thread forked. Under
load one may wait: an unban and the ban of the next attack, called 0.2 s apart, were
seen to fork the other way round. Their contents settle it: an unban repeats its ban's
attack, and an attack ends before the next one on its target begins.
"""

from typing import Final, NamedTuple

from consumers.policy.facts import CLOSES, AttackFacts
from fnm_bus.hook.python_hook import TICKS_PER_SECOND
from fnm_bus.spool.sequence import PID_BITS

STATUS: Final = "attack_status"
_WITHIN: Final = 5 * TICKS_PER_SECOND << PID_BITS
"""Sequences further apart settle the order by themselves: five seconds."""


class LastEvent(NamedTuple):
    """The event with the greatest sequence that counted for a target.

    Attributes:
        sequence: the event's.
        attack: what names its attack; "" when nothing did.
        closes: whether it was an unban.
        is_status: whether it was a status update.
    """

    sequence: int
    attack: str = ""
    closes: bool = False
    is_status: bool = False


NEVER: Final = LastEvent(-1)


def event_of(facts: AttackFacts) -> LastEvent:
    """Return what is remembered of an event."""
    return LastEvent(
        facts.sequence,
        facts.attack,
        closes=facts.action in CLOSES,
        is_status=facts.action == STATUS,
    )


def swapped(opening: LastEvent, closing: LastEvent) -> bool:
    """Return whether *closing*, which forked later, was called before *opening*.

    False where they are not a ban and an unban. Sequences decide unless both name an
    attack, and not the same one.
    """
    return (
        closing.closes
        and not opening.closes
        and "" not in {opening.attack, closing.attack}
        and opening.attack != closing.attack
        and 0 <= closing.sequence - opening.sequence < _WITHIN
    )


def overtaken(closing: LastEvent, last: LastEvent) -> bool:
    """Return whether a status update of the attack that *closing* ends came before.

    They are on two topics, and a thread with a status update may fork later than the
    one with the unban.
    """
    return (
        closing.closes
        and last.is_status
        and closing.attack == last.attack != ""
        and 0 <= last.sequence - closing.sequence < _WITHIN
    )
