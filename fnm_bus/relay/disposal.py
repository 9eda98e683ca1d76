"""Remove published entries from disk, and move refused ones to the quarantine."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from fnm_bus.errors import SpoolError
from fnm_bus.ops.log import get_logger
from fnm_bus.relay.source import EntrySource
from fnm_bus.relay.topic_queue import PendingEntry

log = get_logger(__name__)

_MAX_REMEMBERED: Final = 1000
"""Reasons of quarantined documents: a relay runs for months."""


class _Refused(NamedTuple):
    """An entry for the quarantine: the arguments of `EntryDisposal.quarantine`."""

    entry: PendingEntry
    reason: Mapping[str, str]
    with_dead_letter: bool


class EntryDisposal:
    """Removes and quarantines entries; keeps those for which the disk has an error.

    Args:
        source: removes the entries, and has the quarantine.
        on_removed: called with each entry that is no longer on disk.
        on_quarantined: called with the name of each entry whose dead letter is due.

    Attributes:
        quarantined: name → reason of the latest quarantined documents, for `notify`.
    """

    def __init__(
        self,
        source: EntrySource,
        on_removed: Callable[[PendingEntry], None],
        on_quarantined: Callable[[str], None],
    ) -> None:
        self._source = source
        self._metrics = source.metrics
        self._on_removed = on_removed
        self._on_quarantined = on_quarantined
        self._to_remove: deque[PendingEntry] = deque()
        self._to_quarantine: deque[_Refused] = deque()
        self._unremoved: list[PendingEntry] = []
        self._quarantine_full: deque[_Refused] = deque()
        self.quarantined: dict[str, Mapping[str, str]] = {}

    @property
    def has_work(self) -> bool:
        """Whether `work` has an entry to remove or to quarantine."""
        return bool(self._to_remove or self._to_quarantine)

    @property
    def unremoved_count(self) -> int:
        """Number of entries that could not be removed."""
        return len(self._unremoved)

    def remove_later(self, entries: Iterable[PendingEntry]) -> None:
        """Let the next calls of `work` remove entries."""
        self._to_remove.extend(entries)

    def work(self, may_start: Callable[[], bool]) -> None:
        """Remove and quarantine due entries, one for each True of *may_start*."""
        while self._to_remove and may_start():
            self.remove(self._to_remove.popleft())
        while self._to_quarantine and may_start():
            refused = self._to_quarantine.popleft()
            self.quarantine(
                refused.entry, refused.reason, with_dead_letter=refused.with_dead_letter
            )

    def retry(self, limit: int) -> None:
        """Let the next calls of `work` try again after a disk error.

        At most *limit* entries for a full quarantine are due at a time. Otherwise each
        retry could read thousands of entries.
        """
        count = min(len(self._quarantine_full), limit - len(self._to_quarantine))
        for _ in range(count):
            self._to_quarantine.append(self._quarantine_full.popleft())
        self._to_remove.extend(self._unremoved)
        self._unremoved.clear()

    def update_metrics(self) -> None:
        """Set the gauge of entries that wait for room in the quarantine."""
        self._metrics.quarantine_full.set(len(self._quarantine_full))

    def remove(self, entry: PendingEntry) -> None:
        """Remove a published or quarantined entry, or a published dead letter."""
        try:
            self._source.remove(entry)
        except SpoolError as exc:
            # A process that ended here would publish the entry again at each start.
            self.log_disk_error("removing an entry", entry, exc)
            self._unremoved.append(entry)
        else:
            self._on_removed(entry)

    def quarantine(
        self,
        entry: PendingEntry,
        reason: Mapping[str, str],
        *,
        with_dead_letter: bool = True,
    ) -> None:
        """Move *entry* to the quarantine; its dead letter follows unless disabled."""
        if entry.spool is None:
            # Kafka refuses the dead letter; the quarantine has the document.
            log.error("dead_letter_refused", entry=entry.name, **reason)
            self.remove(entry)
            return
        try:
            document = entry.spool.read(entry.name)
            self._source.quarantine.put(
                document, reason, published=not with_dead_letter
            )
        except FileNotFoundError:
            self._on_removed(entry)
            return
        except SpoolError as exc:
            self.log_disk_error("writing to the quarantine", entry, exc)
            self._quarantine_full.append(_Refused(entry, reason, with_dead_letter))
            return
        self.remove(entry)
        label = "refused" if with_dead_letter else "truncated"
        self._metrics.quarantined.labels(label).inc()
        log.warning("quarantined", entry=entry.name, **reason)
        if with_dead_letter:
            self.quarantined[entry.name] = reason
            if len(self.quarantined) > _MAX_REMEMBERED:
                del self.quarantined[next(iter(self.quarantined))]
            self._on_quarantined(entry.name)

    def log_disk_error(self, task: str, entry: PendingEntry, error: SpoolError) -> None:
        """Count a disk error, and log it unless it was the entry's last one."""
        self._metrics.disk_errors.labels(task).inc()
        if entry.disk_error != str(error):
            entry.disk_error = str(error)
            log.warning(
                "disk_error", task=task, entry=entry.name, error=error, retried=True
            )
