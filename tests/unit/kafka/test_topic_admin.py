"""Rights of groups while Kafka loads their topic."""

from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclOperation

from fnm_bus.errors import FnmBusError
from fnm_bus.kafka.topic_admin import TopicAdmin


class Answer:
    """The result of a request: an error, or the rights to read."""

    authorized_operations = (AclOperation.READ,)

    def __init__(self, code: int | None) -> None:
        self._code = code

    def result(self) -> "Answer":
        if self._code is not None:
            raise KafkaException(KafkaError(self._code))
        return self


class Client:
    """Answers with each of *codes*, then with the rights."""

    def __init__(self, *codes: int) -> None:
        self._codes: list[int | None] = [*codes, None]

    def describe_consumer_groups(
        self, names: Sequence[str], **_options: Any
    ) -> dict[str, Answer]:
        code = self._codes.pop(0)
        return {name: Answer(code) for name in names}


def admin_with(client: Client, monkeypatch: pytest.MonkeyPatch) -> TopicAdmin:
    admin = TopicAdmin({"bootstrap.servers": "127.0.0.1:1"})
    monkeypatch.setattr(admin, "_connect", lambda: (client, None))
    return admin


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
    ],
)
def test_a_group_without_a_coordinator_is_requested_again(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = admin_with(Client(code, code), monkeypatch)
    assert admin.group_rights(["notifier"]) == {"notifier": frozenset({"Read"})}


def test_another_error_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    admin = admin_with(Client(KafkaError.INVALID_GROUP_ID), monkeypatch)
    with pytest.raises(FnmBusError):
        admin.group_rights(["notifier"])
