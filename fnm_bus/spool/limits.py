"""Limits: how full the spool may get, and which notifications it then refuses."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class AdmissionLevel(StrEnum):
    """The notifications that the spool refuses; the word in the file `full`."""

    NOTHING = ""
    STATUS = "status"
    ALL = "all"


class SpoolUsage(NamedTuple):
    """The number and size of a spool's entries.

    Attributes:
        files: number of entries.
        bytes: their total size.
        oldest: time at which the oldest entry was stored (UTC); None without entries.
    """

    files: int
    bytes: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class Limits:
    """How full a spool may get.

    Attributes:
        soft_files: from this number of entries on, status updates are coalesced.
        soft_bytes: from this total size on, status updates are coalesced.
        hard_files: from this number of entries on, every notification is refused.
        hard_bytes: from this total size on, every notification is refused.
        reserve: share of the hard limits, 0 to 1, that status updates may not use.
    """

    soft_files: int = 20_000
    soft_bytes: int = 512 * 1024 * 1024
    hard_files: int = 200_000
    hard_bytes: int = 4 * 1024 * 1024 * 1024
    reserve: float = 0.25

    def coalesces_status(self, usage: SpoolUsage) -> bool:
        """Return whether only the newest status of each attack is to be published."""
        return usage.files >= self.soft_files or usage.bytes >= self.soft_bytes

    def refusal(self, usage: SpoolUsage) -> AdmissionLevel:
        """Return the notifications that a spool of this usage must refuse."""
        if self._exceeded(usage, 1):
            return AdmissionLevel.ALL
        if self._exceeded(usage, 1 - self.reserve):
            return AdmissionLevel.STATUS
        return AdmissionLevel.NOTHING

    def _exceeded(self, usage: SpoolUsage, share: float) -> bool:
        return (
            usage.files >= self.hard_files * share
            or usage.bytes >= self.hard_bytes * share
        )
