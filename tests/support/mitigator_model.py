"""Model: a plain list of the wishes of sensors and people, to compare with.

It shares only the policy with the mitigator: not its demand, timers or records. Times
are seconds of the broker's clock since the harness began.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from consumers.mitigation.measure import NOTIFY, Measure
from consumers.mitigation.reason_key import ATTACK, OPERATOR, ReasonKey
from consumers.policy import guardrails
from consumers.policy.facts import CLOSES, OPENS, AttackFacts, facts_of
from consumers.policy.measures import plan_measures
from consumers.policy.model import HOSTGROUP, IGNORE, Action, Policy
from consumers.policy.rules import match_rule
from fnm_bus.event import Effect, Event, FlowThen, Mitigation

WITHIN: Final = 5 * 100 << 23
"""Five seconds; sequences further apart decide the order."""
DAY: Final = 86_400.0
STATUS: Final = "attack_status"
LIMITS: Final = frozenset(
    {
        *("max_active", "max_per_customer", "max_new_per_minute"),
        *("max_affected_share", "max_new_per_event"),
    }
)


class Desire(NamedTuple):
    """One measure of a wish."""

    key: str
    measure: Measure
    effect: Effect
    dry_run: bool = False
    approval: bool = False
    fallback: bool = False


@dataclass(frozen=True, kw_only=True)
class Wish:
    """One sensor's report about one target, or an operator's `add`."""

    sequence: int = 0
    attack: str = ""
    previous: str = ""
    closed: bool = False
    active: bool = False
    desires: tuple[Desire, ...] = ()
    rule: str = ""
    hostgroup: str | None = None
    digest: str = ""
    lease: float = 0.0
    begun: float = 0.0
    forgotten: float = 0.0
    updates: bool = False
    is_status: bool = False

    @property
    def ends(self) -> float:
        """When its lease ends."""
        return self.begun + self.lease


class Last(NamedTuple):
    """The latest event about a target."""

    sequence: int = -1
    attack: str = ""
    closed: bool = False
    is_status: bool = False


class Claim(NamedTuple):
    """One active wish for one measure."""

    ends: float
    lease: float
    desire: Desire


@dataclass
class Model:
    """All wishes, and every decision of a person that lasts.

    Attributes:
        policy: the present one.
        ban_time: seconds; a ban's lease until its first status update.
        dry_run: whether nothing is live.
        now: broker's time.
        approved: mitigation's key → the effect that a person approved.
        withdrawn: mitigation's key → until when it must stay out, at least and at
            most; the lease of its last reason while there is one, else 0.
        paused: whether a person paused everything.
    """

    policy: Policy
    ban_time: float
    dry_run: bool = False
    now: float = 0.0
    wishes: dict[ReasonKey, Wish] = field(default_factory=dict)
    ignored: dict[ReasonKey, Last] = field(default_factory=dict)
    approved: dict[str, Effect] = field(default_factory=dict)
    withdrawn: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    paused: bool = False

    # -- changes -----------------------------------------------------------------

    def event(self, event: Event, age: float, *, behind: bool = False) -> set[str]:
        """Apply an event; return the mitigations that it may change."""
        touched: set[str] = set()
        for facts in facts_of(event):
            before = self._desired(facts)
            self._apply(facts, age, behind=behind)
            touched |= before | self._desired(facts)
        return touched

    def add(self, name: str, desire: Desire, lease: float) -> None:
        self.wishes[own_key(name)] = Wish(
            active=True,
            desires=(desire,),
            digest=self.policy.digest,
            lease=lease,
            begun=self.now,
        )
        self.withdrawn.pop(name, None)

    def withdraw(self, name: str) -> None:
        """Apply a `withdraw`; it also ends an operator's own wish."""
        self.wishes.pop(own_key(name), None)
        self.approved.pop(name, None)
        if any(True for _ in self._claims(name)):
            self.withdrawn[name] = (0.0, 0.0, 0.0)

    def pass_time(self, now: float, *, alive: bool = True) -> None:
        """Advance the clock; leases expire if a mitigator is alive."""
        self.now = now
        if not alive:
            return
        for key, wish in list(self.wishes.items()):
            if wish.active and wish.ends <= now:
                self.wishes[key] = replace(wish, active=False, forgotten=now + DAY)
            elif not wish.active and wish.forgotten <= now:
                del self.wishes[key]

    def take_over(self, policy: Policy, *, dry_run: bool) -> None:
        """Start a new mitigator: its policy can only narrow active wishes."""
        self.policy, self.dry_run = policy, dry_run
        self.ignored.clear()  # in memory only
        self.pass_time(self.now)
        for key, wish in list(self.wishes.items()):
            if wish.active:
                self.wishes[key] = self._narrowed(key, wish)

    # -- results -----------------------------------------------------------------

    def keys(self) -> set[str]:
        return {
            desire.key
            for wish in self.wishes.values()
            if wish.active
            for desire in wish.desires
        }

    def claims(self, name: str, records: Mapping[str, Mitigation]) -> list[Claim]:
        """Return the active wishes for a measure; fallbacks only at a limit."""
        return [
            claim
            for wish, claim in self._claims(name)
            if not claim.desire.fallback or _is_held(wish, records)
        ]

    def live(self, name: str, claims: Iterable[Claim]) -> list[Claim]:
        """Return the claims that affect traffic: approved if needed, no dry runs."""
        approved = self.approved.get(name)
        return [
            claim
            for claim in claims
            if not (claim.desire.dry_run or self.dry_run)
            and (
                not claim.desire.approval
                or (approved is not None and includes(approved, claim.desire.effect))
            )
        ]

    def keep_decisions(self, records: Mapping[str, Mitigation]) -> None:
        """Renew people's decisions, and forget ended ones."""
        for name in list(self.withdrawn):
            record = records.get(name)
            if record is None or record.state != "suppressed":
                del self.withdrawn[name]
                continue
            least, limit, lease = self.withdrawn[name]
            claims = [claim for _wish, claim in self._claims(name)]
            if claims:
                last = max(claims, key=lambda claim: claim.ends)
                # A suppression is written again when a third of its time is used.
                least = max(least, last.ends + last.lease / 4)
                limit = max(limit, *(claim.ends + claim.lease for claim in claims))
            elif lease:  # an unban may have closed it before its end
                least = min(least, self.now + lease / 4)
            lease = last.lease if claims else 0.0
            self.withdrawn[name] = least, limit, lease
        for name in list(self.approved):
            record = records.get(name)
            if record is None or record.state in {"ended", "suppressed"}:
                del self.approved[name]

    # -- inside ------------------------------------------------------------------

    def _claims(self, name: str) -> Iterator[tuple[Wish, Claim]]:
        for wish in self.wishes.values():
            if wish.active and wish.ends > self.now:
                for desire in wish.desires:
                    if desire.key == name:
                        yield wish, Claim(wish.ends, wish.lease, desire)

    def _desired(self, facts: AttackFacts) -> set[str]:
        return {
            desire.key
            for key, wish in self.wishes.items()
            if key[:3] == facts.reason_key[:3]
            for desire in wish.desires
        }

    def _apply(self, facts: AttackFacts, age: float, *, behind: bool) -> None:
        if facts.action not in OPENS | CLOSES:
            return
        key, wish = facts.reason_key, self.wishes.get(facts.reason_key)
        event = _event_of(facts)
        last = self.ignored.get(key, Last())
        if wish is not None:
            last = Last(wish.sequence, wish.attack, wish.closed, wish.is_status)
        twice = wish is not None and event.attack == wish.previous
        is_next = _crossed(event, last) and not twice
        if event.sequence <= last.sequence and not (is_next or _overtaken(event, last)):
            return
        if not event.closed:
            self._open(facts, wish, age, behind=behind)
        elif not (_crossed(last, event) and wish is not None and wish.active):
            self._close(facts, wish, event)

    def _close(self, facts: AttackFacts, wish: Wish | None, event: Last) -> None:
        key = facts.reason_key
        if wish is None and key in self.ignored:
            self.ignored[key] = event
            return
        limits = self.policy.limits
        attack = facts.attack or (wish.attack if wish else "")
        self.wishes[key] = Wish(
            sequence=max(facts.sequence, wish.sequence if wish else 0),
            attack=attack,
            previous=_previous(wish, attack),
            closed=True,
            forgotten=self.now + limits.max_event_age + limits.max_clock_skew + 60,
        )

    def _open(  # noqa: C901 - the order of questions
        self, facts: AttackFacts, wish: Wish | None, age: float, *, behind: bool
    ) -> None:
        limits = self.policy.limits
        stale = age > limits.max_event_age or age < -limits.max_clock_skew
        active = wish is not None and wish.active
        if facts.action != STATUS:
            if not stale:
                self._start(facts, wish)
            elif not active:
                self._remember(facts, wish)
            return
        is_over = self._is_over(facts, wish)
        for key, part in list(self.wishes.items()):
            about = key[:3] == facts.reason_key[:3] and key.part != ATTACK
            if about and part.active and not is_over and _may_be_same(part, facts):
                self._renew(facts, key, part)
        if wish is not None and active:
            if _may_be_same(wish, facts):
                self._renew(facts, facts.reason_key, wish)
        elif stale or is_over:
            return
        elif wish is not None and not wish.closed and _may_be_same(wish, facts):
            self._renew(facts, facts.reason_key, wish)
        elif not behind:
            self._start(facts, wish)

    def _is_over(self, facts: AttackFacts, wish: Wish | None) -> bool:
        if wish is None:
            last = self.ignored.get(facts.reason_key)
            return (
                last is not None and last.closed and last.attack in {"", facts.attack}
            )
        if facts.attack and facts.attack == wish.previous:
            return True
        return wish.closed and (
            "" in {facts.attack, wish.attack} or facts.attack == wish.attack
        )

    def _start(self, facts: AttackFacts, wish: Wish | None) -> None:
        key = facts.reason_key
        built = self._wish_of(facts, wish)
        if built is None and wish is not None:
            self.wishes[key] = Wish(
                sequence=max(facts.sequence, wish.sequence),
                attack=facts.attack,
                previous=_previous(wish, facts.attack),
                digest=self.policy.digest,
                forgotten=self.now + DAY,
                is_status=facts.action == STATUS,
            )
        elif built is None or not (built.desires or wish or facts.has_rules):
            self.ignored[key] = _event_of(facts)
        else:
            self.wishes[key] = replace(built, active=True)

    def _remember(self, facts: AttackFacts, wish: Wish | None) -> None:
        built = self._wish_of(facts, wish)
        if built is not None and built.desires:
            self.wishes[facts.reason_key] = replace(
                built, lease=0.0, forgotten=self.now + DAY
            )

    def _wish_of(self, facts: AttackFacts, old: Wish | None) -> Wish | None:
        """Return an attack's wish by the policy; None if the policy ignores it."""
        rule, _checks = match_rule(facts, self.policy)
        if rule is None or rule.action.action == IGNORE:
            return None
        group = self._group(rule.action, facts.hostgroup)
        actions: list[tuple[Action | None, bool]] = [(rule.action, False)]
        if rule.action.action == HOSTGROUP:
            actions = [(group, False)]
        elif rule.action.when_limited == HOSTGROUP and group is not None:
            actions.append((group, True))
        desires: list[Desire] = []
        refused = False
        for action, fallback in actions:
            if fallback and not desires:
                continue  # it would relieve nothing
            plain = facts
            if action is not rule.action:
                plain = facts._replace(rules=(), refused_rules=(), has_rules=False)
            measures, is_refused = self._desires(plain, action, fallback=fallback)
            own = {desire.key for desire in desires}
            desires += [desire for desire in measures if desire.key not in own]
            refused = refused or is_refused
        name, hostgroup = rule.name, facts.hostgroup
        if not desires and refused and old is not None and old.active:
            name, desires, hostgroup = old.rule, [*old.desires], old.hostgroup
        updates = facts.action == STATUS and facts.part == ATTACK
        built = Wish(
            sequence=max(facts.sequence, old.sequence if old else 0),
            attack=facts.attack,
            previous=_previous(old, facts.attack),
            desires=tuple(desires),
            rule=name,
            hostgroup=hostgroup,
            digest=self.policy.digest,
            begun=self.now,
            updates=updates,
            is_status=facts.action == STATUS,
        )
        return replace(built, lease=self._lease(built, updates=updates))

    def _desires(
        self, facts: AttackFacts, action: Action | None, *, fallback: bool
    ) -> tuple[list[Desire], bool]:
        if action is None:
            return [], True
        planned = plan_measures(facts, action)
        desires = []
        refused = bool(planned.checks)
        for measure in planned.measures:
            if not self._is_allowed(measure, action):
                refused = True
                continue
            for place in action.enforcers or ("",):
                key = f"{measure.key}|{place}" if place else measure.key
                effect = Effect(
                    then=measure.then, communities=tuple(sorted(measure.communities))
                )
                desires.append(
                    Desire(
                        *(key, measure, effect),
                        *(action.dry_run, action.approval, fallback),
                    )
                )
        return desires, refused

    def _is_allowed(self, measure: Measure, action: Action | None) -> bool:
        named = action.prefixes if action else ()
        checks = guardrails.check_measure(measure, self.policy.limits, named=named)
        return all(check.verdict != "refuse" for check in checks)

    def _action(self, wish: Wish, *, fallback: bool = False) -> Action | None:
        rule = next((r for r in self.policy.rules if r.name == wish.rule), None)
        if rule is None or (fallback and rule.action.when_limited != HOSTGROUP):
            return None
        if fallback or rule.action.action == HOSTGROUP:
            return self._group(rule.action, wish.hostgroup)
        return rule.action

    def _group(self, requesting: Action, name: str | None) -> Action | None:
        """Return a hostgroup's action, limited by the requesting action."""
        action = self.policy.hostgroups.get(name or "")
        if action is None:
            return None
        return replace(
            action,
            dry_run=action.dry_run or requesting.dry_run,
            approval=action.approval or requesting.approval,
        )

    def _lease(self, wish: Wish, *, updates: bool) -> float:
        action = self._action(wish)
        lease = action.lease if action else wish.lease
        return lease if updates else max(lease, self.ban_time)

    def _renew(self, facts: AttackFacts, key: ReasonKey, wish: Wish) -> None:
        attack = key.part == ATTACK
        desires = self._allowed_desires(key, wish)
        if attack and not desires and wish.digest != self.policy.digest:
            self._start(facts, wish)
            return
        if attack and not wish.desires:
            if not wish.rule:
                self._start(facts, wish)
            return
        lease = self._lease(wish, updates=attack)
        soon = self.now - wish.begun < min(lease, wish.lease) / 3
        if wish.active and wish.updates and soon:
            return
        self.wishes[key] = replace(
            wish,
            active=True,
            sequence=facts.sequence if attack else wish.sequence,
            attack=wish.attack or facts.attack,
            desires=desires,
            lease=lease,
            begun=self.now,
            updates=True,
            is_status=attack or wish.is_status,
        )

    def _narrowed(self, key: ReasonKey, wish: Wish) -> Wish:
        left = lease = wish.ends - self.now
        desires = self._allowed_desires(key, wish)
        if key.scope != OPERATOR and wish.digest != self.policy.digest:
            for desire in desires:
                action = self._action(wish, fallback=desire.fallback)
                if action is not None:
                    short = wish.updates and key.part == ATTACK
                    limit = action.lease if short else max(action.lease, self.ban_time)
                    lease = min(lease, limit)
        if desires == wish.desires and left - lease < 0.001:
            return wish
        return replace(
            wish,
            desires=desires,
            lease=lease,
            begun=self.now,
            digest=self.policy.digest if desires else "",
        )

    def _allowed_desires(self, key: ReasonKey, wish: Wish) -> tuple[Desire, ...]:
        """Return the desires that the present policy still allows."""
        changed = key.scope != OPERATOR and wish.digest != self.policy.digest
        desires = []
        for desire in wish.desires:
            action = self._action(wish, fallback=desire.fallback)
            informs = action is None or action.action in {NOTIFY, IGNORE}
            lost = action is None or (informs and desire.measure.kind != NOTIFY)
            if not self._is_allowed(desire.measure, action) or (changed and lost):
                continue
            if changed and action is not None:
                desires.append(
                    desire._replace(
                        dry_run=desire.dry_run or action.dry_run,
                        approval=desire.approval or action.approval,
                    )
                )
            else:
                desires.append(desire)
        if all(desire.fallback for desire in desires):
            return ()
        return tuple(desires)


def own_key(name: str) -> ReasonKey:
    return ReasonKey("", OPERATOR, name, OPERATOR)


def rank(then: FlowThen | None) -> tuple[int, int]:
    """Return a value that is greater for a stricter action."""
    if then is None or then.action == "discard":
        return (2, 0)
    return (1, -(then.rate or 0)) if then.action == "rate-limit" else (0, 0)


def includes(approved: Effect, wanted: Effect) -> bool:
    """Return whether the approval of one effect includes the other."""
    if not set(wanted.communities) <= set(approved.communities):
        return False
    if wanted.then is not None and wanted.then.action == "redirect":
        return wanted.then == approved.then
    return rank(wanted.then) <= rank(approved.then)


def _is_held(wish: Wish, records: Mapping[str, Mitigation]) -> bool:
    """Return whether a limit holds one of a wish's own measures."""
    for desire in wish.desires:
        record = None if desire.fallback else records.get(desire.key)
        if record is None or record.state != "proposed":
            continue
        if "approval" not in record.held_by:
            return True
    return False


def _crossed(opening: Last, closing: Last) -> bool:
    """Return whether an unban that forked later is about an earlier attack."""
    return (
        closing.closed
        and not opening.closed
        and "" not in {opening.attack, closing.attack}
        and opening.attack != closing.attack
        and 0 <= closing.sequence - opening.sequence < WITHIN
    )


def _overtaken(closing: Last, last: Last) -> bool:
    """Return whether a status update of the closed attack forked later."""
    return (
        closing.closed
        and last.is_status
        and closing.attack == last.attack != ""
        and 0 <= last.sequence - closing.sequence < WITHIN
    )


def _event_of(facts: AttackFacts) -> Last:
    closes, is_status = facts.action in CLOSES, facts.action == STATUS
    return Last(facts.sequence, facts.attack, closes, is_status)


def _may_be_same(wish: Wish, facts: AttackFacts) -> bool:
    return "" in {wish.attack, facts.attack} or wish.attack == facts.attack


def _previous(old: Wish | None, attack: str) -> str:
    if old is None:
        return ""
    return old.previous if old.attack == attack else old.attack
