"""The result of one check."""

from typing import NamedTuple


class CheckResult(NamedTuple):
    """The result of one check.

    Attributes:
        ok: whether the check passed.
        text: the finding, in words.
        remedy: the repair, or "".
    """

    ok: bool
    text: str
    remedy: str = ""
