"""Make one system match what is wanted: save, list, compare, correct, report.

The snapshot is written before the system is touched. Nothing that is not known to have
ended is withdrawn until the topic was read to its end, unless a person pauses.
"""

import logging
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

log = logging.getLogger(__name__)

_BATCH: Final = 1000
"""Measures that are announced before the next look at the command topic."""
_SAME_END: Final = 0.5
"""Seconds by which a lease may move before the snapshot is written again."""


class Reconciler:
    """Makes one system match.

    Args:
        backend: the system.
        path: of the snapshot.
        audit: publishes what was done.
        metrics: counts it.
        paused: returns whether a person paused, by now; looked at between two batches.

    Attributes:
        saved: what the snapshot on disk has.
        in_force: key → what the system listed last.
    """

    def __init__(
        self,
        backend: Backend,
        path: Path,
        audit: AuditPublisher,
        metrics: EnforcerMetrics,
        paused: Callable[[], bool],
    ) -> None:
        self.saved = Snapshot({})
        self.in_force: Mapping[str, Measure] = {}
        self._backend = backend
        self._path = path
        self._audit = audit
        self._metrics = metrics
        self._paused = paused
        self._ours: dict[str, Measure] = {}
        self._unsupported: Mapping[str, str] = {}
        self._fault = ""

    def restore(self) -> Snapshot | None:
        """Return the snapshot on disk, or None; its measures are ours from now on."""
        try:
            saved = snapshot.load(self._path)
        except SnapshotError as exc:
            log.error("no snapshot: %s", exc)  # noqa: TRY400 - the text has the reason
            return None
        if saved is not None:
            self.saved = saved
            self._ours = {key: it.measure for key, it in saved.leases.items()}
        return saved

    def reconcile(self, wanted: Snapshot, now: float, *, synced: bool) -> bool:
        """Make the system match; return whether nothing failed.

        Args:
            wanted: what is to be in force.
            now: on `clock.now`.
            synced: whether everything else is to be withdrawn.
        """
        leases = wanted.leases
        unsaved = self._save(wanted)
        faults = [unsaved] if unsaved else []
        faults += self._act_on_changes({} if unsaved else leases, leases, now, synced)
        try:
            active = self._backend.active()
            diff = compare(leases, active, self._backend.form, now, synced=synced)
            # What is known to have ended goes, also before the topic is read.
            ended = [it for it in active if it.key in self._ours.keys() - leases.keys()]
            diff = diff._replace(
                announce=[] if unsaved else diff.announce,
                withdraw=list({*diff.withdraw, *ended}),
            )
            if diff.announce or diff.withdraw:
                faults += self._correct(diff)
                active = self._backend.active()
        except BackendError as exc:
            self.fail("; ".join(dict.fromkeys([*faults, str(exc)])))
            return False
        self._metrics.last_reconcile.labels(self._backend.name).set(time())
        self._report(leases, {it.key: it for it in active}, diff.unsupported)
        if faults:
            self.fail("; ".join(dict.fromkeys(faults)))
        elif self._fault:
            self._fault = ""
            self._audit.publish("started", "no faults any more")
        return not faults

    def pretend(self, wanted: Snapshot) -> None:
        """Report what would be done, and leave the system alone."""
        leases = wanted.leases
        publish = self._audit.publish
        for key in leases.keys() - self.in_force.keys():
            publish("in-force", "would be announced", key=key, dry_run=True)
        for key in self.in_force.keys() - leases.keys():
            publish("withdrawn", "would be withdrawn", key=key, dry_run=True)
        self.in_force = {key: it.measure for key, it in leases.items()}
        self.saved = wanted

    def fail(self, text: str) -> None:
        """Count a failure, and report it unless it is that of last time."""
        self._metrics.failures.labels(self._backend.name).inc()
        if self._fault != text:
            self._fault = text
            self._audit.publish("failed", text)

    def _act_on_changes(
        self,
        sure: Mapping[str, Lease],
        wanted: Mapping[str, Lease],
        now: float,
        synced: bool,  # noqa: FBT001 - as `reconcile` has it
    ) -> list[str]:
        """Act on what is new before the system is listed; return what failed."""
        new = {key: it for key, it in sure.items() if key not in self.in_force}
        over = self.in_force.keys() - wanted.keys()
        if not synced:
            over &= self._ours.keys()  # of others nothing is known yet
        withdraw = [self.in_force[key] for key in sorted(over)]
        if not (new or withdraw):
            return []
        first = compare(new, {}, self._backend.form, now, synced=False)
        return self._correct(first._replace(withdraw=withdraw))

    def _correct(self, diff: Diff) -> list[str]:
        """Withdraw and announce; return what failed.

        Withdrawing comes first: a limit of the system must not prevent it. Neither
        failure prevents the other part.
        """
        faults = []
        name = self._backend.name
        if diff.withdraw:
            try:
                self._backend.withdraw(diff.withdraw)
                self._metrics.withdrawn.labels(name).inc(len(diff.withdraw))
            except BackendError as exc:
                faults.append(str(exc))
        for start in range(0, len(diff.announce), _BATCH):
            if self._paused():
                break  # the next turn withdraws everything
            batch: list[DesiredMeasure] = diff.announce[start : start + _BATCH]
            try:
                self._backend.announce(batch)
                self._metrics.announced.labels(name).inc(len(batch))
            except BackendError as exc:
                faults.append(str(exc))
                if exc.retryable:
                    break  # the system does not answer now
        return faults

    def _save(self, wanted: Snapshot) -> str:
        """Write what may be in force from now on, before it is.

        Returns:
            "", or why it is not on disk. Then nothing may be announced: no other
            program would know when to withdraw it. Withdrawing goes on.
        """
        if _differ(wanted, self.saved):
            try:
                snapshot.save(self._path, wanted)
            except SnapshotError as exc:
                return str(exc)
            self.saved = wanted
        self._ours.update({key: it.measure for key, it in wanted.leases.items()})
        return ""

    def _report(
        self,
        wanted: Mapping[str, Lease],
        active: Mapping[str, Measure],
        unsupported: Mapping[str, str],
    ) -> None:
        publish = self._audit.publish
        for key in active.keys() - self.in_force.keys():
            publish("in-force", "the system lists it", key=key)
        for key in self.in_force.keys() - active.keys():
            what = "failed" if key in wanted else "withdrawn"
            publish(what, "the system does not list it any more", key=key)
        for key, text in unsupported.items():
            if self._unsupported.get(key) != text:
                publish("failed", text, code="unsupported", key=key)
        self._unsupported = unsupported
        self.in_force = active
        kept = self._ours.keys() & (wanted.keys() | active.keys())
        self._ours = {key: self._ours[key] for key in kept}


def _differ(wanted: Snapshot, saved: Snapshot) -> bool:
    """Return whether *saved* does not tell when everything of *wanted* ends."""
    if (
        wanted.pause_command != saved.pause_command
        or wanted.leases.keys() != saved.leases.keys()
    ):
        return True
    return any(
        it.measure != (old := saved.leases[key]).measure
        or abs(it.ends - old.ends) > _SAME_END
        for key, it in wanted.leases.items()
    )
