"""Look after the spool now and then: limits, left-overs, figures."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Final

from fnm_bus.drain import Drain
from fnm_bus.errors import SpoolError
from fnm_bus.limits import Depth, Limits, Refusal
from fnm_bus.metrics import RelayMetrics
from fnm_bus.quarantine import Quarantine
from fnm_bus.spool import Spool

log = logging.getLogger(__name__)

_CARE: Final = 2.0
"""Seconds between two rounds."""
_CLEAN: Final = 60.0
"""Seconds between two looks for what dead hooks left."""


@dataclass
class Keeper:
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

        Raises:
            SpoolError: a spool cannot be read any more.
        """
        now = monotonic()
        if now < self._care_at:
            return
        self._limit(self._measure()[0])
        self.drain.retry()
        self.drain.show()
        self.metrics.quarantine_files.set(self.quarantine.count())
        if now >= self._clean_at:
            self._clean()
            self._clean_at = now + _CLEAN
        # Measuring 100,000 files takes a while; it must not eat the relay's time.
        self._care_at = monotonic() + max(_CARE, 20 * (monotonic() - now))

    def _measure(self) -> list[Depth]:
        depths = [spool.size() for spool in self.spools]
        for spool, depth in zip(self.spools, depths, strict=True):
            label = str(spool.root)
            age = datetime.now(UTC) - (depth.oldest or datetime.now(UTC))
            self.metrics.spool_files.labels(label).set(depth.files)
            self.metrics.spool_bytes.labels(label).set(depth.bytes)
            self.metrics.oldest_age.labels(label).set(max(age.total_seconds(), 0))
        return depths

    def _limit(self, depth: Depth) -> None:
        thinning = self.limits.thinning(depth)
        if thinning != self.drain.thinning:
            log.warning(
                "%s status updates: files=%d bytes=%d",
                "thinning out" if thinning else "no longer thinning out",
                depth.files,
                depth.bytes,
            )
        self.drain.thinning = thinning
        if thinning:
            self.drain.thin()
        spool, refusal = self.spools[0], self.limits.refusal(depth)
        if refusal is not spool.refusal():
            log.warning("the spool refuses: %s", refusal or "nothing any more")
            spool.refuse(refusal)
        self.metrics.refusing.set(list(Refusal).index(refusal))

    def _clean(self) -> None:
        for spool in self.spools:
            for left in spool.clean():
                if any(it.path(left.name).exists() for it in self.spools):
                    continue  # a second link of what is stored, or a copy
                self.metrics.left.inc()
                log.warning(
                    "a hook died before it had stored: entry=%s size=%d", *left[:2]
                )
        self._set_aside()

    def _set_aside(self) -> None:
        """Move foreign files to the quarantine; report one that cannot be moved once.

        Such a file is a directory of another user or a mount point, for example.
        """
        immovable = set()
        for spool in self.spools:
            for odd in spool.odd():
                if odd.path in self._immovable:
                    immovable.add(odd.path)
                    continue
                self.metrics.odd_files.inc()
                log.warning("not an entry: path=%s %s", *odd)
                try:
                    log.warning("moved to %s", spool.set_aside(odd))
                except SpoolError as exc:
                    immovable.add(odd.path)
                    log.warning("not moved, remove it by hand: %s", exc)
        self._immovable = frozenset(immovable)
