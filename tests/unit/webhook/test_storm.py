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
from consumers.webhook.bulletin import (
    CONTINUES,
    OTHER,
    OVER,
    PAUSED,
    RESUMED,
    SILENT,
    STARTED,
    Bulletin,
    Member,
    group_of,
    why_over,
)
from consumers.webhook.storm import Storms
from fnm_bus.event import Effect, Mitigation

START = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
WAIT, INTERVAL, GRACE = 10.0, 300.0, 30.0


def mitigation(number: int = 1, state: str = "wanted", **other: object) -> Mitigation:
    prefix = f"192.0.2.{number}/32"
    facts = {
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
    return Mitigation(**{**facts, **other})  # type: ignore[arg-type]


def ended(number: int = 1, because: str = "unban", **other: object) -> Mitigation:
    return mitigation(number, "ended", ended_because=because, **other)


class Desk:
    """Storms with a clock that is set by hand, and all bulletins so far."""

    def __init__(self) -> None:
        self.storms: Storms[int] = Storms(WAIT, INTERVAL, GRACE)
        self.now = 1000.0
        self.told: list[tuple[float, Bulletin[int]]] = []
        self.tokens = 0

    def take(self, *records: Mitigation, ends: float = inf) -> list[bool]:
        found = []
        for it in records:
            self.tokens += 1
            found.append(self.storms.take(it, self.now, self.now + ends, self.tokens))
        return found

    def wait(self, seconds: float) -> list[str]:
        """Let time pass from one due time to the next; return what was told."""
        end, before = self.now + seconds, len(self.told)
        while (at := self.storms.next()) <= end:
            self.now = max(self.now, at)
            self.told += [(self.now, it) for it in self.storms.due(self.now)]
        self.now = end
        assert self.storms.due(end) == []
        return [it.status for _, it in self.told[before:]]

    @property
    def last(self) -> Bulletin[int]:
        return self.told[-1][1]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_thousand_bans_are_told_once_when_they_start_and_once_when_they_are_over(
    desk: Desk,
) -> None:
    keys = [f"blackhole|{number}" for number in range(1000)]
    desk.take(*(mitigation(key=key) for key in keys))
    assert desk.wait(WAIT - 0.1) == []
    assert desk.wait(0.1) == [STARTED]
    assert len(desk.last.fresh) == 1000
    assert desk.wait(3600) == []
    desk.take(*(ended(key=key) for key in keys))
    assert desk.wait(WAIT) == [OVER]
    assert [it.over for it in desk.last.members] == [UNBAN] * 1000
    assert desk.wait(3600) == []


def test_a_renewal_is_no_news(desk: Desk) -> None:
    assert desk.take(mitigation()) == [True]
    assert desk.take(mitigation(revision=2), mitigation(revision=3)) == [False, False]
    desk.wait(WAIT)
    assert desk.take(mitigation(revision=4)) == [False]
    assert desk.wait(3600) == []


def test_a_changed_state_is_news(desk: Desk) -> None:
    desk.take(mitigation(state="proposed"))
    desk.wait(INTERVAL + WAIT)
    assert desk.take(mitigation()) == [True]
    assert desk.wait(WAIT) == [CONTINUES]
    assert (desk.last.fresh, desk.last.changed) == (
        frozenset(),
        {mitigation().key},
    )


def test_while_a_storm_goes_on_news_wait_for_the_interval(desk: Desk) -> None:
    desk.take(mitigation(1))
    desk.wait(WAIT)
    desk.take(mitigation(2))
    assert desk.wait(INTERVAL - 1) == []
    desk.take(mitigation(3))
    assert desk.wait(1) == [CONTINUES]
    assert len(desk.last.fresh) == 2


def test_a_storm_is_not_over_when_something_starts_within_the_wait(desk: Desk) -> None:
    desk.take(mitigation(1))
    desk.wait(WAIT)
    desk.take(ended(1))
    desk.wait(WAIT - 1)
    desk.take(mitigation(2))
    assert desk.wait(INTERVAL) == [CONTINUES]
    desk.take(ended(2))
    assert desk.wait(WAIT) == [OVER]
    assert len(desk.last.members) == 2


def test_what_started_and_ended_within_the_wait_is_told_twice(desk: Desk) -> None:
    desk.take(mitigation())
    desk.wait(1)
    desk.take(ended())
    assert desk.wait(3600) == [STARTED, OVER]


def test_hostgroups_are_told_of_apart(desk: Desk) -> None:
    desk.take(mitigation(1), mitigation(2, hostgroup="mail"))
    assert desk.wait(WAIT) == [STARTED, STARTED]


@pytest.mark.parametrize(
    ("group", "customer", "wanted"),
    [
        ("web", "acme", ("hostgroup", "web")),
        (None, "acme", ("customer", "acme")),
        (None, None, ("all", "")),
    ],
)
def test_a_storm_belongs_to_the_hostgroup_else_the_customer_else_all(
    group: str | None, customer: str | None, wanted: tuple[str, str]
) -> None:
    assert group_of(mitigation(hostgroup=group, customer=customer)) == wanted


def test_a_mitigation_stays_in_its_storm_when_its_hostgroup_is_learnt_later(
    desk: Desk,
) -> None:
    desk.take(mitigation(hostgroup=None))
    desk.wait(WAIT)
    desk.take(mitigation(hostgroup="web"), ended(hostgroup="web"))
    assert desk.wait(3600) == [OVER]


@pytest.mark.parametrize("state", ["ended", "suppressed"])
def test_an_end_of_what_was_never_seen_says_nothing(desk: Desk, state: str) -> None:
    assert desk.take(mitigation(state=state)) == [False]
    assert desk.wait(3600) == []


def test_a_pause_is_reported_at_once(desk: Desk) -> None:
    desk.take(mitigation(key="pause", kind="pause"))
    assert desk.wait(0) == [PAUSED]
    assert desk.take(mitigation(key="pause", kind="pause")) == [False]
    desk.take(ended(key="pause", kind="pause"))
    assert desk.wait(0) == [RESUMED]


def test_a_button_that_was_never_pressed_says_nothing(desk: Desk) -> None:
    assert desk.take(ended(key="pause", kind="pause")) == [False]


def test_a_pause_masks_and_ends_no_storm(desk: Desk) -> None:
    desk.take(mitigation(1), mitigation(2))
    desk.wait(WAIT)
    desk.take(mitigation(key="pause", kind="pause"))
    assert desk.wait(3600) == [PAUSED]
    assert [one.mitigation.key for one in desk.last.members] == [
        mitigation(1).key,
        mitigation(2).key,
    ]
    desk.take(ended(1))
    assert desk.wait(INTERVAL) == [CONTINUES]
    desk.take(ended(key="pause", kind="pause", because="operator"))
    assert desk.wait(3600) == [RESUMED]
    assert [one.mitigation.key for one in desk.last.members] == [mitigation(2).key]


def test_notices_made_during_a_pause_are_marked(desk: Desk) -> None:
    desk.take(mitigation(key="pause", kind="pause"), mitigation(1))
    desk.wait(WAIT)
    assert [(it.status, it.paused) for _, it in desk.told] == [
        (PAUSED, True),
        (STARTED, True),
    ]
    desk.take(ended(key="pause", kind="pause"), mitigation(2))
    desk.wait(INTERVAL)
    assert [(it.status, it.paused) for _, it in desk.told[2:]] == [
        (RESUMED, False),
        (CONTINUES, False),
    ]


def test_a_lease_that_ran_out_without_a_word_ends_a_storm(desk: Desk) -> None:
    desk.take(mitigation(), ends=900)
    assert desk.wait(900 + GRACE + WAIT - 1) == [STARTED]
    assert desk.wait(1) == [OVER]
    assert [it.over for it in desk.last.members] == [SILENT]


def test_a_renewal_moves_the_end_of_a_lease(desk: Desk) -> None:
    desk.take(mitigation(), ends=900)
    desk.wait(600)
    desk.take(mitigation(), ends=900)
    assert desk.wait(900) == []
    assert desk.wait(GRACE + WAIT) == [OVER]


def test_a_renewal_after_its_end_begins_anew(desk: Desk) -> None:
    desk.take(mitigation(), ends=60)
    assert desk.wait(3600) == [STARTED, OVER]
    first = desk.last
    assert desk.take(mitigation(), ends=60) == [True]
    assert desk.wait(WAIT) == [STARTED]
    assert desk.last.first == first.first
    assert desk.last.again == first.again + 1


@pytest.mark.parametrize(
    ("after", "why"),
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
@pytest.mark.parametrize("cause", ["ended by ann: x", "its lease ran out", "unban by"])
def test_codes_decide_why_a_mitigation_ended_and_sentences_do_not(
    after: Mitigation, why: str, cause: str
) -> None:
    assert why_over(replace(after, cause=cause)) == why


def test_a_lease_that_ran_out_is_no_reason_when_the_record_names_another(
    desk: Desk,
) -> None:
    desk.take(mitigation(expires_at=START + timedelta(seconds=900)))
    desk.take(ended(because=POLICY, changed_at=START + timedelta(seconds=900)))
    desk.wait(3600)
    assert [one.over for one in desk.last.members] == [POLICY]


def test_a_storm_keeps_its_name_when_a_proposal_is_approved(desk: Desk) -> None:
    never = datetime(1970, 1, 1, tzinfo=UTC)
    desk.take(mitigation(state="proposed", started_at=never))
    desk.wait(WAIT)
    first = desk.last.first
    assert first.created_at == START
    again = Desk()
    later = START + timedelta(minutes=5)
    again.storms.remember([Member(mitigation(started_at=later))], again.now)
    again.take(ended())
    again.wait(WAIT)
    assert again.last.first == first


def test_a_change_that_waits_for_approval_is_news(desk: Desk) -> None:
    desk.take(mitigation())
    desk.wait(INTERVAL)
    waiting = mitigation(pending=Effect(communities=("64500:1",)))
    assert desk.take(waiting, waiting, mitigation()) == [True, False, False]


def test_the_default_hostgroup_is_not_a_group() -> None:
    one = mitigation(hostgroup="global", customer="acme")
    assert group_of(one) == ("customer", "acme")
    assert group_of(replace(one, customer=None)) == ("all", "")


def test_more_mitigations_than_the_bound_are_left_out(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.webhook.storm._MAX_MITIGATIONS", 20)
    assert sum(desk.take(*(mitigation(n) for n in range(30)))) == 20
    assert desk.storms.left_out == 10
    desk.wait(WAIT)
    # The ones that ended make room for new ones.
    desk.take(*(ended(n) for n in range(15)))
    desk.wait(INTERVAL)
    assert desk.take(mitigation(30)) == [True]
    desk.take(*(ended(n) for n in range(15, 31)))
    desk.wait(INTERVAL + WAIT)
    assert desk.last.status == OVER
    assert len(desk.last.members) + sum(desk.last.gone.values()) == 21


def test_many_notices_are_made_in_portions(desk: Desk) -> None:
    desk.take(*(mitigation(n, hostgroup=f"group {n}") for n in range(250)))
    desk.now += WAIT
    sizes = [len(desk.storms.due(desk.now)) for _ in range(4)]
    assert (sum(sizes), max(sizes)) == (250, 100)


def test_what_comes_with_changes_comes_back_with_the_bulletin(desk: Desk) -> None:
    desk.take(mitigation(1), mitigation(2), mitigation(1))
    desk.wait(WAIT)
    assert desk.last.tokens == (1, 2)
    desk.take(ended(1), ended(2))
    desk.wait(WAIT)
    assert desk.last.tokens == (4, 5)


def test_after_a_restart_a_storm_that_was_told_ends_with_the_same_name(
    desk: Desk,
) -> None:
    records = [
        mitigation(n, created_at=START + timedelta(seconds=n)) for n in (1, 2, 3)
    ]
    desk.take(*records)
    desk.wait(WAIT)
    first = desk.last.first
    ended_at = START + timedelta(seconds=60)
    over = Member(ended(1, created_at=records[0].created_at), inf, UNBAN, ended_at)
    again = Desk()
    again.storms.remember([over, *(Member(it) for it in records[1:])], again.now)
    assert again.wait(60) == []
    again.take(ended(2), ended(3))
    assert again.wait(WAIT) == [OVER]
    assert again.last.first == first
    assert len(again.last.members) == 3


def test_what_was_over_before_a_restart_is_not_told_again(desk: Desk) -> None:
    desk.storms.remember([Member(ended(), inf, UNBAN, START)], desk.now)
    assert desk.take(ended()) == [False]
    assert desk.wait(3600) == []


def test_an_old_storm_is_not_joined_to_the_one_that_stands(desk: Desk) -> None:
    standing = mitigation(2, created_at=START + timedelta(hours=2))
    old = Member(ended(1), inf, UNBAN, START + timedelta(hours=1))
    desk.storms.remember([old, Member(standing)], desk.now)
    desk.take(ended(2))
    assert desk.wait(WAIT) == [OVER]
    assert len(desk.last.members) == 1


def test_a_pause_that_was_told_is_not_told_again(desk: Desk) -> None:
    desk.storms.remember([Member(mitigation(key="pause", kind="pause"))], desk.now)
    assert desk.take(mitigation(key="pause", kind="pause")) == [False]
    assert desk.take(ended(key="pause", kind="pause")) == [True]


def test_what_ended_long_ago_is_only_counted(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.webhook.gathering._KEPT", 2)
    desk.take(*(mitigation(n) for n in range(10)))
    desk.wait(WAIT)
    desk.take(*(ended(n) for n in range(9)))
    desk.wait(INTERVAL)
    assert len(desk.last.members) == 10
    desk.take(ended(9))
    desk.wait(WAIT)
    assert len(desk.last.members) == 3
    assert desk.last.gone == {("blackhole", UNBAN): 7}


_STEPS = st.lists(
    st.tuples(
        st.integers(1, 6),
        st.sampled_from(["proposed", "wanted", "ended", "suppressed"]),
        st.sampled_from([0.0, 1.0, 9.0, 11.0, 200.0, 400.0]),
        st.sampled_from([inf, 60.0, 900.0]),
    ),
    max_size=40,
)


def _played(steps: list[tuple[int, str, float, float]]) -> Desk:
    desk = Desk()
    for number, state, pause, ends in steps:
        group = ("web", "mail")[number % 2]
        it = mitigation(number, state, hostgroup=group)
        desk.take(replace(it, ended_because="unban"), ends=ends)
        desk.wait(pause)
    for number in range(1, 7):
        desk.take(ended(number))
    desk.wait(24 * 3600)
    return desk


def _storms(desk: Desk) -> Iterator[list[tuple[float, Bulletin[int]]]]:
    for group in ("web", "mail"):
        storm: list[tuple[float, Bulletin[int]]] = []
        for at, it in desk.told:
            if it.group.name == group:
                storm.append((at, it))
                if it.status == OVER:
                    yield storm
                    storm = []
        assert storm == [], "a storm that never ended"


@settings(max_examples=200, deadline=None)
@given(_STEPS)
def test_each_storm_is_begun_once_and_over_once(
    steps: list[tuple[int, str, float, float]],
) -> None:
    for storm in _storms(_played(steps)):
        statuses = [it.status for _, it in storm]
        assert statuses[0] == STARTED
        assert set(statuses[1:-1]) <= {CONTINUES}
        assert statuses[-1] == OVER


@settings(max_examples=200, deadline=None)
@given(_STEPS)
def test_a_storm_that_goes_on_is_told_of_once_an_interval(
    steps: list[tuple[int, str, float, float]],
) -> None:
    for storm in _storms(_played(steps)):
        times = [at for at, it in storm if it.status != OVER]
        assert all(b - a >= INTERVAL for a, b in pairwise(times))


@settings(max_examples=200, deadline=None)
@given(_STEPS)
def test_every_change_is_told_once_and_counts_are_right(
    steps: list[tuple[int, str, float, float]],
) -> None:
    desk = Desk()
    news = []
    take = desk.storms.take

    def noted(it: Mitigation, now: float, ends: float, token: int) -> bool:
        if take(it, now, ends, token):
            news.append(token)
            return True
        return False

    desk.storms.take = noted  # type: ignore[method-assign]
    for number, state, pause, ends in steps:
        desk.take(mitigation(number, state), ends=ends)
        desk.wait(pause)
    desk.take(*(ended(number) for number in range(1, 7)))
    desk.wait(24 * 3600)
    assert sorted(token for _, it in desk.told for token in it.tokens) == news
    for storm in _web(desk):
        keys: set[str] = set()
        for it in storm:
            keys |= it.fresh
            assert it.fresh <= it.changed
            assert {one.mitigation.key for one in it.members} == keys


def _web(desk: Desk) -> Iterator[list[Bulletin[int]]]:
    storm: list[Bulletin[int]] = []
    for _, it in desk.told:
        storm.append(it)
        if it.status == OVER:
            assert all(one.over for one in it.members)
            yield storm
            storm = []
