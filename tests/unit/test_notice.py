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
from fnm_bus.event import FlowMatch, Mitigation, ReasonSummary

START = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
NOW = START + timedelta(minutes=31)
DOCS = Path(__file__).parents[2] / "docs/reference/notice.md"


def mitigation(number: int = 1, **other: Any) -> Mitigation:
    address = f"198.51.{number // 256}.{number % 256}"
    reason = ReasonSummary(
        sensor="fra1",
        target=address,
        attack=f"uuid-{number}",
        rule="big",
        pps=number * 1000,
        bits=number * 10**7,
    )
    facts = {
        "key": f"blackhole|{address}/32",
        "kind": "blackhole",
        "state": "wanted",
        "prefix": f"{address}/32",
        "hostgroup": "web",
        "started_at": START,
        "changed_at": START,
        "expires_at": START + timedelta(minutes=15),
        "cause": "ban by fra1: rule big",
        "reasons": (reason,),
    }
    return Mitigation(**{**facts, **other})


def over(number: int = 1, cause: str = "unban by fra1", **other: Any) -> Mitigation:
    at = START + timedelta(minutes=10)
    return mitigation(number, state="ended", cause=cause, changed_at=at, **other)


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
        "Largest attacks: 198.51.3.231 9.99 Gbit/s, 999 kpps (fra1); 198.51.3.230 "
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
    ends = (over(0), over(1), over(2, "ended by ann: false alarm"), over(3))
    _, notice = told(records, ends)
    assert notice.ends == {"unban": 3, "person": 1}
    assert notice.text.splitlines()[:2] == [
        "4 mitigations ended, none stands: 4 blackhole.",
        "Ended by an unban: 3, by a person: 1.",
    ]
    assert "Cause: ended by ann: false alarm" in notice.text
    assert "From 2026-05-01 12:00:00 UTC to 2026-05-01 12:10:00 UTC: 10 min 0 s." in (
        notice.text
    )
    assert (notice.standing, notice.seconds) == (0, 600)


def test_a_lease_that_ran_out_is_said_loudly() -> None:
    _, notice = told(
        (mitigation(),), (over(1, "its lease ran out: nobody renewed it"),)
    )
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
    lapsed = over(1, "its lease ran out: nobody renewed it")
    _, notice = told((mitigation(1), mitigation(2)), (lapsed, mitigation(3)))
    assert notice.status == "continues"
    assert notice.title == "Going on: 1 started, 1 ended; 2 stand (hostgroup web)"
    assert "check that the detector is alive" in notice.text
    assert notice.prefixes == ("198.51.0.3/32", "198.51.0.1/32")


def test_the_red_button_has_its_own_words() -> None:
    button = {"key": "pause", "kind": "pause", "reasons": (), "hostgroup": None}
    pressed = mitigation(**button, cause="paused by ann: maintenance")
    released = over(**button, cause="resumed by ann: done")
    paused, resumed = told((pressed,), (released,))
    assert (paused.status, resumed.status) == ("paused", "resumed")
    assert paused.title == "Paused: no mitigations until somebody resumes"
    assert "Cause: paused by ann: maintenance" in paused.text
    assert resumed.title == "Resumed: mitigations start again"
    assert paused.key != resumed.key


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
    [{"hostgroup": "mail"}, {"started_at": START + timedelta(seconds=1)}, {"key": "x"}],
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
