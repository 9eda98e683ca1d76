"""Topics on a real Kafka."""

import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from fnm_bus.errors import BrokerUnavailable, ConfigError, TopicRefused
from fnm_bus.kafka.route import Topics
from fnm_bus.kafka.topic_admin import TopicAdmin
from fnm_bus.kafka.topics import TopicSpec, planned_topics, topic_differences

Names = Callable[[str], str]


def plan(names: Names, replication: int = 1) -> tuple[TopicSpec, ...]:
    kinds = Topics.__dataclass_fields__
    return planned_topics(
        Topics(**{kind: names(kind) for kind in kinds}), 3, replication
    )


def test_all_topics_are_made_as_they_are_wanted(kafka: str, topic_names: Names) -> None:
    admin, topics = TopicAdmin({"bootstrap.servers": kafka}), plan(topic_names)
    assert admin.find(topics) == {}
    assert sorted(admin.create(topics)) == sorted(topic.name for topic in topics)
    stored = admin.find(topics)
    assert [
        list(topic_differences(topic, stored.get(topic.name))) for topic in topics
    ] == [[]] * 8


def test_making_them_again_changes_nothing(kafka: str, topic_names: Names) -> None:
    admin, topics = TopicAdmin({"bootstrap.servers": kafka}), plan(topic_names)
    assert len(admin.create(topics)) == 8
    before = admin.find(topics)
    assert (
        admin.create([replace(topic, partitions=9, settings={}) for topic in topics])
        == []
    )
    assert admin.find(topics) == before


def test_a_topic_that_was_made_otherwise_is_left_and_described(
    kafka: str, topic_names: Names
) -> None:
    admin, (host, *_) = TopicAdmin({"bootstrap.servers": kafka}), plan(topic_names)
    admin.create([TopicSpec(host.name, 5, 1, {"retention.ms": "1000"})])
    assert admin.create([host]) == []
    assert list(topic_differences(host, admin.find([host])[host.name])) == [
        "partitions: 5, wanted 3",
        "retention.ms: 1000, wanted 2592000000",
    ]


def test_renewed_mitigations_are_compacted_within_hours(
    kafka: str, topic_names: Names
) -> None:
    admin = TopicAdmin({"bootstrap.servers": kafka})
    topics = plan(topic_names)
    admin.create(topics)
    name = topic_names("mitigation")
    client = AdminClient({"bootstrap.servers": kafka})
    resource = ConfigResource(ResourceType.TOPIC, name)
    (answer,) = client.describe_configs([resource]).values()
    configured = {key: entry.value for key, entry in answer.result(10).items()}
    assert configured["cleanup.policy"] == "compact"
    assert int(configured["segment.ms"]) <= 3_600_000
    assert int(configured["max.compaction.lag.ms"]) <= 6 * 3_600_000
    assert int(configured["delete.retention.ms"]) >= 86_400_000


def test_too_many_replicas_refuse_their_topic_only(
    kafka: str, topic_names: Names
) -> None:
    admin, (first, second, *_) = (
        TopicAdmin({"bootstrap.servers": kafka}),
        plan(topic_names),
    )
    with pytest.raises(TopicRefused, match=r"INVALID_REPLICATION_FACTOR"):
        admin.create([replace(first, replication=30), second])
    assert set(admin.find([first, second])) == {second.name}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "no topic!"},
        {"partitions": 0},
        {"settings": {"retention.ms": "soon"}},
        {"settings": {"colour": "blue"}},
    ],
    ids=str,
)
def test_a_topic_that_kafka_refuses_is_named(
    kafka: str, topic_names: Names, change: dict[str, Any]
) -> None:
    topic = replace(plan(topic_names)[0], **change)
    with pytest.raises(TopicRefused, match=topic.name):
        TopicAdmin({"bootstrap.servers": kafka}).create([topic])


def test_three_replicas_ask_for_two_that_have_a_record() -> None:
    for topic in planned_topics(Topics(), 12, 3):
        assert topic.settings["min.insync.replicas"] == "2"
    for topic in planned_topics(Topics(), 12, 1):
        assert "min.insync.replicas" not in topic.settings


def test_host_and_status_have_equal_partitions() -> None:
    partitions = {
        spec.name: spec.partitions for spec in planned_topics(Topics(), 12, 1)
    }
    assert partitions[Topics().host] == partitions[Topics().status] == 12


def test_a_missing_topic_is_a_difference() -> None:
    assert list(topic_differences(planned_topics(Topics(), 1, 1)[0], None)) == [
        "missing"
    ]


def test_an_unreachable_broker_is_reported_in_time(topic_names: Names) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        admin = TopicAdmin({"bootstrap.servers": f"127.0.0.1:{port}"}, timeout=1)
        with pytest.raises(BrokerUnavailable):
            admin.create(plan(topic_names))
        with pytest.raises(BrokerUnavailable):
            admin.find(plan(topic_names))


def test_a_wrong_setting_is_a_matter_of_the_configuration(topic_names: Names) -> None:
    with pytest.raises(ConfigError, match="colour"):
        TopicAdmin({"colour": "blue"}).find(plan(topic_names))
