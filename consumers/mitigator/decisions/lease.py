"""The lease of a reason: the time that it holds unless it is renewed."""

from consumers.mitigator.context import DecisionContext
from consumers.mitigator.state.wants import action_of
from fnm_bus.event import Reason


def lease_of(
    context: DecisionContext, reason: Reason, *, renewed: bool, fallback: bool = False
) -> float:
    """Return the lease that a reason gets now, in seconds.

    It is the rule's lease, and at least FastNetMon's ban time unless *renewed*.

    Args:
        context: the policy and FastNetMon's ban time.
        reason: its rule has the lease.
        renewed: whether status updates renew the reason. Before an attack's first one
            they may be disabled, and FastNetMon is not known to send any about Flow
            Spec rules.
        fallback: whether the lease is for the hostgroup's action that relieves a limit.
    """
    action = action_of(context.policy, reason, fallback=fallback)
    lease = action.lease if action else reason.lease_ms / 1000
    return lease if renewed else max(lease, context.fastnetmon_ban_time)
