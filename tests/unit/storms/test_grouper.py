"""Storms with a clock that the test sets."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from consumers.mitigation.states import (
    GUARDRAIL,
    LEASE,
    OPERATOR,
    POLICY,
    SUPERSEDED,
    UNBAN,
)
from consumers.storms.group import group_of
from consumers.storms.grouper import StormGrouper
from consumers.storms.update import (
    CONTINUES,
    ENDED,
    OTHER,
    PAUSED,
    RENEWED,
    RESUMED,
    SILENT,
    STARTED,
    Position,
    StormMember,
    StormUpdate,
    end_code,
)
from fnm_bus.event import Effect, Mitigation

START = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
WAIT, INTERVAL, GRACE = 10.0, 300.0, 30.0


def mitigation(number: int = 1, state: str = "wanted", **other: object) -> Mitigation:
    prefix = f"192.0.2.{number}/32"
    fields = {
        "key": f"blackhole|{prefix}",
        "kind": "blackhole",
        "state": state,
        "prefix": prefix,
        "hostgroup": "web",
        "created_at": START,
        "started_at": START,
        "changed_at": START,
        "cause": "ban by fra1: rule any",
    }
    return Mitigation(**{**fields, **other})  # type: ignore[arg-type]


def ended(number: int = 1, because: str = "unban", **other: object) -> Mitigation:
    return mitigation(number, "ended", ended_because=because, **other)


def pause(state: str = "wanted") -> Mitigation:
    return mitigation(state=state, key="pause", kind="pause")


class Timeline:
    """A grouper, its time, and all updates so far."""

    def __init__(self) -> None:
        self.storms = StormGrouper(WAIT, INTERVAL, GRACE)
        self.now = 1000.0
        self.updates: list[tuple[float, StormUpdate]] = []
        self.count = 0
        self.news: list[int] = []

    def apply(self, *records: Mitigation, ends: float = inf) -> list[bool]:
        results = []
        for record in records:
            self.count += 1
            position = Position(0, self.count)
            end = self.now + ends
            results.append(self.storms.apply(record, self.now, end, position))
            if results[-1]:
                self.news.append(self.count)
        return results

    def wait(self, seconds: float) -> list[str]:
        """Go from one due time to the next; return the statuses of the updates."""
        end, before = self.now + seconds, len(self.updates)
        while (at := self.storms.next_due()) <= end:
            self.now = max(self.now, at)
            due = self.storms.due(self.now)
            self.updates += [(self.now, update) for update in due]
        self.now = end
        assert self.storms.due(end) == []
        return [update.status for _, update in self.updates[before:]]

    @property
    def last(self) -> StormUpdate:
        return self.updates[-1][1]

    def keys(self) -> list[str]:
        return [member.mitigation.key for member in self.last.members]


@pytest.fixture
def timeline() -> Timeline:
    return Timeline()


def test_thousand_bans_make_two_updates(timeline: Timeline) -> None:
    keys = [f"blackhole|{number}" for number in range(1000)]
    timeline.apply(*(mitigation(key=key) for key in keys))
    assert timeline.wait(WAIT - 0.1) == []
    assert timeline.wait(0.1) == [STARTED]
    assert len(timeline.last.started) == 1000
    assert timeline.wait(3600) == []
    timeline.apply(*(ended(key=key) for key in keys))
    assert timeline.wait(WAIT) == [ENDED]
    codes = [member.ended_because for member in timeline.last.members]
    assert codes == [UNBAN] * 1000
    assert timeline.wait(3600) == []


def test_renewal_is_no_news(timeline: Timeline) -> None:
    assert timeline.apply(mitigation()) == [True]
    assert timeline.apply(mitigation(revision=2)) == [False]
    timeline.wait(WAIT)
    assert timeline.apply(mitigation(revision=4)) == [False]
    assert timeline.wait(3600) == []


def test_changed_state_is_news(timeline: Timeline) -> None:
    timeline.apply(mitigation(state="proposed"))
    timeline.wait(INTERVAL + WAIT)
    assert timeline.apply(mitigation()) == [True]
    assert timeline.wait(WAIT) == [CONTINUES]
    assert not timeline.last.started
    assert timeline.last.changed == {mitigation().key}


def test_change_waiting_for_approval_is_news(timeline: Timeline) -> None:
    timeline.apply(mitigation())
    timeline.wait(INTERVAL)
    waiting = mitigation(pending=Effect(communities=("64500:1",)))
    assert timeline.apply(waiting, waiting, mitigation()) == [True, False, False]


def test_continuing_storm_waits_for_interval(timeline: Timeline) -> None:
    timeline.apply(mitigation(1))
    timeline.wait(WAIT)
    timeline.apply(mitigation(2))
    assert timeline.wait(INTERVAL - 1) == []
    timeline.apply(mitigation(3))
    assert timeline.wait(1) == [CONTINUES]
    assert len(timeline.last.started) == 2


def test_start_within_wait_continues_storm(timeline: Timeline) -> None:
    timeline.apply(mitigation(1))
    timeline.wait(WAIT)
    timeline.apply(ended(1))
    timeline.wait(WAIT - 1)
    timeline.apply(mitigation(2))
    assert timeline.wait(INTERVAL) == [CONTINUES]
    timeline.apply(ended(2))
    assert timeline.wait(WAIT) == [ENDED]
    assert len(timeline.last.members) == 2


def test_short_storm_makes_two_updates(timeline: Timeline) -> None:
    timeline.apply(mitigation())
    timeline.wait(1)
    timeline.apply(ended())
    assert timeline.wait(3600) == [STARTED, ENDED]


def test_each_hostgroup_has_its_storm(timeline: Timeline) -> None:
    timeline.apply(mitigation(1), mitigation(2, hostgroup="mail"))
    assert timeline.wait(WAIT) == [STARTED, STARTED]


@pytest.mark.parametrize(
    ("hostgroup", "customer", "group"),
    [
        ("web", "acme", ("hostgroup", "web")),
        (None, "acme", ("customer", "acme")),
        (None, None, ("all", "")),
        ("global", "acme", ("customer", "acme")),
        ("global", None, ("all", "")),
    ],
)
def test_group_is_hostgroup_else_customer_else_all(
    hostgroup: str | None, customer: str | None, group: tuple[str, str]
) -> None:
    assert group_of(mitigation(hostgroup=hostgroup, customer=customer)) == group


def test_later_hostgroup_moves_no_mitigation(timeline: Timeline) -> None:
    timeline.apply(mitigation(hostgroup=None))
    timeline.wait(WAIT)
    timeline.apply(mitigation(hostgroup="web"), ended(hostgroup="web"))
    assert timeline.wait(3600) == [ENDED]


@pytest.mark.parametrize(
    "record", [ended(), mitigation(state="suppressed"), pause("ended")]
)
def test_end_of_unknown_is_no_news(timeline: Timeline, record: Mitigation) -> None:
    assert timeline.apply(record) == [False]
    assert timeline.wait(3600) == []


def test_pause_is_reported_at_once(timeline: Timeline) -> None:
    timeline.apply(pause())
    assert timeline.wait(0) == [PAUSED]
    assert timeline.apply(pause()) == [False]
    timeline.apply(pause("ended"))
    assert timeline.wait(0) == [RESUMED]


def test_pause_ends_no_storm(timeline: Timeline) -> None:
    timeline.apply(mitigation(1), mitigation(2))
    timeline.wait(WAIT)
    timeline.apply(pause())
    assert timeline.wait(3600) == [PAUSED]
    assert timeline.keys() == [mitigation(1).key, mitigation(2).key]
    timeline.apply(ended(1))
    assert timeline.wait(INTERVAL) == [CONTINUES]
    timeline.apply(pause("ended"))
    assert timeline.wait(3600) == [RESUMED]
    assert timeline.keys() == [mitigation(2).key]


def test_updates_during_pause_are_marked(timeline: Timeline) -> None:
    timeline.apply(pause(), mitigation(1))
    timeline.wait(WAIT)
    timeline.apply(pause("ended"), mitigation(2))
    timeline.wait(INTERVAL)
    assert [(update.status, update.paused) for _, update in timeline.updates] == [
        (PAUSED, True),
        (STARTED, True),
        (RESUMED, False),
        (CONTINUES, False),
    ]


def test_expired_lease_without_record_ends_storm(timeline: Timeline) -> None:
    timeline.apply(mitigation(), ends=900)
    assert timeline.wait(900 + GRACE + WAIT - 1) == [STARTED]
    assert timeline.wait(1) == [ENDED]
    assert [member.ended_because for member in timeline.last.members] == [SILENT]


def test_renewal_moves_end_of_lease(timeline: Timeline) -> None:
    timeline.apply(mitigation(), ends=900)
    timeline.wait(600)
    timeline.apply(mitigation(), ends=900)
    assert timeline.wait(900) == []
    assert timeline.wait(GRACE + WAIT) == [ENDED]


def test_renewal_after_end_starts_another_storm(timeline: Timeline) -> None:
    timeline.apply(mitigation(), ends=60)
    assert timeline.wait(3600) == [STARTED, ENDED]
    first = timeline.last
    assert timeline.apply(mitigation(), ends=60) == [True]
    assert timeline.wait(WAIT) == [STARTED]
    assert timeline.last.first == first.first
    assert timeline.last.repetition == first.repetition + 1


def test_short_lease_is_renewed_at_its_half(timeline: Timeline) -> None:
    timeline.apply(mitigation(1), mitigation(2), ends=50)
    timeline.wait(WAIT)
    assert timeline.last.ends_at == 1050
    timeline.now = 1015
    timeline.apply(mitigation(2), ends=50)
    assert timeline.storms.renewals(1020) == []
    (update,) = timeline.storms.renewals(1030)
    assert (update.status, update.ends_at, update.positions) == (RENEWED, 1065, ())
    assert timeline.storms.renewals(1064) == []


def test_active_storm_is_renewed_every_minute(timeline: Timeline) -> None:
    timeline.apply(mitigation(), ends=900)
    assert timeline.storms.renewals(timeline.now) == []
    timeline.wait(WAIT)
    renewals = [
        update.ends_at
        for second in range(300)
        for update in timeline.storms.renewals(timeline.now + second)
    ]
    assert renewals == [1900] * 4


def test_open_lease_and_pause_are_renewed(timeline: Timeline) -> None:
    timeline.apply(mitigation(), pause())
    timeline.wait(WAIT)
    assert timeline.storms.renewals(timeline.now + 40) == []
    renewals = timeline.storms.renewals(timeline.now + 60)
    assert [update.status for update in renewals] == [PAUSED, RENEWED]
    assert {update.ends_at for update in renewals} == {timeline.now + 60 + 900}
    timeline.apply(pause("ended"), ended())
    timeline.wait(WAIT)
    assert timeline.last.ends_at <= timeline.now
    assert timeline.storms.renewals(timeline.now + 10_000) == []


@pytest.mark.parametrize(
    ("record", "code"),
    [
        *(
            (ended(because=code), code)
            for code in (UNBAN, LEASE, OPERATOR, POLICY, GUARDRAIL, SUPERSEDED)
        ),
        (mitigation(state="suppressed"), OPERATOR),
        (mitigation(state="suppressed", ended_because="policy"), OPERATOR),
        (ended(because="a new word"), OTHER),
        (ended(because=""), OTHER),
    ],
)
def test_codes_decide_reason_of_end(record: Mitigation, code: str) -> None:
    for cause in ("ended by ann: x", "its lease ran out", "unban by"):
        assert end_code(replace(record, cause=cause)) == code


def test_record_decides_even_at_end_of_lease(timeline: Timeline) -> None:
    end = START + timedelta(seconds=900)
    timeline.apply(mitigation(expires_at=end))
    timeline.apply(ended(because=POLICY, changed_at=end))
    timeline.wait(3600)
    assert [member.ended_because for member in timeline.last.members] == [POLICY]


def test_approval_keeps_identity_of_storm(timeline: Timeline) -> None:
    never = datetime(1970, 1, 1, tzinfo=UTC)
    timeline.apply(mitigation(state="proposed", started_at=never))
    timeline.wait(WAIT)
    restarted = Timeline()
    approved = mitigation(started_at=START + timedelta(minutes=5))
    restarted.storms.recall([StormMember(approved)], restarted.now)
    restarted.apply(ended())
    restarted.wait(WAIT)
    assert restarted.last.first == timeline.last.first
    assert restarted.last.first.created_at == START


def test_mitigations_above_bound_are_skipped(
    timeline: Timeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.storms.grouper._MAX_MITIGATIONS", 20)
    assert sum(timeline.apply(*(mitigation(n) for n in range(30)))) == 20
    assert timeline.storms.skipped == 10
    timeline.wait(WAIT)
    # Ended mitigations make room for new ones.
    timeline.apply(*(ended(n) for n in range(15)))
    timeline.wait(INTERVAL)
    assert timeline.apply(mitigation(30)) == [True]
    timeline.apply(*(ended(n) for n in range(15, 31)))
    timeline.wait(INTERVAL + WAIT)
    assert timeline.last.status == ENDED
    assert len(timeline.last.members) + sum(timeline.last.dropped.values()) == 21


def test_many_updates_come_in_portions(timeline: Timeline) -> None:
    timeline.apply(*(mitigation(n, hostgroup=f"group {n}") for n in range(250)))
    timeline.now += WAIT
    sizes = [len(timeline.storms.due(timeline.now)) for _ in range(4)]
    assert (sum(sizes), max(sizes)) == (250, 100)


def test_update_has_positions_of_its_changes(timeline: Timeline) -> None:
    timeline.apply(mitigation(1), mitigation(2), mitigation(1))
    timeline.wait(WAIT)
    assert timeline.last.positions == ((0, 1), (0, 2))
    timeline.apply(ended(1), ended(2))
    timeline.wait(WAIT)
    assert timeline.last.positions == ((0, 4), (0, 5))


def test_recalled_storm_ends_with_same_identity(timeline: Timeline) -> None:
    records = [
        mitigation(n, created_at=START + timedelta(seconds=n)) for n in (1, 2, 3)
    ]
    timeline.apply(*records)
    timeline.wait(WAIT)
    over = StormMember(
        ended(1, created_at=records[0].created_at),
        ended_because=UNBAN,
        ended_at=START + timedelta(seconds=60),
    )
    restarted = Timeline()
    members = [over, *map(StormMember, records[1:])]
    restarted.storms.recall(members, restarted.now)
    assert restarted.wait(60) == []
    assert len(restarted.storms.renewals(restarted.now)) == 1
    restarted.apply(ended(2), ended(3))
    assert restarted.wait(WAIT) == [ENDED]
    assert restarted.last.first == timeline.last.first
    assert len(restarted.last.members) == 3


def test_ended_storm_is_not_recalled(timeline: Timeline) -> None:
    over = StormMember(ended(), ended_because=UNBAN, ended_at=START)
    timeline.storms.recall([over], timeline.now)
    assert timeline.apply(ended()) == [False]
    assert timeline.wait(3600) == []


def test_earlier_storm_is_not_joined_to_active_one(timeline: Timeline) -> None:
    active = StormMember(mitigation(2, created_at=START + timedelta(hours=2)))
    earlier = START + timedelta(hours=1)
    over = StormMember(ended(1), ended_because=UNBAN, ended_at=earlier)
    timeline.storms.recall([over, active], timeline.now)
    timeline.apply(ended(2))
    assert timeline.wait(WAIT) == [ENDED]
    assert len(timeline.last.members) == 1


def test_recalled_pause_is_not_reported_again(timeline: Timeline) -> None:
    timeline.storms.recall([StormMember(pause())], timeline.now)
    assert timeline.apply(pause()) == [False]
    assert timeline.apply(pause("ended")) == [True]


def test_old_ends_are_only_counted(
    timeline: Timeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.storms.grouper._MAX_ENDED", 2)
    timeline.apply(*(mitigation(n) for n in range(10)))
    timeline.wait(WAIT)
    timeline.apply(*(ended(n) for n in range(9)))
    timeline.wait(INTERVAL)
    assert len(timeline.last.members) == 10
    timeline.apply(ended(9))
    timeline.wait(WAIT)
    assert len(timeline.last.members) == 3
    assert timeline.last.dropped == {("blackhole", UNBAN): 7}


Step = tuple[int, str, float, float]
_STEPS = st.lists(
    st.tuples(
        st.integers(1, 6),
        st.sampled_from(["proposed", "wanted", "ended", "suppressed"]),
        st.sampled_from([0.0, 1.0, 9.0, 11.0, 200.0, 400.0]),
        st.sampled_from([inf, 60.0, 900.0]),
    ),
    max_size=40,
)


def played(steps: list[Step]) -> Timeline:
    timeline = Timeline()
    for number, state, gap, ends in steps:
        record = mitigation(number, state, hostgroup=("web", "mail")[number % 2])
        timeline.apply(replace(record, ended_because="unban"), ends=ends)
        timeline.wait(gap)
    for number in range(1, 7):
        timeline.apply(ended(number))
    timeline.wait(24 * 3600)
    return timeline


def storms_of(timeline: Timeline) -> Iterator[list[tuple[float, StormUpdate]]]:
    for group in ("web", "mail"):
        storm: list[tuple[float, StormUpdate]] = []
        for at, update in timeline.updates:
            if update.group.name == group:
                storm.append((at, update))
                if update.status == ENDED:
                    yield storm
                    storm = []
        assert storm == [], "a storm that never ended"


@settings(max_examples=200, deadline=None)
@given(_STEPS)
def test_storms_are_complete_and_lose_no_change(steps: list[Step]) -> None:
    """A storm starts once, continues at most once an interval, and ends once."""
    timeline = played(steps)
    for storm in storms_of(timeline):
        statuses = [update.status for _, update in storm]
        assert statuses[0] == STARTED
        assert set(statuses[1:-1]) <= {CONTINUES}
        assert statuses[-1] == ENDED
        times = [at for at, update in storm if update.status != ENDED]
        assert all(later - at >= INTERVAL for at, later in pairwise(times))
        keys: set[str] = set()
        for _, update in storm:
            keys |= update.started
            assert update.started <= update.changed
            assert {member.mitigation.key for member in update.members} == keys
        assert all(member.ended_because for member in storm[-1][1].members)
    positions = [p.offset for _, update in timeline.updates for p in update.positions]
    assert sorted(positions) == timeline.news
