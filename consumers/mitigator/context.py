"""Context: the policy, the settings and the time of a decision."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from consumers.policy.model import Policy


@dataclass(frozen=True, slots=True)
class DecisionContext:
    """The policy and settings behind every decision.

    Attributes:
        fastnetmon_ban_time: seconds; a ban's lease until its first status update.
        ended_retention: seconds for which ended mitigations and expired reasons are
            remembered.
    """

    policy: Policy
    dry_run: bool = True
    fastnetmon_ban_time: float = 1900.0
    ended_retention: float = 86_400.0

    @property
    def closed_retention(self) -> float:
        """Seconds for which a closed reason is remembered: no event is older."""
        limits = self.policy.limits
        return limits.max_event_age + limits.max_clock_skew + 60.0


class Moment(NamedTuple):
    """Now, on both clocks.

    Attributes:
        clock: seconds since boot, for leases.
        now: the broker's time, UTC, for records.
    """

    clock: float
    now: datetime
