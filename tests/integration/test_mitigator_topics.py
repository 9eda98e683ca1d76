"""The mitigator and topics that are not as it left them, or hold what they must not."""

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic
from support.consumer_processes import ConsumerProcesses, policy
from support.relay_processes import RelayProcesses
from support.process import Server

from fnm_bus.avro.codec import Codec
from fnm_bus.event import Command, DeadLetter, HostEvent, Receipt
from fnm_bus.spool.sequence import sequence_at

pytestmark = pytest.mark.kafka

LOOK_OFTEN = "from consumers.mitigator import service; service._LOOK = 1.0"


@pytest.fixture
def crew(real_plant: RelayProcesses) -> Iterator[ConsumerProcesses]:
    made = ConsumerProcesses(real_plant, policy(), "[consumers]", "metrics_port = 0")
    yield made
    made.stop()


def follows(crew: ConsumerProcesses, server: Server, host: str = "203.0.113.9") -> None:
    """Make sure that it runs, and decides about the ban of a host."""
    [event] = crew.tell("ban", host)
    crew.decided_after(event, 30)
    assert server.alive


def letters(crew: ConsumerProcesses) -> list[str]:
    records = (record for _key, record, _at in crew.records("deadletter"))
    return [record.reason for record in records if isinstance(record, DeadLetter)]


@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed")
def test_a_header_name_that_is_no_text_costs_one_record(
    crew: ConsumerProcesses,
) -> None:
    mitigator = crew.start("mitigator")
    kcat = ["kcat", "-b", crew.plant.bootstrap, "-P", "-t", crew.plant.topic("host")]
    header = os.fsdecode(b"ce_\xff\xfe=1")
    subprocess.run([*kcat, "-H", header], input=b"garbage\n", check=True, timeout=30)
    crew.until(lambda: len(letters(crew)) == 1, 30, "a dead letter")
    follows(crew, mitigator)
    name = "fnm_bus_mitigator_state_reloads_total"
    assert crew.metric(mitigator, name) == 0


def test_a_command_on_an_event_topic_is_a_dead_letter(crew: ConsumerProcesses) -> None:
    mitigator = crew.start("mitigator")
    crew.put("host", None, Command(command_id="c", verb="pause", by="a relay"))
    crew.flush()
    crew.until(lambda: len(letters(crew)) == 1, 30, "a dead letter")
    follows(crew, mitigator)
    assert crew.metric(mitigator, "fnm_bus_mitigator_paused") == 0


def test_partitions_that_come_later_are_read(crew: ConsumerProcesses) -> None:
    mitigator = crew.start("mitigator", fault=LOOK_OFTEN)
    follows(crew, mitigator)
    topic = crew.plant.topic("host")
    admin = AdminClient({"bootstrap.servers": crew.plant.bootstrap})
    admin.create_partitions([NewPartitions(topic, 5)])[topic].result(30)
    [time] = [at for _key, it, at in crew.records("host") if isinstance(it, HostEvent)]
    ban = HostEvent(
        receipt=Receipt(
            event_id="new", sensor="fnm1", sequence=sequence_at(time), received_at=time
        ),
        action="ban",
        ip="203.0.113.10",
    )
    producer = Producer({"bootstrap.servers": crew.plant.bootstrap})
    producer.list_topics(topic, timeout=30)
    producer.produce(topic, value=Codec().encode(ban, topic), partition=4)
    assert producer.flush(30) == 0
    crew.until(lambda: "blackhole|203.0.113.10/32" in crew.wanted(), 60, "its decision")
    crew.until(lambda: crew.health(mitigator)[0] == 200, 30, "health")


def test_a_topic_that_is_gone_is_no_health(crew: ConsumerProcesses) -> None:
    mitigator = crew.start("mitigator", fault=LOOK_OFTEN)
    follows(crew, mitigator)
    topic = crew.plant.topic("hostgroup")
    admin = AdminClient({"bootstrap.servers": crew.plant.bootstrap})
    admin.delete_topics([topic])[topic].result(30)
    crew.until(lambda: crew.health(mitigator)[0] == 503, 60, "no health")
    crew.until(lambda: topic in str(crew.health(mitigator)[1]["problem"]), 30, "a text")
    admin.create_topics([NewTopic(topic, 4, 1)])[topic].result(30)
    crew.until(lambda: crew.health(mitigator)[0] == 200, 60, "health")
    follows(crew, mitigator, "203.0.113.10")
