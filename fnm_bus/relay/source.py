"""List the entries on disk, and make a record of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from fnm_bus.kafka.record import Record
from fnm_bus.ops.log import get_logger
from fnm_bus.relay.disk_errors import DiskErrors
from fnm_bus.relay.isolation.parent import IsolatedPreparation
from fnm_bus.relay.isolation.protocol import Task
from fnm_bus.relay.metrics import RelayMetrics
from fnm_bus.relay.pipeline import Pipeline
from fnm_bus.relay.preparation import Preparation, prepare
from fnm_bus.relay.topic_queue import PendingEntry
from fnm_bus.spool.quarantine import Quarantine
from fnm_bus.spool.sequence import BootEpochs
from fnm_bus.spool.spool import Spool

log = get_logger(__name__)

LISTING: Final = "listing entries"
"""Task of the error about an unreadable spool."""
LISTING_PART: Final = f"{LISTING} of a directory"
_SAVING_EPOCHS: Final = "writing state/epochs.json"
"""Task of the error about a few unreadable directories of a spool."""


@dataclass(frozen=True, slots=True)
class EntrySource:
    """Lists entries and makes records of them.

    Attributes:
        spools: the spool, then the fallback spool.
        quarantine: contains the documents of unpublished dead letters.
        epochs: the upper part of a `sequence`, above the kernel's ticks.
        pipeline: makes the record of an entry.
        metrics: count mismatches and other properties of entries.
        disk_errors: errors of the disk that are retried.
        isolated: reads suspect entries in a child process.
    """

    spools: Sequence[Spool]
    quarantine: Quarantine
    epochs: BootEpochs
    pipeline: Pipeline
    metrics: RelayMetrics
    disk_errors: DiskErrors = field(init=False)
    isolated: IsolatedPreparation = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "disk_errors", DiskErrors(self.metrics.disk_errors))
        object.__setattr__(self, "isolated", IsolatedPreparation(self.pipeline))

    def list_entries(self) -> Iterator[tuple[str, Spool | None]]:
        """Yield name and spool of each entry, in the order of the calls.

        An unpublished dead letter has None instead of a spool. Directories that cannot
        be listed are skipped; `disk_errors` has the reason.
        """
        entries: list[tuple[str, Spool]] = []
        for spool in self.spools:
            with self.disk_errors.catch(LISTING, spool.root):
                entries += [(name, spool) for name in spool.scan()]
                with self.disk_errors.catch(LISTING_PART, spool.root):
                    spool.check_readable()
        # The entries are in order; the order after the next boot depends on this file.
        if self.epochs.write_error:
            self.disk_errors.add(_SAVING_EPOCHS, self.epochs.write_error)
        else:
            self.disk_errors.clear(_SAVING_EPOCHS)
        if len({id(spool) for _name, spool in entries}) > 1:
            entries.sort(key=lambda pair: self.epochs.sequence(pair[0]))
        yield from entries
        dead_letters: Sequence[str] = ()
        with self.disk_errors.catch(LISTING, "of the quarantine"):
            dead_letters = self.quarantine.unpublished()
        for name in dead_letters:
            yield name, None

    @property
    def is_unreadable(self) -> bool:
        """Whether the last `list_entries` could list no spool at all."""
        return all(
            self.disk_errors.is_failing(LISTING, spool.root) for spool in self.spools
        )

    def make_record(
        self, entry: PendingEntry, *, first: bool, suspect: bool
    ) -> Record | None:
        """Return the record of *entry*; None for an entry of `hook check`.

        Args:
            entry: an entry of a spool, or a dead letter of the quarantine.
            first: whether this is the first call for *entry*; only that is counted.
            suspect: whether reading it may have killed a process before.

        Raises:
            InvalidNotification: the document can never become an event.
            InvalidRecord: the event does not fit its schema.
            PoisonEntry: reading it kills a process.
            FileNotFoundError: it does not exist.
            SpoolError: it is unreadable.
        """
        if entry.spool is None:
            quarantined = self.quarantine.read(entry.name)
            return self.pipeline.dead_letter(
                quarantined.entry, quarantined.reason, quarantined.failed_at
            )
        preparation = self._prepare(entry, entry.spool, suspect=suspect)
        entry.size, entry.stored_at = preparation.size, preparation.stored_at
        if preparation.record is None:
            self.metrics.checks.inc()
            return None
        if first:
            entry.attack = preparation.attack
            if entry.spool is not self.spools[0]:
                self.metrics.fallback_entries.inc()
            self.metrics.field_mismatches.inc(preparation.mismatch_count)
            _log_mismatches(entry.name, preparation)
        return preparation.record

    def _prepare(
        self, entry: PendingEntry, spool: Spool, *, suspect: bool
    ) -> Preparation:
        number = self.epochs.sequence(entry.name)
        if suspect:
            directory = str(spool.path(entry.name).parent)
            task = Task(directory, entry.name, number, entry.without_samples)
            return self.isolated.prepare(task)
        return prepare(
            self.pipeline,
            spool.read(entry.name),
            number,
            without_samples=entry.without_samples,
        )

    def remove(self, entry: PendingEntry) -> None:
        """Remove an entry; of a dead letter, remove the marker that it is unpublished.

        Raises:
            SpoolError: the removal failed.
        """
        if entry.spool is None:
            self.quarantine.mark_published(entry.name)
            return
        entry.spool.remove(entry.name)


def _log_mismatches(name: str, preparation: Preparation) -> None:
    """Log the first few mismatches: one document may have thousands."""
    for mismatch in preparation.mismatches:
        log.warning("field_mismatch", entry=name, mismatch=mismatch)
    more = preparation.mismatch_count - len(preparation.mismatches)
    if more:
        log.warning("more_field_mismatches", entry=name, mismatches=more)
