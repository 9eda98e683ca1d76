import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from math import inf
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumers.notifier.document import Cause, Group, Item, Notice
from consumers.notifier.notice import notice_of
from consumers.storms.grouper import StormGrouper
from consumers.storms.update import Position
from fnm_bus.event import Effect, FlowMatch, Mitigation, ReasonSummary

START = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
NOW = START + timedelta(minutes=31)
DOCS = Path(__file__).parents[3] / "docs/reference/notice.md"
NOTIFY = {"key": "notify|198.51.0.1/32", "kind": "notify"}
PAUSE: dict[str, Any] = {
    "key": "pause",
    "kind": "pause",
    "prefix": None,
    "reasons": (),
    "hostgroup": None,
}


def mitigation(number: int = 1, **other: Any) -> Mitigation:
    address = f"198.51.{number // 256}.{number % 256}"
    reason = ReasonSummary(
        sensor="fra1",
        target=address,
        attack=f"uuid-{number}",
        rule="big",
        direction="incoming",
        pps=number * 1000,
        bits=number * 10**7,
    )
    fields = {
        "key": f"blackhole|{address}/32",
        "kind": "blackhole",
        "state": "wanted",
        "prefix": f"{address}/32",
        "hostgroup": "web",
        "created_at": START,
        "started_at": START,
        "changed_at": START,
        "expires_at": START + timedelta(minutes=15),
        "cause": "ban by fra1: rule big",
        "reasons": (reason,),
    }
    return Mitigation(**{**fields, **other})


def ended(number: int = 1, because: str = "unban", **other: Any) -> Mitigation:
    at = START + timedelta(minutes=10)
    end = {"state": "ended", "ended_because": because, "changed_at": at}
    return mitigation(number, **{**end, "cause": f"code {because}", **other})


def notify_only(number: int = 1, **other: Any) -> Mitigation:
    prefix = mitigation(number).prefix
    return mitigation(number, key=f"notify|{prefix}", kind="notify", **other)


def notices(
    *steps: tuple[Mitigation, ...], ends: float = inf, boot: float = 0
) -> list[Notice]:
    """Return the notices of records that come in steps, an hour between two."""
    return list(_notices(steps, ends, boot))


def _notices(
    steps: tuple[tuple[Mitigation, ...], ...], ends: float, boot: float
) -> Iterator[Notice]:
    storms = StormGrouper(10, 300)
    for hour, step in zip(count(), steps, strict=False):
        start = boot + hour * 3600.0
        for record in step:
            storms.apply(record, start, start + ends, Position(0, 0))
        for second in range(10, 3600, 10):
            for update in storms.due(start + second):
                yield notice_of(update, NOW)


def test_thousand_mitigations_make_a_short_notice() -> None:
    (notice,) = notices(tuple(mitigation(number) for number in range(1000)))
    assert notice.title == "1000 mitigations started (hostgroup web)"
    lines = notice.text.splitlines()
    assert lines[0] == "1000 mitigations started: 1000 blackhole."
    assert lines[1].startswith(
        "Largest attacks: 198.51.3.231 incoming 9.99 Gbit/s, 999 kpps (fra1);"
        " 198.51.3.230 incoming "
    )
    assert lines[2].startswith("Prefixes: 198.51.3.231/32, 198.51.3.230/32, ")
    assert lines[2].endswith(" and 990 more")
    assert lines[3:] == [
        "Rules: big",
        "Sensors: fra1",
        "Since 2026-05-01 12:00:00 UTC; until 2026-05-01 12:15:00 UTC unless renewed.",
    ]
    assert (notice.total, notice.started, notice.active) == (1000, 1000, 1000)
    assert (len(notice.prefixes), notice.more_prefixes) == (10, 990)


def test_proposals_dry_runs_and_pending_changes_are_marked() -> None:
    (notice,) = notices(
        (
            mitigation(1, state="proposed"),
            mitigation(2, dry_run=True),
            mitigation(3, pending=Effect()),
            notify_only(4, dry_run=True),
        )
    )
    assert (notice.proposed, notice.pending, notice.dry_run) == (1, 1, 1)
    assert (
        "3 blackhole; 1 waiting for approval; 1 with a change waiting for approval;"
        " 1 dry run."
    ) in notice.text


def test_singular_and_plural() -> None:
    start, end = notices((mitigation(),), (ended(),))
    assert start.title == "1 mitigation started (hostgroup web)"
    assert end.title == "1 mitigation ended (hostgroup web)"


def test_end_has_numbers_duration_and_reasons() -> None:
    cause = "withdrawn by ann: false alarm"
    _, notice = notices(
        tuple(mitigation(number) for number in range(4)),
        (ended(0), ended(1), ended(2, "operator", cause=cause, by="ann"), ended(3)),
    )
    assert notice.ended_because == {"unban": 3, "operator": 1}
    assert notice.text.splitlines()[:2] == [
        "4 mitigations ended: 4 blackhole.",
        "Ended because: 3 unban, 1 operator.",
    ]
    assert f"Cause: {cause}" in notice.text
    times = "From 2026-05-01 12:00:00 UTC to 2026-05-01 12:10:00 UTC: 10 min 0 s."
    assert times in notice.text
    assert (notice.active, notice.seconds) == (0, 600)


@pytest.mark.parametrize(
    ("records", "ends", "code", "remedy"),
    [
        ((ended(1, "lease"),), inf, "lease", "the detector is alive"),
        ((), 900, "silent", "it and Kafka are alive"),
    ],
)
def test_expired_lease_is_an_alarm(
    records: tuple[Mitigation, ...], ends: float, code: str, remedy: str
) -> None:
    notice = notices((mitigation(),), records, ends=ends)[-1]
    assert notice.ended_because == {code: 1}
    assert "LEASE EXPIRED" in notice.text
    assert remedy in notice.text
    assert notice.ended_at is not None


def test_continuing_storm_reports_its_changes() -> None:
    _, notice = notices(
        (mitigation(1), mitigation(2)), (ended(1, "lease"), mitigation(3))
    )
    assert notice.status == "continues"
    assert notice.title == (
        "Continues: 1 started, 1 ended; 2 mitigations active (hostgroup web)"
    )
    assert "LEASE EXPIRED" in notice.text
    assert notice.prefixes == ("198.51.0.3/32", "198.51.0.1/32")


def test_renewal_reports_active_mitigations() -> None:
    storms = StormGrouper(10, 300)
    for record in (mitigation(1), mitigation(2)):
        storms.apply(record, 0, inf, Position(0, 0))
    storms.due(10)
    storms.apply(ended(1), 20, inf, Position(0, 0))
    (update,) = storms.renewals(80)
    notice = notice_of(update, NOW)
    assert notice.title == "1 mitigation active (hostgroup web)"
    assert notice.text.startswith("Of 2: 1 mitigation active.")


def test_pause_and_resume_report_withdrawn_mitigations() -> None:
    records = (
        *(mitigation(1), mitigation(2)),
        *(mitigation(3, dry_run=True), notify_only(4)),
    )
    _, paused, _, resumed = notices(
        records,
        (mitigation(**PAUSE, cause="paused by ann: maintenance"),),
        (ended(2),),
        (ended(**PAUSE, because="operator", cause="resumed by ann: done"),),
    )
    assert (paused.status, resumed.status) == ("paused", "resumed")
    assert paused.title.startswith("Paused: ")
    assert paused.text.splitlines()[0] == "Withdrawn by all enforcers: 2 blackhole."
    assert "Cause: paused by ann: maintenance" in paused.text
    assert (paused.paused, paused.live) == (True, {"blackhole": 2})
    assert paused.prefixes == ("198.51.0.2/32", "198.51.0.1/32")
    assert resumed.title == "Resumed: active mitigations are in force again"
    assert "In force again: 1 blackhole." in resumed.text
    assert "Cause: resumed by ann: done" in resumed.text
    assert (resumed.paused, resumed.live) == (False, {"blackhole": 1})
    assert [item.key for item in resumed.mitigations] == ["blackhole|198.51.0.1/32"]
    assert paused.key != resumed.key
    assert paused.storm == resumed.storm


def test_resume_without_mitigations_reports_none() -> None:
    _, resumed = notices((mitigation(**PAUSE),), (ended(**PAUSE),))
    assert resumed.title == "Resumed: no active mitigations"
    assert "In force again: none." in resumed.text


def test_storm_during_pause_is_not_in_force() -> None:
    _, notice = notices((mitigation(**PAUSE),), (mitigation(1),))
    assert notice.paused
    assert notice.title == (
        "1 mitigation started, paused: nothing is in force (hostgroup web)"
    )
    assert "Paused: nothing is in force until somebody resumes." in notice.text


def test_notify_only_storm_blocks_nothing() -> None:
    start, end = notices((notify_only(),), (ended(**NOTIFY),))
    assert start.title == "1 attack started, nothing blocked (hostgroup web)"
    assert end.title == "1 attack ended, nothing blocked (hostgroup web)"
    assert "mitigation" not in start.text
    assert (start.until, start.notify_only, start.live) == (None, 1, {})


def test_mixed_storm_reports_mitigations_and_attacks() -> None:
    keys = [notify_only(number).key for number in (2, 3, 4)]
    ends = (ended(n, key=key, kind="notify") for n, key in enumerate(keys, 2))
    start, goes_on, end = notices(
        (mitigation(1), notify_only(2), notify_only(3)),
        (notify_only(4),),
        (ended(1), *ends),
    )
    assert start.title == (
        "1 mitigation started; 2 attacks started, nothing blocked (hostgroup web)"
    )
    assert goes_on.title == (
        "Continues: 1 started; 1 mitigation active; 3 attacks active, nothing blocked"
        " (hostgroup web)"
    )
    assert end.title == (
        "1 mitigation ended; 3 attacks ended, nothing blocked (hostgroup web)"
    )
    assert (start.total, start.notify_only) == (3, 2)
    assert "; until 2026-05-01 12:15:00 UTC" in start.text


def test_attack_has_size_and_direction() -> None:
    reason = ReasonSummary(
        target="192.0.2.1",
        sensor="fra1",
        direction="outgoing",
        attack="u1",
        bits=40_000_000,
    )
    small = ReasonSummary(target="192.0.2.1", sensor="fra1", direction="outgoing")
    (notice,) = notices((mitigation(reasons=(small, reason)),))
    assert notice.largest == (reason,)
    assert "Largest attacks: 192.0.2.1 outgoing 40 Mbit/s (fra1)" in notice.text


def test_item_counts_all_reasons() -> None:
    counts = {"live_reasons": 65_000, "pending_reasons": 2, "dry_reasons": 1}
    (notice,) = notices((mitigation(**counts),))
    assert notice.mitigations[0].reasons == 65_003


def test_proposal_has_no_start() -> None:
    never = datetime(1970, 1, 1, tzinfo=UTC)
    (notice,) = notices((mitigation(state="proposed", started_at=never),))
    (item,) = notice.mitigations
    assert (notice.since, item.created_at, item.started_at) == (START, START, None)


def test_records_read_again_have_the_same_keys() -> None:
    steps = (
        (mitigation(2), mitigation(1)),
        (mitigation(3),),
        (ended(1), ended(2)),
        (ended(3),),
    )
    first, second = notices(*steps), notices(*steps, boot=77)
    statuses = [notice.status for notice in first]
    assert statuses == ["started", "continues", "continues", "ended"]
    assert [notice.key for notice in first] == [notice.key for notice in second]
    assert len({notice.key for notice in first}) == 4
    assert len({notice.storm for notice in first}) == 1


def test_order_of_partitions_changes_no_key() -> None:
    (notice,) = notices((mitigation(1), mitigation(2)))
    (reverse,) = notices((mitigation(2), mitigation(1)))
    assert notice.key == reverse.key


@pytest.mark.parametrize(
    "other",
    [{"hostgroup": "mail"}, {"created_at": START + timedelta(seconds=1)}, {"key": "x"}],
)
def test_another_storm_has_another_key(other: dict[str, Any]) -> None:
    (notice,), (another,) = notices((mitigation(),)), notices((mitigation(**other),))
    assert notice.key != another.key
    assert notice.storm != another.storm


@pytest.mark.parametrize(
    ("flow", "prefix"),
    [
        (FlowMatch(destination_prefix="198.51.100.7/32"), "198.51.100.7/32"),
        (FlowMatch(), "any"),
    ],
)
def test_flow_has_the_name_of_its_network(flow: FlowMatch, prefix: str) -> None:
    (notice,) = notices((mitigation(kind="flowspec", prefix=None, flow=flow),))
    assert notice.prefixes == (prefix,)


def test_long_list_of_mitigations_is_cut() -> None:
    (notice,) = notices(tuple(mitigation(number) for number in range(1001)))
    assert (len(notice.mitigations), notice.more_mitigations) == (1000, 1)


def test_name_cannot_break_a_line() -> None:
    (notice,) = notices((mitigation(hostgroup="a\nIt is over\x1b[2J"),))
    assert notice.title == "1 mitigation started (hostgroup a It is over [2J)"


def test_document_is_json_with_a_version() -> None:
    (notice,) = notices((mitigation(),))
    body = msgspec.json.encode(notice)
    document = json.loads(body)
    assert document["version"] == 1
    assert document["since"] == "2026-05-01T12:00:00Z"
    assert document["mitigations"][0]["ended_because"] is None
    assert msgspec.json.decode(body, type=Notice) == notice


@pytest.mark.parametrize("kind", [Notice, Group, Cause, Item])
def test_every_field_is_described(kind: type[msgspec.Struct]) -> None:
    described = set(
        re.findall(r"^\| `(\w+)` \|", DOCS.read_text("utf-8"), re.MULTILINE)
    )
    assert set(kind.__struct_fields__) <= described
