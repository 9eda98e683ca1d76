"""The names of the enforcers, as policies, commands and audit records use them."""

from typing import Final

EXABGP: Final = "exabgp"
NFTABLES: Final = "nftables"


def known_enforcers() -> tuple[str, ...]:
    """Return the names of all enforcers, sorted."""
    return (EXABGP, NFTABLES)
