"""What the drain finds on disk, and what each find becomes."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from fnm_bus.aside import Drift
from fnm_bus.gate import Item
from fnm_bus.metrics import RelayMetrics
from fnm_bus.order import Epochs, sequence
from fnm_bus.pipeline import Pipeline, attack_of
from fnm_bus.quarantine import Quarantine
from fnm_bus.record import Record
from fnm_bus.spool import Spool

log = logging.getLogger(__name__)

_SHOWN: Final = 5
"""Mismatches of one document that are logged one by one."""


@dataclass(frozen=True, slots=True)
class Intake:
    """Finds notifications and makes records of them.

    Attributes:
        spools: the spool, then the fallback spool.
        quarantine: whose dead letters are sent too.
        epochs: gives `sequence` its part above the kernel's ticks.
        pipeline: what an entry becomes.
        metrics: where drift and the like are counted.
    """

    spools: Sequence[Spool]
    quarantine: Quarantine
    epochs: Epochs
    pipeline: Pipeline
    metrics: RelayMetrics

    def names(self) -> Iterator[tuple[str, Spool | None]]:
        """Yield what is there, in the order of the calls; None for a dead letter.

        Raises:
            SpoolError: a spool cannot be read.
        """
        found = [(name, spool) for spool in self.spools for name in spool.scan()]
        if len({id(spool) for _name, spool in found}) > 1:
            found.sort(key=lambda pair: self.epochs.order(pair[0]))
        yield from found
        for name in self.quarantine.untold():
            yield name, None

    def record(self, item: Item, *, first: bool) -> Record | None:
        """Return the record of *item*; None when it is one of `hook check`.

        *first* says that the item was not read before: what is counted is counted then.

        Raises:
            InvalidNotification: the document can never become an event.
            InvalidRecord: the event does not fit its schema.
            FileNotFoundError: it is gone.
            SpoolError: it cannot be read.
        """
        if item.source is None:
            letter = self.quarantine.read(item.name)
            return self.pipeline.dead_letter(
                letter.entry, letter.reason, letter.failed_at
            )
        entry = item.source.read(item.name)
        item.size = entry.size
        item.stored_at = entry.stored_at.timestamp()
        if entry.is_check:
            self.metrics.checks.inc()
            return None
        prepared = self.pipeline.prepare(entry, sequence(item.name, self.epochs))
        if first:
            item.attack = attack_of(prepared.event)
            if item.source is not self.spools[0]:
                self.metrics.from_fallback.inc()
            self.metrics.drifted.inc(len(prepared.drift))
            _log(item.name, prepared.drift)
        if item.shrunk:
            return self.pipeline.without_samples(prepared.event)
        return prepared.record

    def forget(self, item: Item) -> None:
        """Remove an entry, and before it what its hook left beside it.

        That is a second link of the entry, which the shell hook never removes, or a
        copy in the other spool where it was killed just then. To find them later would
        be to count as lost what was published.

        Raises:
            SpoolError: the entry cannot be removed.
        """
        if item.source is None:
            return
        for spool in self.spools:
            spool.forget_temporary(item.name)
        item.source.remove(item.name)


def _log(entry: str, drift: Sequence[Drift]) -> None:
    """Log the first few of *drift*: one document may hold thousands."""
    for mismatch in drift[:_SHOWN]:
        log.warning("entry=%s %s", entry, mismatch)
    if len(drift) > _SHOWN:
        log.warning("entry=%s and %d more mismatches", entry, len(drift) - _SHOWN)
