"""Pairs: whether an unban is of the ban that it seems to follow.

FastNetMon makes its calls in threads, and `sequence` says when a thread forked. Under
load one may wait: an unban and the ban of the next attack, called 0.2 s apart, were
seen to fork the other way round. What they say settles it. An unban repeats its ban's
words about the attack, and an attack ends before the next one on its target begins.
"""

from typing import Final

from consumers.policy.facts import CLOSES, Facts
from consumers.mitigator.state import Seen
from fnm_bus.hook import TICKS_PER_SECOND
from fnm_bus.order import PID_BITS

_WITHIN: Final = 5 * TICKS_PER_SECOND << PID_BITS
"""Sequences further apart tell the order by themselves: five seconds."""


def seen_of(facts: Facts) -> Seen:
    """Return what is remembered of an event."""
    return Seen(facts.sequence, facts.attack, facts.action in CLOSES)


def swapped(opening: Seen, closing: Seen) -> bool:
    """Return whether *closing*, which forked later, was called before *opening*.

    False where they are no ban and unban. Sequences are believed unless both name an
    attack, and not the same one.
    """
    return (
        closing.closes
        and not opening.closes
        and "" not in {opening.attack, closing.attack}
        and opening.attack != closing.attack
        and 0 <= closing.sequence - opening.sequence < _WITHIN
    )
