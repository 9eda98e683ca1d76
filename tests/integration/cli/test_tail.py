"""From notify to tail, through a broker."""

import json
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from fastavro import reader
from support.relay_processes import RelayProcesses, ban


def tail_rows(relays: RelayProcesses, *arguments: str) -> list[dict[str, Any]]:
    lines = relays.succeed("tail", "--json", *arguments).splitlines()
    return [json.loads(line) for line in lines]


def test_tail_shows_the_event_of_notify(relays: RelayProcesses) -> None:
    sent = [ban(f"192.0.2.{number}") for number in range(1, 4)]
    for document in sent:
        relays.succeed("notify", "ban", stdin=document)
    assert relays.empty()
    relays.messages("host", 3)  # the topic is there
    rows = tail_rows(relays, relays.topic("host"), "--from-beginning", "--until-end")
    assert {row["key"] for row in rows} == {"192.0.2.1", "192.0.2.2", "192.0.2.3"}
    for row in rows:
        assert row["event"]["ip"] == row["key"]
        assert row["event"]["receipt"]["arguments"] == ["ban"]
        assert row["headers"]["ce_id"] == row["event"]["receipt"]["event_id"]
        assert row["error"] is None


def test_tail_ends_after_the_requested_count(relays: RelayProcesses) -> None:
    for number in range(5):
        relays.call(ban(f"192.0.2.{number}"))
    relays.succeed("drain")
    relays.messages("host", 5)
    rows = tail_rows(relays, relays.topic("host"), "--from-beginning", "--count", "2")
    assert len(rows) == 2


def test_a_line_is_data_and_the_heading_is_talk(relays: RelayProcesses) -> None:
    relays.call(ban("192.0.2.1"))
    relays.succeed("drain")
    relays.messages("host", 1)
    ended = relays.run("tail", relays.topic("host"), "--from-beginning", "--until-end")
    (line,) = ended.stdout.decode().splitlines()
    assert "192.0.2.1" in line
    assert b"\x1b[" not in ended.stdout
    assert b"TARGET" in ended.stderr


def test_a_simulated_attack_arrives_whole(relays: RelayProcesses) -> None:
    options = ("--hosts", "6", "--updates", "1")
    relays.succeed("simulate", *options, "--rate", "0", "--yes-publish")
    printed = relays.run("simulate", *options, "--print").stdout.splitlines()
    relays.succeed("drain")
    topics = [relays.topic(kind) for kind in ("host", "hostgroup", "status")]
    for kind in ("host", "hostgroup", "status"):
        relays.messages(kind, 1)
    rows = tail_rows(relays, *topics, "--from-beginning", "--until-end")
    assert len(rows) == len(printed)
    assert len({row["event"]["receipt"]["event_id"] for row in rows}) == len(printed)


def test_an_archive_has_the_events_of_one_topic(
    relays: RelayProcesses, tmp_path: Path
) -> None:
    for number in range(3):
        relays.call(ban(f"192.0.2.{number}"))
    assert relays.run("drain").returncode == 0
    relays.messages("host", 3)
    archive = tmp_path / "host.avro"
    options = ("--from-beginning", "--until-end", "--avro", str(archive))
    ended = relays.run("tail", relays.topic("host"), *options)
    assert ended.returncode == 0, ended.stderr.decode()
    assert ended.stdout == b""
    with archive.open("rb") as file:
        found = {datum["ip"] for datum in reader(file)}
    assert found == {"192.0.2.0", "192.0.2.1", "192.0.2.2"}
    again = relays.run("tail", relays.topic("host"), *options)
    assert again.returncode == 73
    assert b"exists" in again.stderr


def test_an_archive_of_several_topics_is_refused(
    relays: RelayProcesses, tmp_path: Path
) -> None:
    ended = relays.run("tail", "--until-end", "--avro", str(tmp_path / "all.avro"))
    assert ended.returncode == 2
    assert list(tmp_path.glob("all*")) == []


def test_an_archive_omits_records_of_another_type_with_a_note(
    relays: RelayProcesses, tmp_path: Path
) -> None:
    ended = relays.run("notify", stdin=b'{"action":"ban","ip":7}')
    assert ended.returncode == 65
    (letter,) = relays.messages("deadletter", 1)
    producer = Producer({"bootstrap.servers": relays.bootstrap})
    producer.produce(relays.topic("host"), letter.value())
    producer.produce(relays.topic("host"), b"text")
    producer.flush()
    archive = tmp_path / "host.avro"
    options = ("--from-beginning", "--until-end", "--avro", str(archive))
    ended = relays.run("tail", relays.topic("host"), *options)
    assert ended.returncode == 0, ended.stderr.decode()
    assert ended.stderr.count(b"not archived") == 2
    assert b"not a fastnetmon.HostEvent" in ended.stderr
    with archive.open("rb") as file:
        assert list(reader(file)) == []
