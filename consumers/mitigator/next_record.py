"""Next record: the mitigation that follows from its reasons and from people's decisions.

Pure. The table of docs/decisions/reasons-and-mitigations.md, first match:

    withdrawn or rejected by a person, less than a lease ago   suppressed
    live and approved reasons, limits allow the start          wanted
    live and approved reasons                                  proposed, held by limits
    reasons that wait for approval                             proposed
    dry runs, limits allow the start                           wanted, dry run
    nothing                                                    ended
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec
from msgspec.structs import replace

from consumers.mitigation.reason_key import ReasonKey
from consumers.mitigation.states import ENDED, OPERATOR, PROPOSED, SUPPRESSED, WANTED
from consumers.mitigator.demand import Demand, Hold, Terms
from consumers.mitigator.effects import covers, describe, strength, unite
from consumers.mitigator.state import APPROVAL, MitigationEntry
from consumers.policy.guardrails import HOLD
from fnm_bus import __version__
from fnm_bus.event import Check, Effect, Mitigation, Reason, ReasonSummary

MAX_RECORD_BYTES: Final = 8_000
MAX_TEXT: Final = 300
"""Characters of a sentence in a record."""
_EXAMPLES: Final = 5
_NAME: Final = 100
"""Characters of a name in an example."""
_RENEW_AFTER: Final = 1 / 3
"""Share of a lease after which a longer one is written."""

CheckStart = Callable[[bool], tuple[Check, ...]]
"""Returns what limits say to a start; the argument is whether it is a dry run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Now, on the two clocks that matter.

    Attributes:
        clock: seconds since boot; leases are counted on it.
        now: the broker's time, UTC; what records show.
    """

    clock: float
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why a mitigation is computed again.

    Attributes:
        text: a sentence for people.
        ended_because: why it ends, if it does.
        lease: of the reason that changed, in seconds; a suppression outlasts it.
        by: the person who decided, or "".
        hostgroup: of the event, or None.
        customer: whose network is affected, or None.
    """

    text: str
    ended_because: str
    lease: float = 900.0
    by: str = ""
    hostgroup: str | None = None
    customer: str | None = None


@dataclass(frozen=True, slots=True)
class Next:
    """What follows.

    Attributes:
        entry: the mitigation as it is from now on; None: there is none.
        written: whether its record differs enough to be written.
        checks: what limits were checked.
    """

    entry: MitigationEntry | None
    written: bool
    checks: tuple[Check, ...] = ()


def next_record(
    before: MitigationEntry | None,
    demand: Demand | None,
    reasons: Callable[[ReasonKey], Reason],
    cause: Cause,
    moment: Moment,
    check_start: CheckStart,
) -> Next:
    """Return the mitigation that follows.

    Args:
        before: the mitigation so far.
        demand: what holding reasons want of it, if any.
        reasons: returns a reason of the demand.
        cause: why it is computed.
        moment: now.
        check_start: returns what limits say to a start.
    """
    old = before.record if before else None
    if old is not None and old.state == SUPPRESSED:
        return _suppressed(before, demand, cause, moment)
    if demand is None:
        return _ended(before, cause, moment)
    groups = _Groups(demand, old.approved if old and old.state != ENDED else None)
    chosen, state, held_by, checks = _decided(groups, old, check_start)
    hold = demand.latest(chosen.terms)
    return _Next(...)
