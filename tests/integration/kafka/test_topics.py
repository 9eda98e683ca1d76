"""Topics on a real Kafka."""

import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from fnm_bus.errors import BrokerUnavailable, ConfigError, TopicRefused
from fnm_bus.kafka.addressing import Topics
from fnm_bus.kafka.topic_admin import TopicAdmin
from fnm_bus.kafka.topics import TopicSpec, planned_topics, topic_differences

Names = Callable[[str], str]
Specs = tuple[TopicSpec, ...]


def plan(names: Names, replication: int = 1) -> Specs:
    kinds = Topics.__dataclass_fields__
    return planned_topics(
        Topics(**{kind: names(kind) for kind in kinds}), 3, replication
    )


@pytest.fixture
def admin(kafka: str) -> TopicAdmin:
    return TopicAdmin({"bootstrap.servers": kafka})


@pytest.fixture
def topics(topic_names: Names) -> Specs:
    return plan(topic_names)


def test_all_topics_are_created_as_planned(admin: TopicAdmin, topics: Specs) -> None:
    assert admin.find(topics) == {}
    assert sorted(admin.create(topics)) == sorted(topic.name for topic in topics)
    stored = admin.find(topics)
    assert [
        list(topic_differences(topic, stored.get(topic.name))) for topic in topics
    ] == [[]] * 8


def test_creating_existing_topics_changes_nothing(
    admin: TopicAdmin, topics: Specs
) -> None:
    assert len(admin.create(topics)) == 8
    before = admin.find(topics)
    others = [replace(topic, partitions=9, settings={}) for topic in topics]
    assert admin.create(others) == []
    assert admin.find(topics) == before


def test_a_different_topic_is_kept_and_described(
    admin: TopicAdmin, topics: Specs
) -> None:
    host = topics[0]
    admin.create([TopicSpec(host.name, 5, 1, {"retention.ms": "1000"})])
    assert admin.create([host]) == []
    assert list(topic_differences(host, admin.find([host])[host.name])) == [
        "partitions: 5, wanted 3",
        "retention.ms: 1000, wanted 2592000000",
    ]


def test_renewed_mitigations_are_compacted_within_hours(
    kafka: str, admin: TopicAdmin, topics: Specs, topic_names: Names
) -> None:
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
    admin: TopicAdmin, topics: Specs
) -> None:
    first, second, *_ = topics
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
    admin: TopicAdmin, topics: Specs, change: dict[str, Any]
) -> None:
    topic = replace(topics[0], **change)
    with pytest.raises(TopicRefused, match=topic.name):
        admin.create([topic])


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


def test_an_unreachable_broker_is_reported_in_time(topics: Specs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        admin = TopicAdmin({"bootstrap.servers": f"127.0.0.1:{port}"}, timeout=1)
        with pytest.raises(BrokerUnavailable):
            admin.create(topics)
        with pytest.raises(BrokerUnavailable):
            admin.find(topics)


def test_a_wrong_setting_is_a_configuration_error(topics: Specs) -> None:
    with pytest.raises(ConfigError, match="colour"):
        TopicAdmin({"colour": "blue"}).find(topics)
