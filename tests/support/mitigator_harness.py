"""A mitigator's decisions without Kafka: events in, records out, clocks set by hand."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

from consumers.mitigation.reason_key import ReasonKey
from consumers.mitigator.context import DecisionContext, Moment
from consumers.mitigator.decisions.decide import apply_event
from consumers.mitigator.decisions.expire import expire_leases, start_proposals
from consumers.mitigator.decisions.operator_commands import apply_command
from consumers.mitigator.decisions.received_command import ReceivedCommand
from consumers.mitigator.decisions.takeover import take_over
from consumers.mitigator.state.restore import StoredRecord, restore_state
from consumers.mitigator.state.state import State
from consumers.mitigator.state.transition import Transition
from consumers.policy.model import Action, Customer, Limits, Match, Policy, Rule
from fnm_bus.event import (
    AttackDetails,
    Audit,
    Command,
    Event,
    FlowSpecRule,
    HostEvent,
    HostgroupEvent,
    HostgroupNetwork,
    Mitigation,
    Reason,
    Receipt,
    StatusEvent,
)

START = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
OWN = (ip_network("203.0.113.0/24"), ip_network("2001:db8:1::/48"))
HOST = "203.0.113.7"
KEY = f"blackhole|{HOST}/32"


def rule(name: str = "any", match: Match | None = None, **action: Any) -> Rule:
    """Return a rule that blackholes, or has the given action."""
    return Rule(
        name=name,
        match=match or Match(),
        action=Action(**{"action": "blackhole", **action}),
    )


def policy(
    *rules: Rule,
    hostgroups: dict[str, Action] | None = None,
    digest: str = "p1",
    **limits: Any,
) -> Policy:
    customers: tuple[Customer, ...] = limits.pop("customers", ())
    return Policy(
        rules=rules or (rule(),),
        limits=Limits(**{"own_networks": OWN, "max_affected_share": 1.0, **limits}),
        hostgroups=hostgroups or {},
        customers=customers,
        digest=digest,
    )


class MitigatorHarness:
    """Events in, records out.

    Attributes:
        now: the broker's time. The mitigator's own clock is `clock`.
        clock: seconds since the mitigator's machine started.
        reasons: latest record of each key of the reason topic, with its time.
        mitigations: latest record of each key of the mitigation topic, with its time.
        written: number of records written so far, reasons and mitigations.
        audits: all audit records.
    """

    def __init__(self, new_policy: Policy | None = None, **context: Any) -> None:
        self.policy = new_policy or policy()
        self.context = DecisionContext(self.policy, **{"dry_run": False, **context})
        self.state = State(OWN, dry_run=self.context.dry_run)
        self.now = START
        self.clock = 1000.0
        self.reasons: dict[ReasonKey, StoredRecord] = {}
        self.mitigations: dict[str, StoredRecord] = {}
        self.written = 0
        self.audits: list[Audit] = []
        self._sequence = 0
        self._offset = 0

    # -- time ------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        """Advance the clocks in one step, then expire leases."""
        self.now += timedelta(seconds=seconds)
        self.clock += seconds
        self.tick()

    def run(self, seconds: int) -> None:
        """Advance the clocks second by second, like the mitigator's loop."""
        for _ in range(seconds):
            self.wait(1)

    def tick(self) -> None:
        """Do the mitigator's work of each second."""
        while True:
            changes = list(
                self._committed(expire_leases(self.state, self.new_transition))
            )
            if not changes:
                break
        list(self._committed(start_proposals(self.state, self.new_transition)))

    # -- events and commands ---------------------------------------------------

    def event(self, action: str, target: str = HOST, **fields: Any) -> Event:
        """Return an event; without a `sequence` it is the latest."""
        sequence = fields.pop("sequence", self._sequence + 1)
        self._sequence = max(sequence, self._sequence)
        receipt = Receipt(
            event_id=f"event-{sequence}",
            received_at=self.now - timedelta(seconds=fields.pop("age", 0)),
            sequence=sequence,
            sensor=fields.pop("sensor", "fnm1"),
        )
        rules: tuple[FlowSpecRule, ...] = fields.pop("rules", ())
        extra = fields.pop("extra", {})
        networks = tuple(
            HostgroupNetwork(sent=text, network=text)
            for text in fields.pop("networks", ())
        )
        details = AttackDetails(
            **{
                "attack_uuid": "a1",
                "attack_direction": "incoming",
                "attack_protocol": "udp",
                **fields,
            }
        )
        if action == "attack_status":
            return StatusEvent(
                receipt=receipt,
                action=action,
                ip=None if networks else target,
                hostgroup_name=target if networks else None,
                hostgroup_networks=networks,
                attack_details=details,
                flow_spec_rules=rules,
            )
        if networks:
            return HostgroupEvent(
                receipt=receipt,
                action=action,
                hostgroup_name=target,
                hostgroup_networks=networks,
                attack_details=details,
            )
        return HostEvent(
            receipt=receipt,
            action=action,
            ip=target,
            attack_details=details,
            flow_spec_rules=rules,
            extra=extra,
        )

    def send(self, action: str, target: str = HOST, **fields: Any) -> Event:
        """Make an event and apply it; return it."""
        event = self.event(action, target, **fields)
        self.apply(event)
        return event

    def apply(self, event: Event, *, behind: bool = False) -> None:
        transition = self.new_transition()
        apply_event(transition, event, behind=lambda: behind)
        self.commit(transition)

    def command(
        self, verb: str, key: str | None = None, *, age: float = 0, **fields: Any
    ) -> Audit:
        """Apply a person's command; return its audit record."""
        self._offset += 1
        if verb == "approve" and "revision" not in fields and key in self.mitigations:
            fields["revision"] = self.mitigation(key).revision
        command = Command(
            **{
                "command_id": f"command-{self._offset}",
                "verb": verb,
                "by": "alice",
                "comment": "a test",
                "requested_at": self.now,
                "key": key,
                **fields,
            }
        )
        transition = self.new_transition()
        received = ReceivedCommand(
            command, self.now - timedelta(seconds=age), self._offset
        )
        apply_command(transition, received)
        self.commit(transition)
        answers = [
            audit for audit in self.audits if audit.event_id == command.command_id
        ]
        return answers[-1]

    def restart(
        self,
        new_policy: Policy | None = None,
        *,
        clock: float | None = None,
        **context: Any,
    ) -> None:
        """Take over like another mitigator, from the topics alone.

        Args:
            chosen: the new one's policy.
            clock: seconds since the new one's machine started.
            context: further changed settings.
        """
        self.policy = new_policy or self.policy
        context = {"dry_run": self.context.dry_run, **context}
        self.context = DecisionContext(self.policy, **context)
        self.clock = self.clock if clock is None else clock
        self.state = restore_state(
            self.context,
            self.reasons.values(),
            self.mitigations.values(),
            Moment(self.clock, self.now),
        )
        merged = self.new_transition()  # all of it is written before any event
        for transition in take_over(self.state, self.new_transition):
            merged.reasons |= transition.reasons
            merged.mitigations |= transition.mitigations
            merged.audits += transition.audits
        self.commit_takeover(merged)

    # -- results ---------------------------------------------------------------

    def wanted(self) -> list[str]:
        """Return the keys of the mitigations that an enforcer applies."""
        pause = self.mitigations.get("pause")
        if pause is not None and self._record(pause).state == "wanted":
            return []
        return sorted(
            key
            for key, stored in self.mitigations.items()
            if self._record(stored).state == "wanted"
            and not self._record(stored).dry_run
            and self._record(stored).kind != "pause"
            and self.lease_left(key) > 0
        )

    def lease_left(self, key: str) -> float:
        """Return how long an enforcer would still apply a mitigation, in seconds."""
        stored = self.mitigations[key]
        age = (self.now - stored.at).total_seconds()
        return self._record(stored).lease_ms / 1000 - age

    def mitigation(self, key: str = KEY) -> Mitigation:
        return self._record(self.mitigations[key])

    def reason(self, target: str = HOST, sensor: str = "fnm1", **key: str) -> Reason:
        name = ReasonKey(
            sensor, key.get("scope", "host"), target, key.get("part", "attack")
        )
        record = self.reasons[name].record
        assert isinstance(record, Reason)
        return record

    def audit_texts(self, decision: str) -> list[str]:
        return [audit.text for audit in self.audits if audit.action == decision]

    def audit_codes(self, decision: str) -> list[str]:
        return [audit.code for audit in self.audits if audit.action == decision]

    # -- inside ----------------------------------------------------------------

    def new_transition(self) -> Transition:
        return Transition(self.context, self.state, Moment(self.clock, self.now))

    def commit(self, transition: Transition) -> None:
        """Write a transition's records, like one transaction."""
        for name, reason in transition.reasons.items():
            self.written += 1
            self.reasons.pop(name, None)
            if reason is not None:
                self.reasons[name] = StoredRecord(reason, self.now)
        for key, record in transition.mitigations.items():
            self.written += 1
            self.mitigations.pop(key, None)
            if record is not None:
                self.mitigations[key] = StoredRecord(record, self.now)
        self.audits += transition.audits

    def commit_takeover(self, transition: Transition) -> None:
        """Write a takeover's records; the bounds of one event do not apply."""
        self.commit(transition)

    def _committed(self, changes: Any) -> Any:
        for transition in changes:
            self.commit(transition)
            yield transition

    @staticmethod
    def _record(stored: StoredRecord) -> Mitigation:
        assert isinstance(stored.record, Mitigation)
        return stored.record


def banned(new_policy: Policy | None = None, **fields: Any) -> MitigatorHarness:
    """Return a mitigator after a ban with these fields."""
    harness = MitigatorHarness(new_policy)
    harness.send("ban", **fields)
    return harness
