"""Call order: the order in which FastNetMon made two calls about one target.

FastNetMon makes its calls in threads, and `sequence` is the time of a thread's fork.
Under load a thread may wait: an unban and the next attack's ban, called 0.2 s apart,
were seen to fork in the wrong order. Their contents decide: an unban repeats the attack
of its ban, and an attack ends before the next one on its target begins.
"""

from typing import Final, NamedTuple

from consumers.policy.facts import CLOSES, AttackFacts
from fnm_bus.hook.python_hook import TICKS_PER_SECOND
from fnm_bus.spool.sequence import PID_BITS

STATUS: Final = "attack_status"
_WITHIN: Final = 5 * TICKS_PER_SECOND << PID_BITS
"""Five seconds; sequences further apart decide the order."""


class LastEvent(NamedTuple):
    """The event with the greatest sequence that counted for a target.

    Attributes:
        attack: identifier of its attack, or "".
        closes: whether it was an unban.
    """

    sequence: int
    attack: str = ""
    closes: bool = False
    is_status: bool = False


NEVER: Final = LastEvent(-1)


def last_event_of(facts: AttackFacts) -> LastEvent:
    """Return the part of an event that is remembered."""
    return LastEvent(
        facts.sequence,
        facts.attack,
        closes=facts.action in CLOSES,
        is_status=facts.action == STATUS,
    )


def is_swapped(opening: LastEvent, closing: LastEvent) -> bool:
    """Return whether an unban that forked later was called before a ban.

    False if the events are not a ban and an unban, or do not name two different
    attacks: then sequences decide.
    """
    return (
        closing.closes
        and not opening.closes
        and "" not in {opening.attack, closing.attack}
        and opening.attack != closing.attack
        and 0 <= closing.sequence - opening.sequence < _WITHIN
    )


def is_overtaken(closing: LastEvent, last: LastEvent) -> bool:
    """Return whether a status update of its own attack arrived before an unban.

    The events are on two topics, and the thread of a status update may fork later than
    the thread of the unban.
    """
    return (
        closing.closes
        and last.is_status
        and closing.attack == last.attack != ""
        and 0 <= last.sequence - closing.sequence < _WITHIN
    )
