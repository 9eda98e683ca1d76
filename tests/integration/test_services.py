"""The servers of the other tests work as these tests assume."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from support.kafka import Cluster
from support.process import Server, wait_until

Name = Callable[[str], str]


def create(bootstrap: str, topic: str, copies: int) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 1, copies)])[topic].result(30)


def produce(bootstrap: str, topic: str) -> list[KafkaError | None]:
    said: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    producer.produce(topic, b"x", on_delivery=lambda error, _: said.append(error))
    assert producer.flush(60) == 0
    return said


def test_kafka_accepts_a_record_for_an_existing_topic(
    kafka: str, topic_names: Name
) -> None:
    topic = topic_names("t")
    create(kafka, topic, copies=1)
    assert produce(kafka, topic) == [None]


def test_kafka_creates_no_topic_by_itself(kafka: str, topic_names: Name) -> None:
    topic = topic_names("t")
    metadata = AdminClient({"bootstrap.servers": kafka}).list_topics(topic, timeout=30)
    assert metadata.topics[topic].error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_a_killed_leader_is_replaced_and_catches_up(
    kafka3: Cluster, topic_names: Name
) -> None:
    topic = topic_names("t")
    create(kafka3.bootstrap, topic, copies=3)
    kafka3.wait_in_sync(topic)
    old = kafka3.leader_of(topic)
    kafka3.kill(old)
    wait_until(lambda: kafka3.leader_of(topic) not in {-1, old}, 60, "a new leader")
    assert produce(kafka3.bootstrap, topic) == [None]
    kafka3.start(old)
    kafka3.wait_in_sync(topic)
    assert kafka3.in_sync(topic) == {1, 2, 3}


def test_a_node_that_runs_is_not_started_twice(kafka3: Cluster) -> None:
    with pytest.raises(RuntimeError, match="node 2 runs"):
        kafka3.start(2)


def test_the_registry_gives_back_a_schema_by_its_id(
    registry: str, topic_names: Name
) -> None:
    schema = json.dumps({"type": "record", "name": "R", "fields": []})
    request = Request(
        f"{registry}/subjects/{topic_names('t')}-value/versions",
        data=json.dumps({"schema": schema}).encode(),
        headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
    )
    with urlopen(request, timeout=30) as answer:
        number = json.load(answer)["id"]
    with urlopen(f"{registry}/schemas/ids/{number}", timeout=30) as answer:
        assert json.loads(json.load(answer)["schema"]) == json.loads(schema)


def test_a_server_dies_with_its_parent_process(tmp_path: Path) -> None:
    starter = """
import sys
from pathlib import Path
from support.process import Server
server = Server(["/bin/sleep", "600"], Path(sys.argv[1]) / "log")
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", starter, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout is not None
        handle = os.pidfd_open(int(process.stdout.readline()))
        try:
            process.kill()
            # A pidfd is readable when its process has ended.
            readable, _, _ = select.select([handle], [], [], 10)
            assert readable
        finally:
            os.close(handle)


def test_the_error_of_an_ended_server_has_its_output(tmp_path: Path) -> None:
    server = Server(["/bin/sh", "-c", "echo wrong settings"], tmp_path / "log")
    server.start()
    with pytest.raises(RuntimeError, match="wrong settings"):
        server.wait(lambda: False, seconds=30)
