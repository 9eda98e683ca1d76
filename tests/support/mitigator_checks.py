"""The mitigator's promises, checked on its records against the model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv4Network, collapse_addresses
from typing import Any, Final

import msgspec

from consumers.mitigation.effects import unite
from consumers.mitigation.measure import measure_of
from consumers.mitigator.state.transition import Transition
from fnm_bus.avro.codec import Codec
from fnm_bus.event import EPOCH, Effect, Mitigation
from fnm_bus.kafka.addressing import Topics
from support.mitigator_harness import OWN, START, MitigatorHarness
from support.mitigator_model import LIMITS, Claim, Model, includes, rank

MITIGATION_BYTES: Final = 8_000
REASON_BYTES: Final = 128_000 + 8_000
"""128 kB of measures, and the other fields."""
EARLY: Final = 2.05
"""Seconds before its end at which a part of the effect may be missing already."""
PRECISION: Final = 1.05
"""Seconds by which a recorded lease may be longer than that of its reasons."""
MINUTE: Final = 60.0

_CODEC: Final = Codec()
_TOPICS: Final = Topics()


def mitigations(harness: MitigatorHarness) -> dict[str, Mitigation]:
    records = {}
    for key, stored in harness.mitigations.items():
        if key != "pause":
            assert isinstance(stored.record, Mitigation)
            records[key] = stored.record
    return records


def in_force(harness: MitigatorHarness) -> dict[str, Mitigation]:
    """Return the mitigations that an enforcer would apply without a pause."""
    return {
        key: record
        for key, record in mitigations(harness).items()
        if record.state == "wanted"
        and not record.dry_run
        and harness.lease_left(key) > 0
    }


def is_counted(record: Mitigation) -> bool:
    return (
        record.state == "wanted"
        and not record.dry_run
        and record.kind not in {"notify", "pause"}
    )


def check_nothing_unwanted(model: Model, harness: MitigatorHarness) -> None:
    """Each mitigation in force has a live, approved, unexpired reason."""
    records = mitigations(harness)
    for key, record in in_force(harness).items():
        claims = model.live(key, model.claims(key, records))
        assert claims, f"unwanted: {key} is in force, no live reason wants it"
        left = harness.lease_left(key) + model.now
        same = [c for c in claims if c.desire.effect.then == record.then]
        assert same, f"unwanted: {key} {record.then}, wanted {_effects(claims)}"
        ends = max(claim.ends for claim in same)
        assert left <= ends + PRECISION, f"unwanted: {key} outlives by {left - ends} s"
        approved = model.approved.get(key)
        for community in record.communities:
            parts = [c.ends for c in claims if community in c.desire.effect.communities]
            assert parts, f"unwanted: {key} has {community}"
            assert left <= max(parts) + PRECISION, f"unwanted: {key} {community}"
        if all(claim.desire.approval for claim in claims):
            assert approved is not None
            shown = Effect(then=record.then, communities=record.communities)
            assert includes(approved, shown), f"word: {key} exceeds its approval"


def check_nothing_lost(
    model: Model, harness: MitigatorHarness, before: set[str], *, may_stop: bool
) -> set[str]:
    """Every mitigation with a live reason remains in force.

    Args:
        model: the wanted measures.
        harness: the mitigator.
        before: keys of mitigations in force, by reasons that last.
        may_stop: whether the step may have ended a mitigation in force.

    Returns:
        The keys for the next step.
    """
    records, safe = mitigations(harness), set()
    for key in sorted(model.keys()):
        claims = model.claims(key, records)
        lasting = [c for c in claims if c.ends > model.now + EARLY]
        live = model.live(key, lasting)
        record = records.get(key)
        if not lasting:
            continue
        assert record is not None, f"lost: {key} has no record"
        assert record.state != "ended", f"lost: {key} ended ({record.ended_because})"
        if record.state == "suppressed":
            assert key in model.withdrawn, f"lost: {key} is suppressed by nobody"
            continue
        if not live:
            if model.live(key, claims):
                continue  # it ends within seconds
            needs_approval = any(
                c.desire.approval and not _dry(model, c) for c in lasting
            )
            # A live reason that is about to expire is active for these seconds.
            if needs_approval and not model.live(key, claims):
                assert record.state == "proposed", f"lost: {key} needs approval"
                assert "approval" in record.held_by
            continue
        if record.state == "wanted":
            assert not record.dry_run, f"lost: {key} is a dry run"
            assert harness.lease_left(key) > 0, f"lost: {key} has no lease"
            _check_effect(key, record, live)
            safe.add(key)
            continue
        assert record.held_by, f"lost: {key} is proposed, nothing holds it"
        assert set(record.held_by) <= LIMITS, f"lost: {key} held by {record.held_by}"
        assert key not in before or may_stop, f"lost: {key} was in force"
        approved = model.approved.get(key)
        effect = unite(claim.desire.effect for claim in model.live(key, claims))
        assert approved is None or not includes(approved, effect), (
            f"word: {key} was approved and is held by {record.held_by}"
        )
    return safe


def check_ended(model: Model, harness: MitigatorHarness) -> None:
    """A mitigation or a suppression without reasons has ended."""
    records = mitigations(harness)
    for key, record in records.items():
        if record.state in {"wanted", "proposed"}:
            assert model.claims(key, records), f"ended: {key} is {record.state}"
        elif record.state == "suppressed":
            _least, limit, _lease = model.withdrawn[key]
            assert model.now <= limit + PRECISION, f"ended: {key} stays suppressed"


def check_decisions(model: Model, harness: MitigatorHarness) -> None:
    """Withdrawn mitigations stay suppressed; a pause masks everything."""
    force = in_force(harness)
    for key, (least, _most, _lease) in model.withdrawn.items():
        assert key not in force, f"word: {key} was withdrawn"
        record = mitigations(harness)[key]
        assert record.state == "suppressed" or model.now >= least, f"word: {key}"
    seen = harness.wanted()
    assert seen == ([] if model.paused else sorted(force)), "word: the pause"


def check_memory(harness: MitigatorHarness) -> None:
    """The state in memory and its counts match the topics' records."""
    state = harness.state
    stored = {key: entry.record for key, entry in harness.mitigations.items()}
    assert {k: e.record for k, e in state.mitigations.items()} == stored
    reasons = {key: entry.record for key, entry in harness.reasons.items()}
    assert {k: e.reason for k, e in state.reasons.items()} == reasons
    for dry in (False, True):
        counted = [
            record
            for record in mitigations(harness).values()
            if record.state == "wanted"
            and record.dry_run is dry
            and record.kind != "notify"
        ]
        view = state.active_counts(harness.now, dry_run=dry)
        assert view.active == len(counted), "counts: active"
        for name, number in view.by_customer.items():
            assert number == sum(r.customer == name for r in counted), (
                "counts: customer"
            )
        nets = [_network(record) for record in counted]
        affected = sum(n.num_addresses for n in collapse_addresses(filter(None, nets)))
        assert view.affected.count(4) == affected, "counts: affected"


def check_records(transition: Transition) -> None:
    """Every record is within its bound, and Avro changes nothing."""
    for topic, bound, records in (
        (_TOPICS.reason, REASON_BYTES, transition.reasons),
        (_TOPICS.mitigation, MITIGATION_BYTES, transition.mitigations),
    ):
        for key, record in records.items():
            if record is not None:
                value = _CODEC.encode(record, topic)
                assert len(value) <= bound, f"size: {key} has {len(value)} bytes"
                size = len(msgspec.json.encode(record))
                assert size <= bound, f"size: {key} has {size} bytes"
                assert _CODEC.decode(value) == record, f"avro: {key}"
    for audit in transition.audits:
        assert _CODEC.decode(_CODEC.encode(audit, _TOPICS.audit)) == audit


@dataclass
class Ledger:
    """Every start, with the limits that apply to it.

    Attributes:
        kinds: mitigation's key, while it is live → how it started: `counted`,
            `fallback`, `approved`.
        starts: (time, key, kind) of the last minute.
        most_starts: (until when, max_new_per_minute) of policies before.
        wide: keys whose start added no affected address.
    """

    kinds: dict[str, str] = field(default_factory=dict)
    starts: list[tuple[float, str, str]] = field(default_factory=list)
    most_starts: list[tuple[float, int]] = field(default_factory=list)
    wide: set[str] = field(default_factory=set)
    seen: dict[str, datetime] = field(default_factory=dict)

    def observe(
        self,
        model: Model,
        harness: MitigatorHarness,
        changed: Mapping[str, Any],
        *,
        one_event: bool = True,
    ) -> None:
        """Check the starts of one transition."""
        records = mitigations(harness)
        begun = 0
        for key, record in changed.items():
            if record is None or record.kind == "pause":
                continue
            if not is_counted(record):
                self.kinds.pop(key, None)
                self.wide.discard(key)
                continue
            if key in self.kinds and self.seen.get(key) == record.started_at:
                continue
            self.seen[key] = record.started_at
            kind = self._kind(model, key, records)
            if not self._adds(record, records):
                self.wide.add(key)
            self.kinds[key] = kind
            self.starts.append((model.now, key, kind))
            begun += kind == "counted"
        limit = max(model.policy.limits.max_new_per_minute // 4, 1)
        assert begun <= limit or not one_event, (
            f"limit: one event started {begun} of {limit}"
        )
        self._check(model, records)

    def take_over(self, model: Model, harness: MitigatorHarness, limit: int) -> None:
        """Forget the starts without a record.

        Args:
            model: with the new mitigator's policy.
            harness: before its restart.
            limit: `max_new_per_minute` of the policy before.
        """
        records = mitigations(harness)
        self.starts = [
            (at, key, kind)
            for at, key, kind in self.starts
            if key in records
            and not records[key].started_dry_run
            and records[key].started_at != EPOCH
            and abs((records[key].started_at - START).total_seconds() - at) < 0.01
        ]
        # A record has one start, however often it started in that instant.
        self.starts = list(
            {(at, key): (at, key, kind) for at, key, kind in self.starts}.values()
        )
        for key in self.kinds:
            claims = model.live(key, model.claims(key, records))
            if any(claim.desire.fallback for claim in claims):
                self.kinds[key] = "fallback"
        self.most_starts.append((model.now + MINUTE, limit))

    def check_proposals(self, model: Model, harness: MitigatorHarness) -> None:
        """After half a minute, only exceeded limits still hold proposals."""
        records, limits = mitigations(harness), model.policy.limits
        live = {key: record for key, record in records.items() if is_counted(record)}
        own = sum(net.num_addresses for net in OWN if net.version == 4)
        recent = [at for at, _key, _kind in self.starts if at > model.now - MINUTE]
        for key, record in records.items():
            if record.state != "proposed" or record.dry_run:
                continue
            if "approval" in record.held_by:
                continue
            limit = [
                c.max_active
                for c in model.policy.customers
                if c.name == record.customer
            ]
            same = sum(other.customer == record.customer for other in live.values())
            networks = [n for r in (record, *live.values()) if (n := _network(r))]
            assert (
                len(live) >= limits.max_active
                or len(recent) >= limits.max_new_per_minute
                or (limit and same >= limit[0])
                or _size(networks) > own * limits.max_affected_share
            ), f"proposal: no limit holds {key}"

    def _kind(self, model: Model, key: str, records: Mapping[str, Mitigation]) -> str:
        claims = model.live(key, model.claims(key, records))
        if not claims:
            return "ended"  # `check_ended` checks it after this moment
        effect = unite(claim.desire.effect for claim in claims)
        approved = model.approved.get(key)
        if approved is not None and includes(approved, effect):
            return "approved"
        if all(claim.desire.fallback for claim in claims):
            return "fallback"
        return "counted"

    def _adds(self, record: Mitigation, records: Mapping[str, Mitigation]) -> bool:
        network = _network(record)
        if network is None:
            return True
        others = [
            net
            for key, other in records.items()
            if key != record.key and is_counted(other) and (net := _network(other))
        ]
        return _size([*others, network]) > _size(others)

    def _check(self, model: Model, records: Mapping[str, Mitigation]) -> None:
        limits = model.policy.limits
        live = [
            (key, records[key], kind)
            for key, kind in self.kinds.items()
            if key in records and is_counted(records[key])
        ]
        counted = [
            record
            for key, record, kind in live
            if kind == "counted" and key not in model.approved
        ]
        assert len(counted) <= limits.max_active, "limit: max_active"
        for customer in model.policy.customers:
            number = sum(record.customer == customer.name for record in counted)
            assert number <= customer.max_active, "limit: max_per_customer"
        now = model.now
        self.starts = [start for start in self.starts if start[0] > now - MINUTE]
        self.most_starts = [start for start in self.most_starts if start[0] > now]
        recent = sum(kind == "counted" for _at, _key, kind in self.starts)
        limit = max([limits.max_new_per_minute, *(m for _at, m in self.most_starts)])
        assert recent <= limit, f"limit: {recent} starts in a minute, allowed {limit}"
        nets = [
            net
            for record in counted
            if record.key not in self.wide and (net := _network(record))
        ]
        own = sum(net.num_addresses for net in OWN if net.version == 4)
        affected = _size(nets)
        allowed = max(1, own * limits.max_affected_share)
        assert affected <= allowed, f"limit: share, {affected} of {own} addresses"


def picture(harness: MitigatorHarness) -> object:
    """Return the contents of a state in a comparable form."""
    state, minute = harness.state, harness.now - timedelta(seconds=MINUTE)
    return (
        dict(state.reasons),
        dict(state.mitigations),
        {
            name: {(key, demand.terms_of(key), _lease(demand, key)) for key in demand}
            for name, demand in state.demands.items()
        },
        set(state.inactive),
        set(state.ended),
        set(state.waiting),
        set(state.refused),
        set(state._commands),
        dict(state.ignored),
        state.proposals,
        state.paused,
        [
            (
                counts._active,
                dict(counts._by_customer),
                counts._affected.count(4),
                counts._affected.count(6),
                sorted(at for at in counts._starts if at > minute),
            )
            for counts in state.counts.values()
        ],
        {key: frozenset(value) for key, value in state._parts.items()},
        dict(state._audit_texts),
    )


def _lease(demand: Any, key: Any) -> object:
    return demand._groups[demand.terms_of(key)].leases[key]


def _check_effect(key: str, record: Mitigation, live: list[Claim]) -> None:
    """The effect is that of the strongest live reason, with all communities."""
    strongest = max(rank(claim.desire.effect.then) for claim in live)
    assert rank(record.then) >= strongest, f"lost: {key} is weaker: {record.then}"
    wanted = {name for claim in live for name in claim.desire.effect.communities}
    assert wanted <= set(record.communities), f"lost: {key} lacks communities"


def _dry(model: Model, claim: Claim) -> bool:
    return model.dry_run or claim.desire.dry_run


def _effects(claims: list[Claim]) -> list[Effect]:
    return [claim.desire.effect for claim in claims]


def _network(record: Mitigation) -> IPv4Network | None:
    """Return the IPv4 network that a mitigation protects."""
    networks = measure_of(record).networks
    return networks[0] if networks and networks[0].version == 4 else None  # type: ignore[return-value]


def _size(networks: list[IPv4Network]) -> int:
    return sum(net.num_addresses for net in collapse_addresses(networks))
