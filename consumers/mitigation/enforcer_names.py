"""The names of the enforcers, as policies, commands and audit records use them."""

from typing import Final

EXABGP: Final = "exabgp"
NFTABLES: Final = "nftables"


ENFORCERS: Final = (EXABGP, NFTABLES)
"""The names of all enforcers, sorted."""
