"""From notify to tail, through a broker."""

import json
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from fastavro import reader
from support.relay_processes import RelayProcesses, ban


def told(relays: RelayProcesses, *arguments: str) -> list[dict[str, Any]]:
    ended = relays.run("tail", "--json", *arguments)
    assert ended.returncode == 0, ended.stderr.decode()
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_what_notify_took_is_what_tail_shows(relays: RelayProcesses) -> None:
    sent = [ban(f"192.0.2.{number}") for number in range(1, 4)]
    for document in sent:
        ended = relays.run("notify", "ban", stdin=document)
        assert ended.returncode == 0, ended.stderr.decode()
    assert relays.empty()
    relays.messages("host", 3)  # the topic is there
    found = told(relays, relays.topic("host"), "--from-beginning", "--until-end")
    assert {it["key"] for it in found} == {"192.0.2.1", "192.0.2.2", "192.0.2.3"}
    for it in found:
        assert it["event"]["ip"] == it["key"]
        assert it["event"]["receipt"]["arguments"] == ["ban"]
        assert it["headers"]["ce_id"] == it["event"]["receipt"]["event_id"]
        assert it["error"] is None


def test_tail_ends_after_as_many_as_it_was_asked_for(relays: RelayProcesses) -> None:
    for number in range(5):
        relays.call(ban(f"192.0.2.{number}"))
    assert relays.run("drain").returncode == 0
    relays.messages("host", 5)
    found = told(relays, relays.topic("host"), "--from-beginning", "--count", "2")
    assert len(found) == 2


def test_a_line_is_data_and_the_heading_is_talk(relays: RelayProcesses) -> None:
    relays.call(ban("192.0.2.1"))
    assert relays.run("drain").returncode == 0
    relays.messages("host", 1)
    ended = relays.run("tail", relays.topic("host"), "--from-beginning", "--until-end")
    (line,) = ended.stdout.decode().splitlines()
    assert "192.0.2.1" in line
    assert b"\x1b[" not in ended.stdout
    assert b"TARGET" in ended.stderr


def test_what_cannot_be_understood_is_told_by_a_dead_letter_and_65(
    relays: RelayProcesses,
) -> None:
    ended = relays.run("notify", stdin=b'{"action":"ban","ip":7}')
    assert ended.returncode == 65, ended.stderr.decode()
    relays.messages("deadletter", 1)
    topic = relays.topic("deadletter")
    (letter,) = told(relays, topic, "--from-beginning", "--until-end")
    assert letter["event"]["field"] == "/ip"


def test_a_simulated_attack_arrives_whole(relays: RelayProcesses) -> None:
    options = ("--hosts", "6", "--updates", "1")
    ended = relays.run("simulate", *options, "--rate", "0", "--yes-publish")
    assert ended.returncode == 0, ended.stderr.decode()
    printed = relays.run("simulate", *options, "--print").stdout.splitlines()
    assert relays.run("drain").returncode == 0
    topics = [relays.topic(kind) for kind in ("host", "hostgroup", "status")]
    for kind in ("host", "hostgroup", "status"):
        relays.messages(kind, 1)
    found = told(relays, *topics, "--from-beginning", "--until-end")
    assert len(found) == len(printed)
    assert len({it["event"]["receipt"]["event_id"] for it in found}) == len(printed)


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
