"""Leases of records in any order, on clocks that differ."""

from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from consumers.enforcers.lease_table import LeaseTable
from consumers.mitigation import clock
from consumers.mitigation.clock import BrokerClock
from fnm_bus.event import Mitigation

DAY = 86_400.0
EPOCH = 1_800_000_000.0
"""The broker's time when this machine started."""


def mitigation(key: str, lease_ms: int, state: str, *, dry: bool) -> Mitigation:
    kind, _, prefix = key.partition("|")
    return Mitigation(
        key=key, kind=kind, state=state, prefix=prefix, lease_ms=lease_ms, dry_run=dry
    )


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["wanted", "ended", "proposed", "tombstone"]),
            st.sampled_from(["blackhole|203.0.113.1/32", "blackhole|203.0.113.2/32"]),
            st.integers(-100, 100_000),
            st.floats(-200, 200),
            st.booleans(),
        ),
        max_size=20,
    ),
    st.booleans(),
    st.booleans(),
    st.floats(-3 * DAY, 3 * DAY),
)
def test_no_measure_outlasts_its_latest_lease(
    records: list[tuple[str, str, int, float, bool]],
    synced: bool,  # noqa: FBT001 - a parameter of the test
    time_known: bool,  # noqa: FBT001 - as above
    offset: float,
) -> None:
    now = 1000.0
    with mock.patch.object(clock, "now", return_value=now):
        broker = BrokerClock()
        if time_known:
            broker.learn(now, now, EPOCH + now + offset)
        table = LeaseTable("memory", frozenset({"blackhole"}), broker)
        for state, key, lease_ms, age, dry in records:
            event = mitigation(key, lease_ms, state, dry=dry)
            stamp = EPOCH + now + offset - age
            broker.witness(stamp)
            if state == "tombstone" or not table.is_wanted_here(event):
                table.apply_end(key)
            else:
                table.apply_wanted(key, event, stamp, now)
        if synced:
            table.topic_complete()
        active = table.active_at(now)
        for key, lease in active.items():
            assert synced
            assert time_known
            last = [record for record in records if record[1] == key][-1]
            assert last[0] == "wanted"
            assert not last[4]
            assert now < lease.ends <= now + last[2] / 1000 - max(last[3], 0) + 1e-3
        if synced and time_known:
            for state, key, lease_ms, age, dry in records[-1:]:
                if state == "wanted" and not dry and lease_ms / 1000 > max(age, 0) + 1:
                    assert key in active


def test_lease_is_limited_to_a_day() -> None:
    broker = BrokerClock()
    now = clock.now()
    broker.learn(now, now, EPOCH)
    table = LeaseTable("memory", frozenset({"blackhole"}), broker)
    table.topic_complete()
    key = "blackhole|203.0.113.1/32"
    event = mitigation(key, 2**63 - 1, "wanted", dry=False)
    table.apply_wanted(key, event, EPOCH, now)
    assert now + DAY - 5 < table.active_at(now)[key].ends <= now + DAY
    assert table.active_at(now + DAY) == {}
