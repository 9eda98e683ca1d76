"""What the drain finds on disk, and what each find becomes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from fnm_bus.kafka.record import Record
from fnm_bus.ops.log import get_logger
from fnm_bus.relay.disk_errors import DiskErrors
from fnm_bus.relay.metrics import RelayMetrics
from fnm_bus.relay.pipeline import Pipeline
from fnm_bus.relay.preparation import Preparation, prepare
from fnm_bus.relay.topic_queue import PendingEntry
from fnm_bus.relay.trial import Task, Trial
from fnm_bus.spool.quarantine import Quarantine
from fnm_bus.spool.sequence import BootEpochs
from fnm_bus.spool.spool import Spool

log = get_logger(__name__)

LISTING: Final = "listing entries"
"""The task under which an unreadable spool is reported."""
LISTING_PART: Final = f"{LISTING} of a directory"
"""The same where only some of its directories are unreadable."""


@dataclass(frozen=True, slots=True)
class EntrySource:
    """Finds notifications and makes records of them.

    Attributes:
        spools: the spool, then the fallback spool.
        quarantine: whose dead letters are sent too.
        epochs: gives `sequence` its part above the kernel's ticks.
        pipeline: what an entry becomes.
        metrics: where drift and the like are counted.
        disk: errors of the disk that are retried.
        trial: reads suspect entries in a process of their own.
    """

    spools: Sequence[Spool]
    quarantine: Quarantine
    epochs: BootEpochs
    pipeline: Pipeline
    metrics: RelayMetrics
    disk: DiskErrors = field(init=False)
    trial: Trial = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "disk", DiskErrors(self.metrics.disk_errors))
        object.__setattr__(self, "trial", Trial(self.pipeline))

    def names(self) -> Iterator[tuple[str, Spool | None]]:
        """Yield what is there, in the order of the calls; None for a dead letter.

        What cannot be listed now is left out, and reported by `disk`.
        """
        found: list[tuple[str, Spool]] = []
        for spool in self.spools:
            with self.disk.caught(LISTING, spool.root):
                found += [(name, spool) for name in spool.scan()]
                with self.disk.caught(LISTING_PART, spool.root):
                    spool.check_readable()
        if len({id(spool) for _name, spool in found}) > 1:
            found.sort(key=lambda pair: self.epochs.sequence(pair[0]))
        yield from found
        unpublished: Sequence[str] = ()
        with self.disk.caught(LISTING, "of the quarantine"):
            unpublished = self.quarantine.unpublished()
        for name in unpublished:
            yield name, None

    @property
    def blind(self) -> bool:
        """Whether the last `names` could list nothing of any spool."""
        return all(self.disk.failing(LISTING, spool.root) for spool in self.spools)

    def record(
        self, item: PendingEntry, *, first: bool, suspect: bool
    ) -> Record | None:
        """Return the record of *item*; None when it is one of `hook check`.

        Args:
            item: an entry of a spool, or a dead letter of the quarantine.
            first: whether it was not read before: what is counted is counted then.
            suspect: whether reading it may have killed a process before.

        Raises:
            InvalidNotification: the document can never become an event.
            InvalidRecord: the event does not fit its schema.
            PoisonEntry: reading it kills a process.
            FileNotFoundError: it is gone.
            SpoolError: it cannot be read.
        """
        if item.source is None:
            letter = self.quarantine.read(item.name)
            return self.pipeline.dead_letter(
                letter.entry, letter.reason, letter.failed_at
            )
        ready = self._prepare(item, item.source, suspect=suspect)
        item.size, item.stored_at = ready.size, ready.stored_at
        if ready.record is None:
            self.metrics.checks.inc()
            return None
        if first:
            item.attack = ready.attack
            if item.source is not self.spools[0]:
                self.metrics.fallback_entries.inc()
            self.metrics.field_mismatches.inc(ready.mismatch_count)
            _log(item.name, ready)
        return ready.record

    def _prepare(
        self, item: PendingEntry, source: Spool, *, suspect: bool
    ) -> Preparation:
        place = self.epochs.sequence(item.name)
        if suspect:
            directory = str(source.path(item.name).parent)
            return self.trial.prepare(Task(directory, item.name, place, item.shrunk))
        return prepare(
            self.pipeline, source.read(item.name), place, without_samples=item.shrunk
        )

    def forget(self, item: PendingEntry) -> None:
        """Remove an entry, and before it what its hook left beside it.

        Of a dead letter, remove the note that it is to be sent.

        That is a second link of the entry, which the shell hook never removes, or a
        copy in the other spool where it was killed just then. To find them later would
        be to count as lost what was published.

        Raises:
            SpoolError: it cannot be removed.
        """
        if item.source is None:
            self.quarantine.mark_published(item.name)
            return
        for spool in self.spools:
            spool.remove_temporary(item.name)
        item.source.remove(item.name)


def _log(entry: str, ready: Preparation) -> None:
    """Log the first few mismatches: one document may hold thousands."""
    for mismatch in ready.mismatches:
        log.warning("field_mismatch", entry=entry, mismatch=mismatch)
    more = ready.mismatch_count - len(ready.mismatches)
    if more:
        log.warning("more_field_mismatches", entry=entry, mismatches=more)
