"""The words of mitigation records: states, kinds of records, reasons of an end."""

from typing import Final

PROPOSED: Final = "proposed"
WANTED: Final = "wanted"
SUPPRESSED: Final = "suppressed"
ENDED: Final = "ended"

PAUSE: Final = "pause"
"""Kind and key of the record that masks every mitigation while its state is WANTED."""

UNBAN: Final = "unban"
LEASE: Final = "lease"
OPERATOR: Final = "operator"
POLICY: Final = "policy"
GUARDRAIL: Final = "guardrail"
SUPERSEDED: Final = "superseded"
"""Values of `ended_because`: its last reason was closed by an unban, expired, was a
person's decision, is no longer wanted by the policy, is refused by a guardrail now, or
wants another measure instead."""
