"""The words of mitigation records: states, kinds of records, and why something ended."""

from typing import Final

PROPOSED: Final = "proposed"
WANTED: Final = "wanted"
SUPPRESSED: Final = "suppressed"
ENDED: Final = "ended"

PAUSE: Final = "pause"
"""Kind and key of the record that masks every mitigation while its state is WANTED."""
