"""Make one system match the wanted state: save, list, compare, correct, report.

The snapshot is written before the system is changed. Until the topic was read to its
end, only measures that have certainly ended are withdrawn, unless an operator pauses.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from time import time
from typing import Final

from consumers.enforcers import snapshot
from consumers.enforcers.audit_publisher import AuditPublisher
from consumers.enforcers.backend import Backend, BackendError, DesiredMeasure
from consumers.enforcers.diff import Diff, compare
from consumers.enforcers.snapshot import Lease, Snapshot, SnapshotError
from consumers.metrics import EnforcerMetrics
from consumers.mitigation.measure import Measure
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_BATCH: Final = 1000
"""Measures to announce between two checks for a pause command."""
_END_TOLERANCE: Final = 0.5
"""Seconds by which a lease's end may change without a new snapshot."""


class Reconciler:
    """Makes one system match the wanted state.

    Args:
        is_paused: returns whether an operator has paused; called between two batches.

    Attributes:
        saved: the snapshot on disk.
        in_force: key → measure, as the system listed them last.
    """

    def __init__(
        self,
        backend: Backend,
        path: Path,
        audit: AuditPublisher,
        metrics: EnforcerMetrics,
        is_paused: Callable[[], bool],
    ) -> None:
        self.saved = Snapshot({})
        self.in_force: Mapping[str, Measure] = {}
        self._backend = backend
        self._path = path
        self._audit = audit
        self._metrics = metrics
        self._is_paused = is_paused
        self._owned: dict[str, Measure] = {}
        self._unsupported: Mapping[str, str] = {}
        self._reported_error = ""

    def restore(self) -> Snapshot | None:
        """Return the snapshot on disk, or None, and treat its measures as owned."""
        try:
            saved = snapshot.load(self._path)
        except SnapshotError as exc:
            log.error("snapshot_ignored", error=exc)  # noqa: TRY400 - it has the reason
            return None
        if saved is not None:
            self.saved = saved
            self._owned = {key: lease.measure for key, lease in saved.leases.items()}
        return saved

    def reconcile(self, wanted: Snapshot, now: float, *, synced: bool) -> bool:
        """Make the system match; return whether everything succeeded.

        Args:
            wanted: the wanted leases and the pause command.
            now: the time on `clock.now`.
            synced: whether to withdraw everything else.
        """
        leases = wanted.leases
        save_error = self._save(wanted)
        errors = [save_error] if save_error else []
        announced = {} if save_error else leases
        errors += self._apply_changes(announced, leases, now, synced)
        try:
            active = self._backend.active()
            diff = compare(leases, active, self._backend.form, now, synced=synced)
            # Ended measures are withdrawn even before the topic is read to its end.
            ended_keys = self._owned.keys() - leases.keys()
            ended = [measure for measure in active if measure.key in ended_keys]
            diff = diff._replace(
                announce=[] if save_error else diff.announce,
                withdraw=list({*diff.withdraw, *ended}),
            )
            if diff.announce or diff.withdraw:
                errors += self._correct(diff)
                active = self._backend.active()
        except BackendError as exc:
            self.fail("; ".join(dict.fromkeys([*errors, str(exc)])))
            return False
        self._metrics.last_reconcile.labels(self._backend.name).set(time())
        self._report(
            leases, {measure.key: measure for measure in active}, diff.unsupported
        )
        if errors:
            self.fail("; ".join(dict.fromkeys(errors)))
        elif self._reported_error:
            self._reported_error = ""
            self._audit.publish("started", "all earlier failures are resolved")
        return not errors

    def report_dry_run(self, wanted: Snapshot) -> None:
        """Report the changes without making them."""
        leases = wanted.leases
        publish = self._audit.publish
        for key in leases.keys() - self.in_force.keys():
            publish("in-force", "would be announced", key=key, dry_run=True)
        for key in self.in_force.keys() - leases.keys():
            publish("withdrawn", "would be withdrawn", key=key, dry_run=True)
        self.in_force = {key: lease.measure for key, lease in leases.items()}
        self.saved = wanted

    def fail(self, text: str) -> None:
        """Count a failure, and report it unless the last report has the same text."""
        self._metrics.failures.labels(self._backend.name).inc()
        if self._reported_error != text:
            self._reported_error = text
            self._audit.publish("failed", text)

    def _apply_changes(
        self,
        announced: Mapping[str, Lease],
        wanted: Mapping[str, Lease],
        now: float,
        synced: bool,  # noqa: FBT001 - as in `reconcile`
    ) -> list[str]:
        """Apply new and ended leases before the system is listed; return the errors."""
        new = {k: lease for k, lease in announced.items() if k not in self.in_force}
        unwanted = self.in_force.keys() - wanted.keys()
        if not synced:
            unwanted &= self._owned.keys()  # a record may still want the others
        withdraw = [self.in_force[key] for key in sorted(unwanted)]
        if not (new or withdraw):
            return []
        diff = compare(new, {}, self._backend.form, now, synced=False)
        return self._correct(diff._replace(withdraw=withdraw))

    def _correct(self, diff: Diff) -> list[str]:
        """Withdraw and announce; return the errors.

        Withdrawing comes first: a limit of the system must not prevent it. A failure of
        one part does not prevent the other.
        """
        errors = []
        name = self._backend.name
        if diff.withdraw:
            try:
                self._backend.withdraw(diff.withdraw)
                self._metrics.withdrawn.labels(name).inc(len(diff.withdraw))
            except BackendError as exc:
                errors.append(str(exc))
        for start in range(0, len(diff.announce), _BATCH):
            if self._is_paused():
                break  # the next iteration withdraws everything
            batch: list[DesiredMeasure] = diff.announce[start : start + _BATCH]
            try:
                self._backend.announce(batch)
                self._metrics.announced.labels(name).inc(len(batch))
            except BackendError as exc:
                errors.append(str(exc))
                if exc.retryable:
                    break  # the system is not answering
        return errors

    def _save(self, wanted: Snapshot) -> str:
        """Write the snapshot before the system is changed.

        Returns:
            "", or the error. After an error nothing may be announced: no other program
            could withdraw it in time. Withdrawing continues.
        """
        if _differ(wanted, self.saved):
            try:
                snapshot.save(self._path, wanted)
            except SnapshotError as exc:
                return str(exc)
            self.saved = wanted
        self._owned |= {key: lease.measure for key, lease in wanted.leases.items()}
        return ""

    def _report(
        self,
        wanted: Mapping[str, Lease],
        active: Mapping[str, Measure],
        unsupported: Mapping[str, str],
    ) -> None:
        publish = self._audit.publish
        for key in active.keys() - self.in_force.keys():
            publish("in-force", "listed by the system", key=key)
        for key in self.in_force.keys() - active.keys():
            result = "failed" if key in wanted else "withdrawn"
            publish(result, "no longer listed by the system", key=key)
        for key, text in unsupported.items():
            if self._unsupported.get(key) != text:
                publish("failed", text, code="unsupported", key=key)
        self._unsupported = unsupported
        self.in_force = active
        kept = self._owned.keys() & (wanted.keys() | active.keys())
        self._owned = {key: self._owned[key] for key in kept}


def _differ(wanted: Snapshot, saved: Snapshot) -> bool:
    """Return whether *saved* has to be replaced by *wanted*."""
    if (
        wanted.pause_command != saved.pause_command
        or wanted.leases.keys() != saved.leases.keys()
    ):
        return True
    return any(
        lease.measure != (old := saved.leases[key]).measure
        or abs(lease.ends - old.ends) > _END_TOLERANCE
        for key, lease in wanted.leases.items()
    )
