"""Effect of an action on traffic, as security formats rank actions."""

from typing import Final, NamedTuple


class Effect(NamedTuple):
    """One action.

    Attributes:
        types: the values of ECS' `event.type`.
        severity: from 0, lowest, to 10 (CEF).
        outcome: success or failure of an enforcer, or "".
    """

    types: tuple[str, ...]
    severity: int
    outcome: str = ""


_BLOCKED: Final = Effect(("start", "denied"), 8)
_FREED: Final = Effect(("end", "allowed"), 3)
_EFFECTS: Final = {
    "ban": _BLOCKED,
    "partial_block": _BLOCKED,
    "unban": _FREED,
    "partial_unblock": _FREED,
    # Audit records, and states of mitigations.
    "in-force": _BLOCKED._replace(outcome="success"),
    "wanted": Effect(("start",), 6),
    "withdrawn": _FREED._replace(outcome="success"),
    "ended": Effect(("end",), 3),
    "failed": Effect(("info",), 9, "failure"),
    "proposed": Effect(("info",), 6),
    "refused": Effect(("info",), 6),
    "held": Effect(("info",), 6),
    "paused": Effect(("info",), 6),
}
_OTHER: Final = Effect(("info",), 3)


def effect_of(action: str) -> Effect:
    """Return the effect of FastNetMon's or the mitigator's word."""
    return _EFFECTS.get(action, _OTHER)
