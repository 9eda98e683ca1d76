"""Limits: how full the spool may get, and what it refuses then."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class AdmissionLevel(StrEnum):
    """What the spool refuses; the word that the hook finds in the file `full`."""

    NOTHING = ""
    STATUS = "status"
    ALL = "all"


class SpoolUsage(NamedTuple):
    """How much waits in a spool.

    Attributes:
        files: entries.
        bytes: their size together.
        oldest: when the one that waits longest was stored (UTC); None without any.
    """

    files: int
    bytes: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class Limits:
    """How full a spool may get.

    Attributes:
        soft_files: from here on status updates are thinned out.
        soft_bytes: likewise.
        hard_files: from here on everything is refused.
        hard_bytes: likewise.
        reserve: share of the hard limits, 0 to 1, that status updates may not use.
    """

    soft_files: int = 20_000
    soft_bytes: int = 512 * 1024 * 1024
    hard_files: int = 200_000
    hard_bytes: int = 4 * 1024 * 1024 * 1024
    reserve: float = 0.25

    def thinning(self, depth: SpoolUsage) -> bool:
        """Return whether only the newest status of each attack is to be published."""
        return depth.files >= self.soft_files or depth.bytes >= self.soft_bytes

    def refusal(self, depth: SpoolUsage) -> AdmissionLevel:
        """Return what must be refused when *depth* waits."""
        if depth.files >= self.hard_files or depth.bytes >= self.hard_bytes:
            return AdmissionLevel.ALL
        share = 1 - self.reserve
        if (
            depth.files >= self.hard_files * share
            or depth.bytes >= self.hard_bytes * share
        ):
            return AdmissionLevel.STATUS
        return AdmissionLevel.NOTHING
