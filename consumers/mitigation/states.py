"""The words of mitigation records: states, kinds of records, reasons of an end."""

from typing import Final

PROPOSED: Final = "proposed"
WANTED: Final = "wanted"
SUPPRESSED: Final = "suppressed"
ENDED: Final = "ended"

PAUSE: Final = "pause"
"""Kind and key of the record that masks all mitigations while its state is WANTED."""

UNBAN: Final = "unban"
LEASE: Final = "lease"
OPERATOR: Final = "operator"
POLICY: Final = "policy"
GUARDRAIL: Final = "guardrail"
SUPERSEDED: Final = "superseded"
"""Values of `ended_because`. The last reason was closed by an unban, expired, or wants
another measure; a person, the policy or a guardrail ended the mitigation."""
