from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

import pytest

from consumers.mitigation.clock import now as boottime
from consumers.notifier.recall import lease_end, members_of
from fnm_bus.event import (
    Mitigation,
)
from fnm_bus.kafka.reader import ConsumedRecord

NOW = datetime.now(UTC)


def mitigation(state: str = "wanted", **other: Any) -> Mitigation:
    fields = {
        "key": "blackhole|192.0.2.1/32",
        "kind": "blackhole",
        "prefix": "192.0.2.1/32",
        "ended_because": "unban" if state == "ended" else "",
    }
    times = {"created_at": NOW, "started_at": NOW, "changed_at": NOW}
    return Mitigation(**{**fields, **times, "state": state, **other})


def read(offset: int, event: Any, at: datetime = NOW) -> ConsumedRecord:
    return ConsumedRecord("m", 0, offset, at, b"k", (), b"v", event, "")


@pytest.mark.parametrize(("age", "rest"), [(-1e6, 900), (0, 900), (600, 300), (1e6, 0)])
def test_lease_is_never_longer_than_its_record(age: float, rest: float) -> None:
    lease = mitigation(lease_ms=900_000)
    end = lease_end(lease, NOW, NOW.timestamp() + age) - boottime()
    assert end == pytest.approx(rest, abs=1)
    assert lease_end(mitigation(), NOW, NOW.timestamp()) == inf


def test_recalled_records_become_members() -> None:
    records = [
        read(0, mitigation(lease_ms=900_000)),
        read(1, mitigation("ended")),
        read(2, mitigation(key="pause", kind="pause", prefix=None)),
        read(3, None),
    ]
    members = members_of(records, NOW.timestamp())
    assert [member.ended_because for member in members] == ["", "unban", ""]


@pytest.mark.parametrize(("age", "count"), [(48, 0), (2, 1)])
def test_lease_expired_long_ago_is_not_recalled(age: int, count: int) -> None:
    record = read(0, mitigation(lease_ms=900_000), NOW - timedelta(hours=age))
    assert len(list(members_of([record], NOW.timestamp()))) == count
