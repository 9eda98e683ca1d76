"""Look after the spool now and then: limits, left-overs, figures."""

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

_CARE: Final = 2.0
"""Seconds between two rounds."""
_CLEAN: Final = 60.0
"""Seconds between two looks for what dead hooks left."""
_AT_ONCE: Final = 1_000
"""Foreign files that are moved in one round, which takes well under a second."""


@dataclass
class Housekeeping:
    """Keeps the spools in order while they are drained.

    Attributes:
        spools: the spool, then the fallback spool.
        quarantine: counted.
        drain: told when status updates have to be thinned out.
        limits: how full the first of the spools may get.
        metrics: what the figures are shown in.
    """

    spools: Sequence[Spool]
    quarantine: Quarantine
    drain: Drain
    limits: Limits
    metrics: RelayMetrics
    _care_at: float = 0.0
    _clean_at: float = 0.0
    _immovable: frozenset[Path] = field(default=frozenset())

    def found(self, files: int) -> None:
        """Note at once that there are too many *files*; `turn` says when no longer."""
        if files >= self.limits.soft_files:
            self.drain.thinning = True

    def turn(self) -> None:
        """Do what is due; nothing most of the times.

        What the disk refuses is tried again in the next round.
        """
        now = monotonic()
        if now < self._care_at:
            return
        disk = self.drain.disk
        depths = self._measure()
        with disk.caught("setting the spool's limits"):
            if depths:
                self._limit(depths[0])
        self.drain.show()  # before what was refused becomes due again
        self.drain.retry()
        with disk.caught("counting the quarantine"):
            self.metrics.quarantine_files.set(self.quarantine.count())
        if now >= self._clean_at:
            self._clean_at = now + _CLEAN
            self._clean()
        # Measuring 100,000 files takes a while; it must not eat the relay's time.
        self._care_at = monotonic() + max(_CARE, 20 * (monotonic() - now))

    def _measure(self) -> list[SpoolUsage]:
        """Return how full the spools are; nothing when the first cannot be read."""
        depths = []
        for spool in self.spools:
            with self.drain.disk.caught("measuring", spool.root):
                depth = spool.usage()
                self._show(str(spool.root), depth)
                depths.append(depth)
            if not depths:
                break
        return depths

    def _show(self, label: str, depth: SpoolUsage) -> None:
        age = datetime.now(UTC) - (depth.oldest or datetime.now(UTC))
        self.metrics.spool_files.labels(label).set(depth.files)
        self.metrics.spool_bytes.labels(label).set(depth.bytes)
        self.metrics.oldest_age.labels(label).set(max(age.total_seconds(), 0))

    def _limit(self, depth: SpoolUsage) -> None:
        thinning = self.limits.coalesces_status(depth)
        if thinning != self.drain.thinning:
            log.warning(
                "status_updates_coalesced" if thinning else "status_updates_complete",
                files=depth.files,
                bytes=depth.bytes,
            )
        self.drain.thinning = thinning
        if thinning:
            self.drain.thin()
        spool, refusal = self.spools[0], self.limits.refusal(depth)
        if refusal is not spool.refusal():
            log.warning("spool_admission_changed", refused=refusal or "nothing")
            spool.refuse(refusal)
        self.metrics.admission_level.set(list(AdmissionLevel).index(refusal))

    def _clean(self) -> None:
        for spool in self.spools:
            with self.drain.disk.caught("sweeping", spool.root):
                for left in spool.remove_orphans():
                    if any(it.path(left.name).exists() for it in self.spools):
                        continue  # a second link of what is stored, or a copy
                    self.metrics.orphaned_entries.inc()
                    log.warning("hook_died", entry=left.name, size=left.size)
        self._set_aside()

    def _set_aside(self) -> None:
        """Move foreign files to the quarantine; report one that cannot be moved once.

        Such a file is a directory of another user or a mount point, for example.
        """
        immovable: set[Path] = set()
        moved = 0
        for spool in self.spools:
            with self.drain.disk.caught("looking for foreign files", spool.root):
                for odd in spool.foreign_files():
                    if moved == _AT_ONCE:
                        self._clean_at = 0.0  # the rest follows in the next round
                        break
                    moved += self._move(spool, odd, immovable)
        self._immovable = frozenset(immovable)

    def _move(self, spool: Spool, odd: ForeignFile, immovable: set[Path]) -> bool:
        """Move *odd*, or add it to *immovable*; return whether anything was tried."""
        if odd.path in self._immovable:
            immovable.add(odd.path)
            return False
        self.metrics.foreign_files.inc()
        try:
            moved_to = spool.quarantine_foreign(odd)
            log.warning("foreign_file_moved", **odd._asdict(), moved_to=moved_to)
        except SpoolError as exc:
            immovable.add(odd.path)
            log.warning(
                "foreign_file_not_moved", **odd._asdict(), error=exc, remedy="remove it"
            )
        return True
