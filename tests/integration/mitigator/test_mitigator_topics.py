"""The mitigator and changed topics, or topics with records of another kind."""

import os
import shutil
import subprocess

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic
from support.consumer_processes import ConsumerProcesses

from fnm_bus.avro.codec import Codec
from fnm_bus.event import Command, HostEvent, Receipt
from fnm_bus.spool.sequence import sequence_at

pytestmark = pytest.mark.kafka

LOOK_OFTEN = "from consumers.mitigator import service; service._PARTITION_CHECK = 1.0"


@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed")
def test_an_invalid_header_name_costs_a_single_record(
    services: ConsumerProcesses,
) -> None:
    mitigator = services.start("mitigator")
    kcat = [
        "kcat",
        "-b",
        services.relays.bootstrap,
        "-P",
        "-t",
        services.relays.topic("host"),
    ]
    header = os.fsdecode(b"ce_\xff\xfe=1")
    subprocess.run([*kcat, "-H", header], input=b"garbage\n", check=True, timeout=30)
    services.dead_letters(1)
    services.assert_decides(mitigator)
    name = "fnm_bus_mitigator_state_reloads_total"
    assert services.metric(mitigator, name) == 0


def test_a_command_on_an_event_topic_is_a_dead_letter(
    services: ConsumerProcesses,
) -> None:
    mitigator = services.start("mitigator")
    services.put("host", None, Command(command_id="c", verb="pause", by="a relay"))
    services.flush()
    services.dead_letters(1)
    services.assert_decides(mitigator)
    assert services.metric(mitigator, "fnm_bus_mitigator_paused") == 0


def test_added_partitions_are_read(services: ConsumerProcesses) -> None:
    mitigator = services.start("mitigator", fault=LOOK_OFTEN)
    services.assert_decides(mitigator)
    topic = services.relays.topic("host")
    admin = AdminClient({"bootstrap.servers": services.relays.bootstrap})
    admin.create_partitions([NewPartitions(topic, 5)])[topic].result(30)
    [time] = [
        at
        for _key, record, at in services.records("host")
        if isinstance(record, HostEvent)
    ]
    ban = HostEvent(
        receipt=Receipt(
            event_id="new", sensor="fnm1", sequence=sequence_at(time), received_at=time
        ),
        action="ban",
        ip="203.0.113.10",
    )
    producer = Producer({"bootstrap.servers": services.relays.bootstrap})
    producer.list_topics(topic, timeout=30)
    producer.produce(topic, value=Codec().encode(ban, topic), partition=4)
    assert producer.flush(30) == 0
    services.until(
        lambda: "blackhole|203.0.113.10/32" in services.wanted(), 60, "its decision"
    )
    services.until(lambda: services.health(mitigator)[0] == 200, 30, "health")


def test_a_deleted_topic_makes_the_mitigator_unhealthy(
    services: ConsumerProcesses,
) -> None:
    mitigator = services.start("mitigator", fault=LOOK_OFTEN)
    services.assert_decides(mitigator)
    topic = services.relays.topic("hostgroup")
    admin = AdminClient({"bootstrap.servers": services.relays.bootstrap})
    admin.delete_topics([topic])[topic].result(30)
    services.until(lambda: services.health(mitigator)[0] == 503, 60, "no health")
    services.until(
        lambda: topic in str(services.health(mitigator)[1]["problem"]), 30, "a text"
    )
    admin.create_topics([NewTopic(topic, 4, 1)])[topic].result(30)
    services.until(lambda: services.health(mitigator)[0] == 200, 60, "health")
    services.assert_decides(mitigator, "203.0.113.10")
