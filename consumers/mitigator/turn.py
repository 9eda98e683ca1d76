"""Turn: what one event or command changes, and what is told of it."""

from dataclasses import dataclass, field
from datetime import datetime

from consumers.policy.facts import Facts
from consumers.policy.model import Policy
from consumers.mitigator.state import State
from fnm_bus import __version__
from fnm_bus.event import Audit, Check, Mitigation


@dataclass(frozen=True, slots=True)
class Terms:
    """What decisions are made by.

    Attributes:
        policy: rules and limits.
        dry_run: whether everything is only tried.
        ban_time: FastNetMon's, in seconds.
        memory: seconds for which an end is remembered.
    """

    policy: Policy
    dry_run: bool = True
    ban_time: float = 1900.0
    memory: float = 86_400.0


@dataclass(slots=True)
class Turn:
    """One event or command at work on the state.

    Attributes:
        terms: what is decided by.
        state: changed as the decision goes.
        now: a clock that does not jump, UTC; leases are counted on it.
        wall: the machine's clock, UTC; ages of events are measured by it.
        changes: key → the record to write, or None for a tombstone, in order.
        audits: what is told, in order.
    """

    terms: Terms
    state: State
    now: datetime
    wall: datetime
    changes: dict[str, Mitigation | None] = field(default_factory=dict)
    audits: list[Audit] = field(default_factory=list)

    def write(self, mitigation: Mitigation) -> None:
        """Change the state and remember to write it."""
        self.state.put(mitigation)
        self.changes[mitigation.key] = mitigation

    def forget(self, key: str) -> None:
        """Forget a mitigation and remember to write its tombstone."""
        self.state.forget(key)
        self.changes[key] = None

    def tell(  # noqa: PLR0913 - what an audit record holds
        self,
        what: str,
        text: str,
        *,
        key: str | None = None,
        facts: Facts | None = None,
        rule: str | None = None,
        checks: tuple[Check, ...] = (),
        by: str = "mitigator",
        event_id: str | None = None,
    ) -> None:
        """Remember to tell of something."""
        self.audits.append(
            Audit(
                at=self.now,
                by=by,
                what=what,
                key=key,
                sensor=facts.sensor if facts else None,
                target=facts.target if facts else None,
                event_id=facts.event_id if facts else event_id,
                rule=rule,
                text=text,
                checks=checks,
                dry_run=self.terms.dry_run,
                producer_version=__version__,
            )
        )

    def ignore(self, facts: Facts, why: str, checks: tuple[Check, ...] = ()) -> None:
        """Remember to tell that an event changes nothing, once in a row."""
        order = Check(stage="order", name="order", verdict="refuse", text=why)
        if self.state.news(facts.place, why):
            self.tell("ignored", why, facts=facts, checks=checks or (order,))
