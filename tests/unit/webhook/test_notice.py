import json
import re
from datetime import UTC, datetime, timedelta
from itertools import count
from math import inf
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumers.webhook.bulletin import Bulletin
from consumers.webhook.notice import body, escaped, notice_of, slack
from consumers.webhook.notice_fields import Attack, Cause, Item, Notice, Whose
from consumers.webhook.storm import Storms
from fnm_bus.event import Effect, FlowMatch, Mitigation, ReasonSummary

START = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
NOW = START + timedelta(minutes=31)
DOCS = Path(__file__).parents[3] / "docs/reference/notice.md"


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
    facts = {
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
    return Mitigation(**{**facts, **other})


def over(number: int = 1, because: str = "unban", **other: Any) -> Mitigation:
    at = START + timedelta(minutes=10)
    ends = {"state": "ended", "ended_because": because, "changed_at": at}
    return mitigation(number, **{**ends, "cause": f"code {because}", **other})


def informing(number: int = 1, **other: Any) -> Mitigation:
    prefix = mitigation(number).prefix
    return mitigation(number, key=f"notify|{prefix}", kind="notify", **other)


def told(*steps: tuple[Mitigation, ...], ends: float = inf) -> list[Notice]:
    """Return the notices of records that come in steps, an hour between two."""
    return [notice_of(it, NOW) for it in bulletins(*steps, ends=ends)]


def bulletins(
    *steps: tuple[Mitigation, ...], ends: float = inf
) -> list[Bulletin[object]]:
    storms: Storms[object] = Storms(10, 300)
    found = []
    for hour, step in zip(count(), steps, strict=False):
        for it in step:
            storms.take(it, hour * 3600, hour * 3600 + ends, None)
        for second in range(10, 3600, 10):
            found += storms.due(hour * 3600 + second)
    return found


def test_a_thousand_mitigations_make_a_short_notice() -> None:
    everything = tuple(mitigation(number) for number in range(1000))
    (notice,) = told(everything)
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
    assert (notice.total, notice.started, notice.standing) == (1000, 1000, 1000)
    assert (len(notice.prefixes), notice.more_prefixes) == (10, 990)


def test_what_waits_for_approval_and_what_is_tried_only_is_said() -> None:
    (notice,) = told(
        (mitigation(1, state="proposed"), mitigation(2, dry_run=True), mitigation(3))
    )
    assert (notice.proposed, notice.dry_run) == (1, 1)
    assert "3 blackhole; 1 waits for approval; 1 only as a dry run." in notice.text


def test_a_notice_of_one_speaks_of_one() -> None:
    started, ended = told((mitigation(),), (over(),))
    assert started.title == "1 mitigation started (hostgroup web)"
    assert ended.title == "It is over: 1 mitigation ended (hostgroup web)"


def test_the_end_says_how_many_how_long_and_why() -> None:
    records = tuple(mitigation(number) for number in range(4))
    ends = (
        over(0),
        over(1),
        over(2, "operator", cause="withdrawn by ann: false alarm", by="ann"),
        over(3),
    )
    _, notice = told(records, ends)
    assert notice.ends == {"unban": 3, "operator": 1}
    assert notice.text.splitlines()[:2] == [
        "4 mitigations ended, none is active: 4 blackhole.",
        "Ended by an unban: 3, by a person: 1.",
    ]
    assert "Cause: withdrawn by ann: false alarm" in notice.text
    assert "From 2026-05-01 12:00:00 UTC to 2026-05-01 12:10:00 UTC: 10 min 0 s." in (
        notice.text
    )
    assert (notice.standing, notice.seconds) == (0, 600)


def test_a_lease_that_ran_out_is_said_loudly() -> None:
    _, notice = told((mitigation(),), (over(1, "lease"),))
    assert notice.ends == {"lease": 1}
    assert "because the LEASE RAN OUT: 1." in notice.text
    assert "check that the detector is alive" in notice.text


def test_a_mitigator_that_says_nothing_is_said_loudly() -> None:
    _, notice = told((mitigation(),), ends=900)
    assert notice.ends == {"silent": 1}
    assert "No word from the mitigator: check that it and Kafka are alive" in (
        notice.text
    )
    assert notice.ended_at == START + timedelta(minutes=15)


def test_a_lease_that_ran_out_while_the_storm_goes_on_is_said_at_once() -> None:
    lapsed = over(1, "lease")
    _, notice = told((mitigation(1), mitigation(2)), (lapsed, mitigation(3)))
    assert notice.status == "continues"
    assert notice.title == "Going on: 1 started, 1 ended; 2 active (hostgroup web)"
    assert "check that the detector is alive" in notice.text
    assert notice.prefixes == ("198.51.0.3/32", "198.51.0.1/32")


PAUSE: dict[str, Any] = {
    "key": "pause",
    "kind": "pause",
    "prefix": None,
    "reasons": (),
    "hostgroup": None,
}


def test_a_pause_reports_that_everything_is_withdrawn_and_resume_what_is_back() -> None:
    pressed = mitigation(**PAUSE, cause="paused by ann: maintenance")
    released = over(**PAUSE, because="operator", cause="resumed by ann: done")
    records = (mitigation(1), mitigation(2), mitigation(3, dry_run=True), informing(4))
    _, paused, _, resumed = told(records, (pressed,), (over(2),), (released,))
    assert (paused.status, resumed.status) == ("paused", "resumed")
    assert paused.title == "Paused: everything is withdrawn until somebody resumes"
    assert paused.text.splitlines()[:3] == [
        "Withdrawn by all enforcers: 2 blackhole.",
        "Decisions and leases continue; nothing is in force until somebody resumes.",
        "Cause: paused by ann: maintenance",
    ]
    assert (paused.paused, paused.live) == (True, {"blackhole": 2})
    assert paused.prefixes == ("198.51.0.2/32", "198.51.0.1/32")
    assert resumed.title == "Resumed: mitigations that still have a reason are back"
    assert "Back in force: 1 blackhole." in resumed.text
    assert "Cause: resumed by ann: done" in resumed.text
    assert (resumed.paused, resumed.live) == (False, {"blackhole": 1})
    assert resumed.prefixes == ("198.51.0.1/32",)
    assert [item.key for item in resumed.mitigations] == ["blackhole|198.51.0.1/32"]
    assert paused.key != resumed.key


def test_a_resume_without_mitigations_reports_that_nothing_is_back() -> None:
    _, resumed = told((mitigation(**PAUSE),), (over(**PAUSE),))
    assert resumed.title == "Resumed: no mitigation is wanted"
    assert "Back in force: none." in resumed.text


def test_a_storm_during_a_pause_is_not_reported_as_in_force() -> None:
    _, notice = told((mitigation(**PAUSE),), (mitigation(1),))
    assert notice.paused
    assert notice.title == (
        "1 mitigation started, paused: nothing is in force (hostgroup web)"
    )
    assert "Paused: nothing is in force until somebody resumes." in notice.text


NOTIFY = {"key": "notify|198.51.0.1/32", "kind": "notify"}


def test_decisions_that_only_inform_block_nothing() -> None:
    started, ended = told((informing(),), (over(**NOTIFY),))
    assert started.title == "1 attack, nothing blocked (hostgroup web)"
    assert started.text.splitlines()[0] == (
        "1 attack, nothing blocked: the policy only informs."
    )
    assert "mitigation" not in started.text
    assert "until" not in started.text
    assert started.until is None
    assert (started.informing, started.live) == (1, {})
    assert ended.title == (
        "It is over: 1 attack ended, nothing was blocked (hostgroup web)"
    )


def test_a_mixed_storm_reports_both() -> None:
    first = (mitigation(1), informing(2), informing(3))
    started, goes_on, ended = told(
        first,
        (informing(4),),
        (
            over(1),
            *(
                over(number, key=informing(number).key, kind="notify")
                for number in (2, 3, 4)
            ),
        ),
    )
    assert started.title == (
        "1 mitigation started; nothing blocked for 2 attacks (hostgroup web)"
    )
    assert started.text.splitlines()[:2] == [
        "1 mitigation started: 1 blackhole.",
        "2 attacks, nothing blocked: the policy only informs.",
    ]
    assert (started.total, started.informing) == (3, 2)
    assert "; until 2026-05-01 12:15:00 UTC" in started.text
    assert goes_on.title == (
        "Going on: 1 started; 1 active; nothing blocked for 3 attacks (hostgroup web)"
    )
    assert ended.title == (
        "It is over: 1 mitigation ended; nothing was blocked for 3 attacks"
        " (hostgroup web)"
    )


def test_a_dry_run_that_only_informs_is_no_dry_run_of_a_block() -> None:
    (notice,) = told((informing(dry_run=True),))
    assert notice.dry_run == 0
    assert "dry run" not in notice.text


def test_a_change_that_waits_for_approval_is_reported() -> None:
    (notice,) = told((mitigation(1, pending=Effect()), mitigation(2)))
    assert (notice.proposed, notice.pending) == (0, 1)
    assert "2 blackhole; 1 has a change that waits for approval." in notice.text


def test_an_attack_has_the_size_and_direction_that_rules_compare() -> None:
    reason = ReasonSummary(
        target="192.0.2.1",
        sensor="fra1",
        direction="outgoing",
        attack="u1",
        bits=40_000_000,
    )
    (notice,) = told((mitigation(reasons=(reason,)),))
    assert notice.largest == (
        Attack(
            target="192.0.2.1",
            sensor="fra1",
            attack="u1",
            direction="outgoing",
            pps=None,
            bits=40_000_000,
        ),
    )
    assert "Largest attacks: 192.0.2.1 outgoing 40 Mbit/s (fra1)" in notice.text


def test_a_mitigation_counts_all_of_its_reasons() -> None:
    counts = {"live_reasons": 65_000, "pending_reasons": 2, "dry_reasons": 1}
    (notice,) = told((mitigation(**counts),))
    assert notice.mitigations[0].reasons == 65_003


def test_a_proposal_was_never_started() -> None:
    never = datetime(1970, 1, 1, tzinfo=UTC)
    (notice,) = told((mitigation(state="proposed", started_at=never),))
    (item,) = notice.mitigations
    assert (notice.since, item.created_at, item.started_at) == (START, START, None)


def test_keys_are_the_same_when_the_same_is_read_again() -> None:
    steps = (
        (mitigation(2), mitigation(1)),
        (mitigation(3),),
        (over(1), over(2)),
        (over(3),),
    )
    first, again = told(*steps), told(*steps)
    assert [it.status for it in first] == ["started", "continues", "continues", "ended"]
    assert [it.key for it in first] == [it.key for it in again]
    assert len({it.key for it in first}) == 4
    assert len({it.storm for it in first}) == 1


def test_the_order_of_partitions_does_not_change_a_key() -> None:
    (one,), (other,) = (
        told((mitigation(1), mitigation(2))),
        told((mitigation(2), mitigation(1))),
    )
    assert one.key == other.key


@pytest.mark.parametrize(
    "other",
    [{"hostgroup": "mail"}, {"created_at": START + timedelta(seconds=1)}, {"key": "x"}],
)
def test_another_storm_has_another_key(other: dict[str, Any]) -> None:
    (one,), (another,) = told((mitigation(),)), told((mitigation(**other),))
    assert one.key != another.key
    assert one.storm != another.storm


def test_a_flow_is_named_by_its_network() -> None:
    flow = FlowMatch(destination_prefix="198.51.100.7/32", source_ports=(123,))
    (notice,) = told((mitigation(kind="flowspec", prefix=None, flow=flow),))
    assert notice.prefixes == ("198.51.100.7/32",)
    (notice,) = told((mitigation(kind="flowspec", prefix=None, flow=FlowMatch()),))
    assert notice.prefixes == ("any",)


def test_the_list_is_cut_and_says_by_how_much() -> None:
    (notice,) = told(tuple(mitigation(number) for number in range(1001)))
    assert (len(notice.mitigations), notice.more_mitigations) == (1000, 1)


def test_a_name_cannot_break_a_line() -> None:
    (notice,) = told((mitigation(hostgroup="a\nIt is over\x1b[2J"),))
    assert notice.title == "1 mitigation started (hostgroup a It is over [2J)"


def test_the_document_is_json_with_a_version() -> None:
    (notice,) = told((mitigation(),))
    found = json.loads(body(notice, "json"))
    assert found["version"] == 1
    assert found["since"] == "2026-05-01T12:00:00Z"
    assert found["mitigations"][0]["why"] is None
    assert msgspec.json.decode(body(notice, "json"), type=Notice) == notice


@pytest.mark.parametrize("kind", [Notice, Whose, Attack, Cause, Item])
def test_every_field_is_described(kind: type[msgspec.Struct]) -> None:
    described = set(
        re.findall(r"^\| `(\w+)` \|", DOCS.read_text("utf-8"), re.MULTILINE)
    )
    assert set(kind.__struct_fields__) <= described


def test_slack_gets_text_and_blocks() -> None:
    (notice,) = told((mitigation(),))
    found = json.loads(body(notice, "slack"))
    assert found["text"].startswith("1 mitigation started")
    assert [it["type"] for it in found["blocks"]] == ["header", "section", "context"]
    assert notice.key in found["blocks"][2]["elements"][0]["text"]


def test_slack_gets_no_mention_out_of_a_name() -> None:
    (notice,) = told((mitigation(hostgroup="<!channel> & <@U1>"),))
    header = slack(notice)["blocks"][0]["text"]["text"]  # type: ignore[index]
    assert "hostgroup &lt;!channel&gt; &amp; &lt;@U1&gt;" in header
    assert "<" not in json.dumps(slack(notice))


def test_slacks_limits_are_kept() -> None:
    name = "<&>" * 2000
    records = tuple(mitigation(n, prefix=name, hostgroup=name) for n in range(20))
    found: Any = slack(told(records)[0])
    header, section = found["blocks"][0]["text"], found["blocks"][1]["text"]
    assert len(header["text"]) <= 150
    assert len(section["text"]) <= 3000
    assert header["text"].endswith(";…")


@pytest.mark.parametrize(
    ("text", "limit", "wanted"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("<", 4, "&lt;"),
        ("a<b", 5, "a…"),
        ("<<", 6, "&lt;…"),
        ("", 3, ""),
    ],
)
def test_text_is_cut_between_escapes(text: str, limit: int, wanted: str) -> None:
    assert escaped(text, limit) == wanted
