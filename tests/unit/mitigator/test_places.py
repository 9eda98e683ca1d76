"""One match that is wanted at every enforcer, and at this one in particular."""

import pytest

from consumers.enforcers.lease_table import LeaseTable
from consumers.mitigation import clock
from consumers.mitigation.clock import BrokerClock
from consumers.mitigation.reason_key import mitigation_key
from fnm_bus.event import FlowMatch, FlowThen, Mitigation

MATCH = 'flowspec|{"destination_prefix":"203.0.113.1/32","protocols":["udp"]}'
LIMIT = FlowThen(action="rate-limit", rate=125_000)
STAMP = 1_800_000_000.0
"""The broker's time of every record, seconds since 1970."""
DISCARD = FlowThen(action="discard")


class Table:
    """The lease table of the enforcer exabgp, read to its end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(clock, "now", lambda: self.now)
        broker = BrokerClock()
        broker.learn(self.now, self.now, STAMP)
        self.table = LeaseTable("exabgp", frozenset({"flowspec"}), broker)
        self.table.topic_complete()

    def want(self, then: FlowThen, place: str, lease: int, *communities: str) -> None:
        record = Mitigation(
            key=mitigation_key(MATCH, place),
            place=place,
            kind="flowspec",
            state="wanted",
            flow=FlowMatch(destination_prefix="203.0.113.1/32", protocols=("udp",)),
            then=then,
            communities=communities,
            lease_ms=lease * 1000,
        )
        if self.table.is_wanted_here(record):
            self.table.apply_wanted(record.key, record, STAMP, self.now)

    def actions(self) -> list[FlowThen | None]:
        leases = self.table.active_at(self.now).values()
        return [lease.measure.then for lease in leases]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    return Table(monkeypatch)


@pytest.mark.parametrize("here_first", [True, False])
def test_the_stronger_effect_of_both_places_counts(
    table: Table, *, here_first: bool
) -> None:
    wants = [(DISCARD, "exabgp"), (LIMIT, "")]
    for then, place in wants if here_first else reversed(wants):
        table.want(then, place, 60)
    assert table.actions() == [DISCARD]


def test_the_weaker_effect_remains_when_the_stronger_one_expires(table: Table) -> None:
    table.want(DISCARD, "exabgp", 60)
    table.want(LIMIT, "", 600)
    table.now += 61
    assert table.actions() == [LIMIT]


def test_end_at_one_place_keeps_the_other_place(table: Table) -> None:
    table.want(DISCARD, "exabgp", 60)
    table.want(LIMIT, "", 60)
    assert table.table.apply_end(mitigation_key(MATCH, "exabgp"))
    assert table.actions() == [LIMIT]


def test_other_place_does_not_change_a_mitigation(table: Table) -> None:
    table.want(DISCARD, "edge2", 60)
    assert table.actions() == []


def test_communities_of_both_places_are_united(table: Table) -> None:
    table.want(DISCARD, "exabgp", 60, "64500:1")
    table.want(LIMIT, "", 60, "64500:2")
    [lease] = table.table.active_at(table.now).values()
    assert lease.measure.communities == ("64500:1", "64500:2")
