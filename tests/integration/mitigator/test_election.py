"""The election: a single mitigator is elected, and an outage of Kafka ends nothing."""

from collections.abc import Iterator
from contextlib import closing
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, ConsumerGroupState
from confluent_kafka.admin import AdminClient, ConsumerGroupDescription
from support.process import wait_until

from consumers.mitigator.kafka.leader_election import LeaderElection
from fnm_bus.kafka.topic_admin import TopicAdmin
from fnm_bus.kafka.topics import TopicSpec

pytestmark = pytest.mark.kafka


class Hall:
    """A group that elects."""

    def __init__(self, bootstrap: str) -> None:
        self.group = f"election-{uuid4().hex}"
        self.settings = {"bootstrap.servers": bootstrap}
        self.admin = AdminClient(self.settings)
        TopicAdmin(self.settings).create([TopicSpec(self.group, 1, 1, {})])

    def member(self) -> LeaderElection:
        return LeaderElection(self.settings, self.group, self.group)

    def names(self) -> set[str]:
        """Return the members that Kafka lists, by `group.instance.id`."""
        return {member.group_instance_id or "" for member in self._known().members}

    def stable(self) -> bool:
        """Return whether all members have their assignments."""
        return bool(self._known().state == ConsumerGroupState.STABLE)

    def _known(self) -> ConsumerGroupDescription:
        [answer] = self.admin.describe_consumer_groups([self.group]).values()
        return answer.result(timeout=30)


@pytest.fixture
def hall(kafka: str) -> Iterator[Hall]:
    return Hall(kafka)


def test_a_removed_member_joins_again(
    hall: Hall, caplog: pytest.LogCaptureFixture
) -> None:
    member = hall.member()
    member.open()
    with closing(member):
        wait_until(lambda: member.poll(0.1), 30, "elected")
        [name] = hall.names()
        settings = {"group.id": hall.group, "group.instance.id": name}
        with closing(Consumer({**hall.settings, **settings})) as other:
            other.subscribe([hall.group])
            wait_until(lambda: bool(other.poll(0.1) or other.assignment()), 30, "it")
            wait_until(lambda: not member.poll(0.1), 30, "shut out")
        wait_until(lambda: member.poll(0.1), 30, "elected again")
        assert hall.names() == {name}
    assert "Static consumer fenced by other consumer" in caplog.text


def test_a_member_that_leaves_is_not_listed(hall: Hall) -> None:
    members = [hall.member(), hall.member()]
    for member in members:
        member.open()

    def settled() -> bool:
        elected = [member.poll(0.1) for member in members]
        met = sum(elected) == 1 and len(hall.names()) == len(members)
        return met and hall.stable()

    wait_until(settled, 30, "one of two is elected")
    # A member that leaves before it has the result has no place to give back.
    [first] = [member for member in members if member.poll(0.1)]
    [second] = [member for member in members if member is not first]
    second.poll(0.1)
    # Kafka answers at once; without a notice it would wait for a session, 6 s.
    second.close()
    wait_until(lambda: len(hall.names()) == 1, 3, "one is left")
    first.close()
    wait_until(lambda: not hall.names(), 3, "none is left")


def test_a_member_that_was_never_open_can_be_closed(hall: Hall) -> None:
    member = hall.member()
    member.close()
    assert not member.elected
