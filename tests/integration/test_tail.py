"""From notify to tail, through a broker."""

import json
from typing import Any

from support.relay_processes import RelayProcesses, ban


def told(relays: RelayProcesses, *arguments: str) -> list[dict[str, Any]]:
    ended = relays.run("tail", "--json", *arguments)
    assert ended.returncode == 0, ended.stderr.decode()
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_tail_shows_the_event_of_notify(relays: RelayProcesses) -> None:
    sent = [ban(f"192.0.2.{number}") for number in range(1, 4)]
    for document in sent:
        ended = relays.run("notify", "ban", stdin=document)
        assert ended.returncode == 0, ended.stderr.decode()
    assert relays.empty()
    relays.messages("host", 3)  # the topic is there
    rows = told(relays, relays.topic("host"), "--from-beginning", "--until-end")
    assert {row["key"] for row in rows} == {"192.0.2.1", "192.0.2.2", "192.0.2.3"}
    for row in rows:
        assert row["event"]["ip"] == row["key"]
        assert row["event"]["receipt"]["arguments"] == ["ban"]
        assert row["headers"]["ce_id"] == row["event"]["receipt"]["event_id"]
        assert row["error"] is None


def test_tail_ends_after_the_requested_count(relays: RelayProcesses) -> None:
    for number in range(5):
        relays.call(ban(f"192.0.2.{number}"))
    assert relays.run("drain").returncode == 0
    relays.messages("host", 5)
    rows = told(relays, relays.topic("host"), "--from-beginning", "--count", "2")
    assert len(rows) == 2


def test_a_line_is_data_and_the_heading_is_talk(relays: RelayProcesses) -> None:
    relays.call(ban("192.0.2.1"))
    assert relays.run("drain").returncode == 0
    relays.messages("host", 1)
    ended = relays.run("tail", relays.topic("host"), "--from-beginning", "--until-end")
    (line,) = ended.stdout.decode().splitlines()
    assert "192.0.2.1" in line
    assert b"\x1b[" not in ended.stdout
    assert b"TARGET" in ended.stderr


def test_a_simulated_attack_arrives_whole(relays: RelayProcesses) -> None:
    options = ("--hosts", "6", "--updates", "1")
    ended = relays.run("simulate", *options, "--rate", "0", "--yes-publish")
    assert ended.returncode == 0, ended.stderr.decode()
    printed = relays.run("simulate", *options, "--print").stdout.splitlines()
    assert relays.run("drain").returncode == 0
    topics = [relays.topic(kind) for kind in ("host", "hostgroup", "status")]
    for kind in ("host", "hostgroup", "status"):
        relays.messages(kind, 1)
    rows = told(relays, *topics, "--from-beginning", "--until-end")
    assert len(rows) == len(printed)
    assert len({row["event"]["receipt"]["event_id"] for row in rows}) == len(printed)
