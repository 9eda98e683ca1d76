"""Transition: the changes of the state by one event, command or moment, with undo.

Every change of the state is made here. `rollback` restores every replaced entry, so
that an event whose processing fails has no effect.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from msgspec.structs import replace

from consumers.mitigation.measure import NOTIFY
from consumers.mitigation.reason_key import ReasonKey
from consumers.mitigation.states import ENDED, PAUSE, WANTED
from consumers.mitigator.context import DecisionContext, Moment
from consumers.mitigator.state.call_order import LastEvent
from consumers.mitigator.state.entries import MitigationEntry, ReasonEntry
from consumers.mitigator.state.memory import Undo
from consumers.mitigator.state.record_content import cut_to_bound, is_start
from consumers.mitigator.state.state import State
from consumers.mitigator.state.wants import key_of_want
from consumers.policy.facts import AttackFacts
from fnm_bus import __version__
from fnm_bus.event import Audit, Check, Mitigation, Reason

MAX_AUDIT_TEXT: Final = 1_000
MAX_CHECKS: Final = 100


@dataclass(slots=True)
class Transition:
    """The changes of the state by one event, command or moment.

    Attributes:
        reasons: reasons to write, None for a tombstone.
        mitigations: mitigations to write, None for a tombstone.
        audits: audit records to write, in order.
        starts: number of mitigations that started.
    """

    context: DecisionContext
    state: State
    moment: Moment
    reasons: dict[ReasonKey, Reason | None] = field(default_factory=dict)
    mitigations: dict[str, Mitigation | None] = field(default_factory=dict)
    audits: list[Audit] = field(default_factory=list)
    starts: int = 0
    _undo: list[Undo] = field(default_factory=list)

    # -- reasons ---------------------------------------------------------------

    def put_reason(
        self, reason_key: ReasonKey, reason: Reason, *, active: bool, write: bool = True
    ) -> None:
        """Replace a reason; its lease begins now.

        Args:
            reason_key: of the reason.
            reason: its record.
            active: whether it is neither closed nor expired.
            write: whether to write it; an expired reason is not written.
        """
        clock = self.moment.clock
        ends = clock + reason.lease_ms / 1000
        retention = (
            self.context.closed_retention
            if reason.closed
            else self.context.ended_retention
        )
        previous = self.state.reasons.get(reason_key)
        entry = ReasonEntry(
            reason,
            keys=tuple(key_of_want(want) for want in reason.wants),
            ends=ends,
            due=ends if active else clock + retention,
            active=active,
            fallback=active
            and previous is not None
            and previous.active
            and previous.fallback,
        )
        self.replace_reason(reason_key, entry)
        if write:
            self.reasons[reason_key] = reason

    def replace_reason(self, reason_key: ReasonKey, entry: ReasonEntry | None) -> None:
        """Replace a reason in memory only."""
        previous = self.state.reasons.get(reason_key)
        self.state.put_reason(reason_key, entry)
        self._undo.append(lambda: self.state.put_reason(reason_key, previous))

    def forget_reason(self, reason_key: ReasonKey) -> None:
        """Forget a reason, with a tombstone."""
        self.replace_reason(reason_key, None)
        self.reasons[reason_key] = None

    def ignore_attack(self, reason_key: ReasonKey, event: LastEvent) -> None:
        """Remember an event of an attack without a reason, in memory only."""
        self._undo.append(self.state.ignore(reason_key, event))

    def remember_command(self, command_id: str) -> bool:
        """Remember a command, in memory only; return whether it is a new one."""
        return self._is_changed(self.state.remember_command(command_id))

    # -- mitigations -----------------------------------------------------------

    def write_mitigation(
        self, key: str, record: Mitigation, ends: float, due: float
    ) -> None:
        """Replace a mitigation and write its record.

        Args:
            key: of the mitigation.
            record: without its lease.
            ends: when its lease expires, in seconds since boot.
            due: when it has to be computed again.
        """
        clock, now = self.moment
        has_ended = record.state == ENDED
        left = 0.0 if has_ended else max(ends - clock, 0.0)
        # Enforcers refuse and report a wanted record without a lease.
        min_lease_ms = 0 if has_ended or record.kind == PAUSE else 1
        record = cut_to_bound(
            replace(
                record,
                key=key,
                lease_ms=max(round(left * 1000), min_lease_ms),
                expires_at=now + timedelta(seconds=left),
                changed_at=now,
                producer_version=__version__,
            )
        )
        if has_ended:
            due = clock + self.context.ended_retention
        entry = self.state.mitigations.get(key)
        is_active = record.state == WANTED and record.kind not in {NOTIFY, PAUSE}
        starts = is_active and is_start(entry.record if entry else None, record)
        if starts:
            record = replace(record, limits_digest=self.context.policy.digest)
        self.replace_mitigation(key, MitigationEntry(record, clock + left, due))
        self.mitigations[key] = record
        if starts:
            self._count_start(record)

    def replace_mitigation(self, key: str, entry: MitigationEntry | None) -> None:
        """Replace a mitigation in memory only."""
        previous = self.state.mitigations.get(key)
        self.state.put_mitigation(key, entry)
        self._undo.append(lambda: self.state.put_mitigation(key, previous))

    def forget_mitigation(self, key: str) -> None:
        """Forget a mitigation, with a tombstone."""
        self.replace_mitigation(key, None)
        self.mitigations[key] = None

    def mark_refused(self, key: str, *, refused: bool) -> None:
        """Mark a mitigation that cannot even be proposed, in memory only."""
        self._is_changed(self.state.mark_refused(key, refused=refused))

    # -- audit records ---------------------------------------------------------

    def add_audit(  # noqa: PLR0913 - the fields of an audit record
        self,
        decision: str,
        text: str,
        *,
        code: str = "",
        key: str | None = None,
        facts: AttackFacts | None = None,
        rule: str | None = None,
        checks: Sequence[Check] = (),
        by: str = "",
        event_id: str | None = None,
    ) -> None:
        """Add an audit record."""
        self.audits.append(
            Audit(
                at=self.moment.now,
                by=by or "mitigator",
                action=decision,
                code=code,
                key=key,
                sensor=facts.sensor if facts else None,
                target=facts.target if facts else None,
                event_id=facts.event_id if facts else event_id,
                rule=rule,
                text=text[:MAX_AUDIT_TEXT],
                checks=tuple(checks[:MAX_CHECKS]),
                checks_omitted=max(len(checks) - MAX_CHECKS, 0),
                dry_run=self.context.dry_run,
                producer_version=__version__,
            )
        )

    def audit_ignored(
        self, facts: AttackFacts, check: Check, checks: tuple[Check, ...] = ()
    ) -> None:
        """Report an ignored event, once in a row for each target."""
        if self._is_new_text(facts, check.code + check.text):
            self.add_audit(
                "ignored",
                check.text,
                code=check.code,
                facts=facts,
                checks=(*checks, check),
            )

    def audit_refused(
        self,
        facts: AttackFacts,
        check: Check,
        checks: tuple[Check, ...],
        *,
        key: str | None = None,
        rule: str | None = None,
    ) -> None:
        """Report a refused measure, once in a row for each target."""
        text = f"refused by {check.name}: {check.text}"
        if self._is_new_text(facts, text):
            self.add_audit(
                "refused",
                text,
                code=check.code,
                key=key,
                facts=facts,
                rule=rule,
                checks=checks,
            )

    def rollback(self) -> None:
        """Undo every change of the state."""
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()
        self.reasons.clear()
        self.mitigations.clear()
        self.audits.clear()

    def _is_new_text(self, facts: AttackFacts, text: str) -> bool:
        """Return whether *text* differs from the target's previous audit text."""
        return self._is_changed(self.state.remember_audit_text(facts.reason_key, text))

    def _is_changed(self, undo: Undo | None) -> bool:
        if undo is not None:
            self._undo.append(undo)
        return undo is not None

    def _count_start(self, record: Mitigation) -> None:
        counts = self.state.counts[record.dry_run]
        counts.start(record.started_at)
        self._undo.append(lambda: counts.undo_start(record.started_at))
        self.starts += 1
