"""Regular work beside a drain: limits, cleanup and gauges."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Final

from fnm_bus.errors import SpoolError
from fnm_bus.ops.log import get_logger
from fnm_bus.relay.drain import Drain
from fnm_bus.relay.metrics import RelayMetrics
from fnm_bus.spool.limits import AdmissionLevel, Limits, SpoolUsage
from fnm_bus.spool.quarantine import Quarantine
from fnm_bus.spool.spool import ForeignFile, Spool

log = get_logger(__name__)

_INTERVAL: Final = 2.0
"""Seconds between two runs."""
_CLEANUP_INTERVAL: Final = 60.0
"""Seconds between two cleanups of the spool."""
_MAX_MOVES: Final = 1_000
"""Foreign files that one run moves, which takes well under a second."""


@dataclass
class Housekeeping:
    """Keeps the spools in order while they are drained.

    Attributes:
        spools: the spool, then the fallback spool.
        quarantine: its entries are counted.
        drain: replaces status updates above the soft limit.
        limits: of the first spool.
        metrics: the relay's metrics.
    """

    spools: Sequence[Spool]
    quarantine: Quarantine
    drain: Drain
    limits: Limits
    metrics: RelayMetrics
    _next_run: float = 0.0
    _next_cleanup: float = 0.0
    _immovable: frozenset[Path] = field(default=frozenset())

    def check_entry_count(self, files: int) -> None:
        """Coalesce status updates from the soft limit on; `run_if_due` ends it."""
        if files >= self.limits.soft_files:
            self.drain.is_coalescing = True

    def run_if_due(self) -> None:
        """Do the regular work if its interval is over; retry after disk errors."""
        now = monotonic()
        if now < self._next_run:
            return
        disk_errors = self.drain.disk_errors
        usages = self._measure()
        with disk_errors.catch("setting the spool's limits"):
            if usages:
                self._enforce_limits(usages[0])
        self.drain.update_metrics()  # before the retry changes the counts
        self.drain.retry_blocked()
        with disk_errors.catch("counting the quarantine"):
            self.metrics.quarantine_files.set(self.quarantine.count())
        if now >= self._next_cleanup:
            self._next_cleanup = now + _CLEANUP_INTERVAL
            self._clean_up()
        # To measure 100,000 files is slow and must not take all of the relay's time.
        self._next_run = monotonic() + max(_INTERVAL, 20 * (monotonic() - now))

    def _measure(self) -> list[SpoolUsage]:
        """Return the spools' usage; an empty list if the first one is unreadable."""
        usages = []
        for spool in self.spools:
            with self.drain.disk_errors.catch("measuring", spool.root):
                usage = spool.usage()
                self._set_gauges(str(spool.root), usage)
                usages.append(usage)
            if not usages:
                break
        return usages

    def _set_gauges(self, label: str, usage: SpoolUsage) -> None:
        age = datetime.now(UTC) - (usage.oldest or datetime.now(UTC))
        self.metrics.spool_files.labels(label).set(usage.files)
        self.metrics.spool_bytes.labels(label).set(usage.bytes)
        self.metrics.oldest_age.labels(label).set(max(age.total_seconds(), 0))

    def _enforce_limits(self, usage: SpoolUsage) -> None:
        is_coalescing = self.limits.coalesces_status(usage)
        if is_coalescing != self.drain.is_coalescing:
            log.warning(
                "status_updates_coalesced"
                if is_coalescing
                else "status_updates_complete",
                files=usage.files,
                bytes=usage.bytes,
            )
        self.drain.is_coalescing = is_coalescing
        if is_coalescing:
            self.drain.coalesce_status()
        spool, level = self.spools[0], self.limits.refusal(usage)
        if level is not spool.refusal():
            log.warning("spool_admission_changed", refused=level or "nothing")
            spool.refuse(level)
        self.metrics.admission_level.set(list(AdmissionLevel).index(level))

    def _clean_up(self) -> None:
        for spool in self.spools:
            with self.drain.disk_errors.catch("cleaning up", spool.root):
                for orphan in spool.remove_orphans():
                    if any(other.path(orphan.name).exists() for other in self.spools):
                        continue  # a copy of a stored entry
                    self.metrics.orphaned_entries.inc()
                    log.warning("hook_died", entry=orphan.name, size=orphan.size)
        self._move_foreign_files()

    def _move_foreign_files(self) -> None:
        """Move foreign files to the quarantine; log each immovable one once.

        Examples of immovable files: a directory of another user, a mount point.
        """
        immovable: set[Path] = set()
        moved = 0
        for spool in self.spools:
            task = "looking for foreign files"
            with self.drain.disk_errors.catch(task, spool.root):
                for foreign in spool.foreign_files():
                    if moved == _MAX_MOVES:
                        self._next_cleanup = 0.0  # the next run moves the rest
                        break
                    moved += self._move(spool, foreign, immovable)
        self._immovable = frozenset(immovable)

    def _move(self, spool: Spool, foreign: ForeignFile, immovable: set[Path]) -> bool:
        """Move a file, or add it to *immovable*; return whether a move was tried."""
        if foreign.path in self._immovable:
            immovable.add(foreign.path)
            return False
        self.metrics.foreign_files.inc()
        try:
            moved_to = spool.quarantine_foreign(foreign)
            log.warning("foreign_file_moved", **foreign._asdict(), moved_to=moved_to)
        except SpoolError as exc:
            immovable.add(foreign.path)
            log.warning(
                "foreign_file_not_moved",
                **foreign._asdict(),
                error=exc,
                remedy="remove it",
            )
        return True
