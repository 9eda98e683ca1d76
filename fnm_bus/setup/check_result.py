"""Finding: one thing that a check looked at."""

from typing import NamedTuple


class CheckResult(NamedTuple):
    """One thing that was looked at.

    Attributes:
        ok: whether it is as it should be.
        what: what was found, in words.
        remedy: what to do, or "".
    """

    ok: bool
    what: str
    remedy: str = ""
