"""Start limits: whether one more mitigation may start now."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as replace_frozen
from datetime import datetime
from typing import Final

from consumers.mitigation.measure import NOTIFY, Measure
from consumers.mitigation.states import WANTED
from consumers.mitigator.state.demand import Demand
from consumers.mitigator.state.next_record import ChangeCause
from consumers.mitigator.state.state import State
from consumers.policy import guardrails
from consumers.policy.guardrails import HOLD, PASS, ActiveCounts
from consumers.policy.model import Policy
from fnm_bus.event import Check, Mitigation

_MOST_RELIEVED: Final = 256
_SHARE_OF_EVENT: Final = 4
"""One event starts at most this part of `max_new_per_minute`."""


@dataclass(frozen=True, slots=True)
class StartLimits:
    """The limits at one moment.

    Attributes:
        policy: with the limits.
        state: what is active.
        now: the broker's time.
        starts: how many mitigations the same event started already.
    """

    policy: Policy
    state: State
    now: datetime
    starts: int

    def check(
        self,
        key: str,
        demand: Demand,
        cause: ChangeCause,
        *,
        dry_run: bool,
        fallback: bool,
    ) -> tuple[Check, ...]:
        """Return what limits say to a start.

        Args:
            key: of the mitigation.
            demand: what reasons want of it.
            cause: with the customer whose network is affected.
            dry_run: whether it is a dry run; they are counted apart.
            fallback: whether it only relieves a limit. Then the share of affected
                addresses alone can hold it.
        """
        counts = self._counts_without(self._stand_ins(key, demand), dry_run=dry_run)
        checks = self._check_limits(demand.measure, cause, counts)
        if fallback:
            checks = tuple(c for c in checks if c.code == "max_affected_share")
        return checks

    def _stand_ins(self, key: str, demand: Demand) -> list[Mitigation]:
        """Return the hostgroups' mitigations that end if a mitigation starts."""
        state = self.state
        if len(demand) > _MOST_RELIEVED:
            return []
        relieved: Counter[str] = Counter()
        for entry in (state.reasons[name] for name in demand):
            pairs = tuple(zip(entry.keys, entry.reason.wants, strict=True))
            own = (name for name, want in pairs if not want.fallback and name != key)
            if entry.fallback and not any(state.is_limited(name) for name in own):
                relieved.update(name for name, want in pairs if want.fallback)
        return [
            state.mitigations[name].record
            for name, count in relieved.items()
            if name in state.mitigations and count == len(state.demands[name])
        ]

    def _counts_without(
        self, ending: Sequence[Mitigation], *, dry_run: bool
    ) -> ActiveCounts:
        """Return what is active, without what ends at the same moment."""
        counts = self.state.active_counts(self.now, dry_run=dry_run)
        counted = [
            record
            for record in ending
            if record.state == WANTED
            and record.kind != NOTIFY
            and record.dry_run == dry_run
        ]
        customers = Counter(record.customer for record in counted)
        if not counted:
            return counts
        return replace_frozen(
            counts,
            active=counts.active - len(counted),
            by_customer={
                name: count - customers[name]
                for name, count in counts.by_customer.items()
            },
        )

    def _check_limits(
        self, measure: Measure, cause: ChangeCause, counts: ActiveCounts
    ) -> tuple[Check, ...]:
        policy = self.policy
        customer = next((c for c in policy.customers if c.name == cause.customer), None)
        checks = guardrails.check_limits(measure, counts, policy.limits, customer)
        if not checks:
            return ()
        most = max(policy.limits.max_new_per_minute // _SHARE_OF_EVENT, 1)
        share = Check(
            stage="limit",
            name="max_new_per_minute",
            code="max_new_per_event",
            verdict=PASS if self.starts < most else HOLD,
            text=f"{self.starts} of {most} that one event may start",
        )
        return (*checks, share)
