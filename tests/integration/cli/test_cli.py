"""The commands that talk to Kafka and to a registry, as a person would use them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AclOperation
from support.kafka import denied
from support.relay_processes import RelayProcesses, ban

from fnm_bus.errors import TopicRefused
from fnm_bus.kafka.topic_admin import TopicAdmin
from fnm_bus.kafka.topics import TopicSpec


def put(bootstrap: str, topic: str, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(30) == 0


def findings(relays: RelayProcesses) -> dict[str, bool]:
    ended = relays.run("check", "--json")
    assert b"Traceback" not in ended.stderr
    return {result["text"]: result["ok"] for result in json.loads(ended.stdout)}


@pytest.mark.kafka
def test_topics_are_created_once_and_listed_as_configured(
    kafka_relays: RelayProcesses,
) -> None:
    again = kafka_relays.run("topics", "create")  # the fixture has created them
    assert (again.returncode, again.stdout) == (0, b"")
    assert again.stderr.count(b"as configured") == 8
    rows = json.loads(kafka_relays.run("topics", "list", "--json").stdout)
    assert [row["differences"] for row in rows] == [[]] * 8
    cleanup = {row["topic"]: row["cleanup"] for row in rows}
    for kind in ("reason", "mitigation"):
        assert cleanup[kafka_relays.topic(kind)] == "compact"
    assert cleanup[kafka_relays.topic("host")] == "delete"


@pytest.mark.kafka
def test_a_topic_with_another_partition_count_is_reported_and_kept(
    kafka_relays: RelayProcesses,
) -> None:
    text = kafka_relays.config.read_text()
    kafka_relays.config.write_text(text.replace("partitions = 4", "partitions = 5"))
    ended = kafka_relays.run("topics", "create")
    assert ended.returncode == 1
    assert b"partitions: 4, wanted 5" in ended.stderr
    listed = kafka_relays.run("topics", "list").stdout.decode()
    assert "partitions: 4, wanted 5" in listed


@pytest.mark.kafka
def test_check_passes_with_all_topics_and_rights(kafka_relays: RelayProcesses) -> None:
    kafka_relays.start()
    results = findings(kafka_relays)
    assert [text for text, ok in results.items() if not ok] == []
    topic = kafka_relays.topic("host")
    assert f"right: this client's user has Write on Topic {topic}" in results


@pytest.mark.kafka
def test_check_names_a_missing_topic(kafka_relays: RelayProcesses) -> None:
    text = kafka_relays.config.read_text()
    name = kafka_relays.topic("status")
    kafka_relays.config.write_text(text.replace(name, f"{name}.gone"))
    ended = kafka_relays.run("check")
    assert ended.returncode == 1
    said = ended.stdout.decode()
    assert f"FAILED  topic {name}.gone: missing" in said
    assert "`fnm-bus topics create` creates it" in said


def test_tail_of_a_missing_topic_exits_69(relays: RelayProcesses) -> None:
    ended = relays.run("tail", "no topic!", "--until-end")
    assert ended.returncode == 69
    assert ended.stdout == b""
    assert b"fnm-bus: no topic!: " in ended.stderr


def test_an_unreachable_broker_makes_a_command_exit_69(tmp_path: Path) -> None:
    ended = RelayProcesses(tmp_path, "127.0.0.1:1").run("tail")
    assert (ended.returncode, ended.stdout) == (69, b"")
    assert ended.stderr.startswith(b"fnm-bus: no broker reachable: ")


@pytest.mark.parametrize(
    "command",
    [("tail",), ("topics", "list"), ("topics", "create"), ("drain",)],
)
def test_a_setting_that_librdkafka_refuses_exits_78(
    relays: RelayProcesses, command: tuple[str, ...]
) -> None:
    relays.configure(colour="blue")
    relays.call(ban("192.0.2.1"))
    ended = relays.run(*command)
    assert ended.returncode == 78
    assert b"fnm-bus: [kafka]: " in ended.stderr
    assert b"colour" in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_tail_shows_undecodable_records_between_the_others(
    relays: RelayProcesses,
) -> None:
    topic = relays.topic("host")
    put(relays.bootstrap, topic, b"no Avro", b"", b"\xc3\x01" + bytes(20))
    relays.call(ban("192.0.2.1"))
    relays.succeed("drain")
    relays.messages("host", 4)
    options = (topic, "--from-beginning", "--until-end")
    rows = relays.run("tail", *options, "--json").stdout.splitlines()
    records: list[dict[str, Any]] = [json.loads(row) for row in rows]
    assert sorted(record["error"] is None for record in records) == [False] * 3 + [True]
    ended = relays.succeed("tail", *options)
    assert ended.count(b": cannot be decoded: ") == 3
    assert b"192.0.2.1" in ended


def test_tail_continues_until_an_interrupt(relays: RelayProcesses) -> None:
    relays.messages("host", 0)  # the topic is there
    with subprocess.Popen(
        [
            # A process in the background of a script ignores SIGINT.
            *("env", "--default-signal=INT"),
            *(sys.executable, "-m", "fnm_bus", "tail", relays.topic("host")),
            *("--from-beginning", "--json"),
        ],
        env={**os.environ, "FNM_BUS_CONFIG": str(relays.config)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as tail:
        for ip in ("192.0.2.1", "192.0.2.2"):
            relays.call(ban(ip))
            relays.succeed("drain")
            assert tail.stdout is not None
            assert json.loads(tail.stdout.readline())["key"] == ip
        tail.send_signal(signal.SIGINT)
        _out, said = tail.communicate(timeout=30)
    assert (tail.returncode, said) == (130, b"")


@pytest.mark.kafka
@pytest.mark.registry
def test_registered_schemas_are_used_without_the_registry(
    kafka_relays: RelayProcesses, registry: str
) -> None:
    pins = kafka_relays.root / "pins.json"
    lines = ["[registry]", f'url = "{registry}"', f'schema_ids_file = "{pins}"']
    kafka_relays.configure(*lines)
    unpinned = kafka_relays.run("drain")
    assert unpinned.returncode == 78
    assert b"schemas register" in unpinned.stderr
    kafka_relays.succeed("schemas", "check")
    kafka_relays.succeed("schemas", "register")
    kafka_relays.succeed("schemas", "check")
    rows = json.loads(kafka_relays.run("schemas", "list", "--json").stdout)
    ids = {row["subject"]: row["id"] for row in rows}
    number = ids[f"{kafka_relays.topic('host')}-value"]
    assert isinstance(number, int)

    kafka_relays.configure(lines[0], 'url = "http://127.0.0.1:1"', lines[2])
    kafka_relays.call(ban("192.0.2.1"))
    kafka_relays.succeed("drain")
    (message,) = kafka_relays.messages("host", 1)
    value = message.value()
    assert isinstance(value, bytes)
    assert value[:5] == b"\x00" + number.to_bytes(4)
    topic = kafka_relays.topic("host")
    shown = kafka_relays.run("tail", topic, "--from-beginning", "--until-end", "--json")
    assert json.loads(shown.stdout)["event"]["ip"] == "192.0.2.1"


@pytest.mark.kafka
def test_check_and_tail_report_missing_rights(kafka_relays: RelayProcesses) -> None:
    relays, bootstrap = kafka_relays, kafka_relays.bootstrap
    names = [relays.topic("host"), relays.topic("status")]
    admin = TopicAdmin({"bootstrap.servers": bootstrap})

    def writable() -> list[bool]:
        topics = admin.describe(names).values()
        return [
            isinstance(spec, TopicSpec) and "Write" in spec.operations
            for spec in topics
        ]

    with (
        denied(bootstrap, names[0], AclOperation.WRITE),
        denied(bootstrap, names[1], AclOperation.READ),
    ):
        relays.until(lambda: writable() == [False, True])
        results = findings(relays)
        lacking = f"right: this client's user lacks Write on Topic {names[0]}"
        assert not results[lacking]
        assert results[f"right: this client's user has Write on Topic {names[1]}"]
        ended = relays.run("tail", names[1], "--from-beginning", "--until-end")
        assert ended.returncode == TopicRefused.exit_code == 69
        assert names[1].encode() in ended.stderr


def test_after_init_every_check_passes_except_the_relay(
    tmp_path: Path, kafka: str
) -> None:
    tmp_path.chmod(0o755)
    environ = {
        **os.environ,
        "FNM_BUS_CONFIG": str(tmp_path / "fnm-bus.toml"),
        "FNM_BUS_SPOOL__DIRECTORY": str(tmp_path / "spool"),
        "FNM_BUS_SPOOL__FALLBACK": str(tmp_path / "fallback"),
        "FNM_BUS_TOPICS__HOST": "init.host",
    }
    command = [sys.executable, "-m", "fnm_bus", "init", "--yes", "--brokers", kafka]
    command += ["--replication", "1", "--hook", str(tmp_path / "hook")]
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "passed  topic init.host: as configured" in done.stdout
