"""A mitigator's decisions without Kafka: events in, the wanted state out."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

from consumers.policy.facts import facts_of
from consumers.mitigator.judge import judge, review
from consumers.mitigator.lapse import lapse
from consumers.mitigator.orders import obey
from consumers.policy.model import Action, Customer, Limits, Match, Policy, Rule
from consumers.mitigator.state import State, rebuilt
from consumers.mitigator.turn import Terms, Turn
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
    Receipt,
    StatusEvent,
)

START = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
OWN = (ip_network("203.0.113.0/24"), ip_network("2001:db8:1::/48"))
HOST = "203.0.113.7"
KEY = f"blackhole|{HOST}/32"


def rule(name: str = "any", match: Match | None = None, **action: Any) -> Rule:
    """Return a rule that blackholes unless told otherwise."""
    return Rule(
        name=name,
        match=match or Match(),
        action=Action(**{"outcome": "blackhole", **action}),
    )


def policy(
    *rules: Rule, groups: dict[str, Action] | None = None, **limits: Any
) -> Policy:
    """Return a policy of *rules* for our own networks."""
    customers: tuple[Customer, ...] = limits.pop("customers", ())
    known = Limits(**{"own": OWN, "share": 1.0, **limits})
    return Policy(
        rules=rules or (rule(),),
        limits=known,
        groups=groups or {},
        customers=customers,
    )


class Court:
    """Events in, the wanted state out, with a clock that is set by hand.

    Attributes:
        now: the clock.
        records: every record that was written, in order; None is a tombstone.
        audits: everything that was told.
    """

    def __init__(self, it: Policy | None = None, **terms: Any) -> None:
        chosen = it or policy()
        self.terms = Terms(chosen, **{"dry_run": False, **terms})
        self.state = State(chosen.limits.own)
        self.now = START
        self.records: list[tuple[str, Mitigation | None]] = []
        self.audits: list[Audit] = []
        self._sequence = 0

    def wait(self, seconds: float) -> None:
        """Let time pass, and leases run out."""
        self.now += timedelta(seconds=seconds)
        turn = self._turn()
        lapse(turn)
        self._note(turn)

    def event(self, action: str, target: str = HOST, **about: Any) -> Event:
        """Return an event; without a `sequence` it is the latest."""
        sequence = about.pop("sequence", self._sequence + 1)
        self._sequence = max(sequence, self._sequence)
        receipt = Receipt(
            event_id=f"event-{sequence}",
            received_at=self.now - timedelta(seconds=about.pop("age", 0)),
            sequence=sequence,
            sensor=about.pop("sensor", "fnm1"),
        )
        rules: tuple[FlowSpecRule, ...] = about.pop("rules", ())
        extra = about.pop("extra", {})
        networks = tuple(
            HostgroupNetwork(sent=it, network=it) for it in about.pop("networks", ())
        )
        details = AttackDetails(
            **{"attack_uuid": "a1", "attack_direction": "incoming", **about}
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

    def tell(self, action: str, target: str = HOST, **about: Any) -> None:
        """Let an event count."""
        self.judge(self.event(action, target, **about))

    def judge(self, event: Event) -> None:
        """Let *event* count."""
        turn = self._turn()
        for facts in facts_of(event):
            judge(turn, facts)
        self._note(turn)

    def order(self, verb: str, key: str | None = None, **about: Any) -> None:
        """Let a person's command count."""
        turn = self._turn()
        command = Command(
            **{
                "command_id": f"command-{len(self.audits)}",
                "verb": verb,
                "by": "alice",
                "why": "a test",
                "asked_at": self.now,
                "key": key,
                **about,
            }
        )
        obey(turn, command)
        self._note(turn)

    def restart(self, it: Policy | None = None) -> None:
        """Go on as another mitigator would, from what was written."""
        if it is not None:
            self.terms = Terms(it, dry_run=self.terms.dry_run)
        self.state = rebuilt(self.records, self.terms.policy.limits.own)
        turn = self._turn()
        review(turn)
        self._note(turn)

    def wanted(self) -> list[str]:
        """Return the keys that an enforcer sees as wanted, by the records alone."""
        latest = dict(self.records)
        return sorted(
            key
            for key, it in latest.items()
            if it is not None and it.state == "wanted" and it.expires_at > self.now
        )

    def of(self, key: str = KEY) -> Mitigation:
        """Return the latest record of a key."""
        found = dict(self.records)[key]
        assert found is not None
        return found

    def told(self, what: str) -> list[str]:
        """Return the texts of what was told of one kind."""
        return [it.text for it in self.audits if it.what == what]

    def _turn(self) -> Turn:
        return Turn(self.terms, self.state, self.now, self.now)

    def _note(self, turn: Turn) -> None:
        self.records += turn.changes.items()
        self.audits += turn.audits
