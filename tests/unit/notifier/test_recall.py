from datetime import timedelta
from math import inf

import pytest
from support.notices import NOW, mitigation, read

from consumers.mitigation.clock import now as boottime
from consumers.notifier.recall import lease_end, members_of


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
