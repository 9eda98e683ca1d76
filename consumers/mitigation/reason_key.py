"""Keys of reasons and mitigations."""

import json
from typing import Final, NamedTuple

from fnm_bus.event import Reason

ATTACK: Final = "attack"
"""Part of bans, unbans and status updates."""
OPERATOR: Final = "operator"
"""Scope and part of a person's command."""
MAX_KEY_BYTES: Final = 2_000


class ReasonKey(NamedTuple):
    """The key of a reason. Sequences compare within one key only.

    Attributes:
        sensor: sensor that reported the attack; empty for a person's command.
        scope: host, hostgroup, or OPERATOR.
        target: address, hostgroup's name, or the mitigation of a person's command.
        part: ATTACK, the identity of a Flow Spec rule, or OPERATOR.
    """

    sensor: str
    scope: str
    target: str
    part: str

    def encode(self) -> bytes:
        """Return the key of the reason's record: a JSON array without blanks."""
        text = json.dumps([*self], ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "surrogatepass")


def key_of_reason(reason: Reason) -> ReasonKey:
    """Return the key of a reason."""
    return ReasonKey(reason.sensor, reason.scope, reason.target, reason.part)


def mitigation_key(measure_key: str, place: str) -> str:
    """Return the key of a mitigation: a measure's key, and its place unless empty."""
    return f"{measure_key}|{place}" if place else measure_key
