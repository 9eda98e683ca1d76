"""Start limits: whether a mitigation may start now."""

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

_MAX_RELIEVED: Final = 256
"""Reasons whose hostgroup mitigations are searched for one that would end."""
_SHARE_OF_EVENT: Final = 4
"""One event starts at most this fraction of `max_new_per_minute`: a quarter."""


@dataclass(frozen=True, slots=True)
class StartLimits:
    """The limits at one moment.

    Attributes:
        now: the broker's time.
        starts: number of mitigations that the same event has started.
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
        """Return the checks of the limits for a start.

        Args:
            key: of the mitigation.
            demand: the wants of its reasons.
            cause: with the owner of the affected network.
            dry_run: whether it is a dry run; dry runs are counted separately.
            fallback: whether it only relieves a limit. Then only the share of affected
                addresses can hold it.
        """
        counts = self._counts_without(
            self._ending_fallbacks(key, demand), dry_run=dry_run
        )
        checks = self._check_limits(demand.measure, cause, counts)
        if fallback:
            checks = tuple(
                check for check in checks if check.code == "max_affected_share"
            )
        return checks

    def _ending_fallbacks(self, key: str, demand: Demand) -> list[Mitigation]:
        """Return the hostgroups' mitigations that end if a mitigation starts."""
        state = self.state
        if len(demand) > _MAX_RELIEVED:
            return []
        relieved: Counter[str] = Counter()
        for entry in (state.reasons[reason_key] for reason_key in demand):
            wants = tuple(zip(entry.keys, entry.reason.wants, strict=True))
            others = [name for name, want in wants if not want.fallback and name != key]
            if entry.fallback and not any(map(state.is_limited, others)):
                relieved.update(name for name, want in wants if want.fallback)
        return [
            state.mitigations[fallback].record
            for fallback, count in relieved.items()
            if fallback in state.mitigations and count == len(state.demands[fallback])
        ]

    def _counts_without(
        self, ending: Sequence[Mitigation], *, dry_run: bool
    ) -> ActiveCounts:
        """Return the active counts without the mitigations that end now."""
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
        checks = check_limits(self.policy, measure, cause.customer, counts)
        if not checks:
            return ()
        limit = max(self.policy.limits.max_new_per_minute // _SHARE_OF_EVENT, 1)
        share = Check(
            stage="limit",
            name="max_new_per_minute",
            code="max_new_per_event",
            verdict=PASS if self.starts < limit else HOLD,
            text=f"{self.starts} of {limit} that one event may start",
        )
        return (*checks, share)


def check_limits(
    policy: Policy, measure: Measure, customer_name: str | None, counts: ActiveCounts
) -> tuple[Check, ...]:
    """Return the checks of a policy's limits for one more measure."""
    owners = (owner for owner in policy.customers if owner.name == customer_name)
    return guardrails.check_limits(measure, counts, policy.limits, next(owners, None))
