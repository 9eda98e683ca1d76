"""What librdkafka reports of a connection, in words and in our tree of errors."""

import json
import logging
import re
from pathlib import Path

import pytest
from confluent_kafka import KafkaError

from fnm_bus.errors import BrokerUnavailable, ConnectionRejected
from fnm_bus.kafka.client import ConnectionState, build_admin, metadata
from fnm_bus.kafka.client_errors import access_error, explain_error, principal_of

SETTINGS = {
    "security.protocol": "SASL_SSL",
    "sasl.mechanism": "SCRAM-SHA-512",
    "sasl.username": "relay",
    "sasl.password": "hunter2-hunter2",
}
REFUSED = KafkaError(KafkaError._TRANSPORT, "kafka:9092: Connection refused")
WRONG = KafkaError(KafkaError._AUTHENTICATION, "kafka:9092: SASL authentication error")
DOWN = KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")


def statistics(*states: str) -> str:
    brokers = {str(number): {"state": state} for number, state in enumerate(states)}
    return json.dumps({"brokers": brokers})


@pytest.fixture
def state() -> ConnectionState:
    return ConnectionState(SETTINGS)


def test_a_new_client_has_no_error(state: ConnectionState) -> None:
    assert (state.error, state.rejection, state.is_down) == (None, "", False)


def test_rejected_credentials_are_a_rejection_at_once(state: ConnectionState) -> None:
    state.take_error(WRONG)
    assert "unknown user or wrong password" in state.rejection
    assert not state.is_down


def test_an_unreachable_broker_is_not_a_rejection(state: ConnectionState) -> None:
    state.take_error(REFUSED)
    state.take_error(DOWN)
    assert (state.rejection, state.is_down) == ("", True)
    assert "Connection refused" in str(state.error)


def test_one_unreachable_broker_of_several_is_not_an_error(
    state: ConnectionState,
) -> None:
    state.take_statistics(statistics("UP", "DOWN"))
    state.take_error(REFUSED)
    assert state.error is None


def test_a_reachable_broker_clears_the_error(state: ConnectionState) -> None:
    state.take_error(WRONG)
    state.take_error(DOWN)
    state.take_statistics(statistics("DOWN", "UP"))
    assert (state.rejection, state.is_down) == ("", False)


def test_a_rejection_after_a_lost_connection_is_reported(
    state: ConnectionState,
) -> None:
    state.take_statistics(statistics("UP"))
    state.take_error(DOWN)
    state.take_error(WRONG)
    assert state.rejection


def test_an_error_is_logged_once_until_a_broker_is_reachable(
    state: ConnectionState, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        state.take_error(WRONG)
        state.take_error(DOWN)
    assert len(caplog.messages) == 1
    state.mark_connected()
    state.take_error(DOWN)
    assert len(caplog.messages) == 2


def test_an_awaited_error_is_not_logged(
    state: ConnectionState, caplog: pytest.LogCaptureFixture
) -> None:
    state.is_awaited = True
    state.take_error(WRONG)
    assert caplog.messages == []


def test_a_fatal_error_is_kept(state: ConnectionState) -> None:
    state.take_error(KafkaError(KafkaError._FATAL, "fenced", fatal=True))
    assert state.fatal is not None
    state.reset()
    assert state.fatal is None


def test_each_raise_gets_its_own_error(state: ConnectionState) -> None:
    state.take_error(WRONG)
    first, second = state.current_error(), state.current_error()
    assert isinstance(first, ConnectionRejected)
    assert (str(first), first is second) == (str(second), False)


@pytest.mark.parametrize(
    ("code", "text", "expected", "kind"),
    [
        ("_RESOLVE", "Failed to resolve 'k:1'", "or the DNS", BrokerUnavailable),
        ("_TRANSPORT", "Connection refused", "start Kafka", BrokerUnavailable),
        ("_TRANSPORT", "timed out", "no broker reachable", BrokerUnavailable),
        (
            "_TRANSPORT",
            "connecting to a PLAINTEXT broker listener?",
            '"SASL_SSL" uses TLS, and this port does not',
            ConnectionRejected,
        ),
        ("_SSL", "certificate verify failed", "`fnm-bus check`", ConnectionRejected),
        (
            "_AUTHENTICATION",
            "Unsupported SASL mechanism: broker's supported mechanisms: PLAIN",
            'does not offer SCRAM-SHA-512: set "sasl.mechanism" = PLAIN',
            ConnectionRejected,
        ),
    ],
)
def test_each_error_names_the_remedy(
    code: str, text: str, expected: str, kind: type[BrokerUnavailable]
) -> None:
    error = KafkaError(
        getattr(KafkaError, code), f"k:1: {text} (after 3ms in state UP)"
    )
    found = explain_error(error, SETTINGS)
    assert type(found) is kind
    assert expected in str(found)
    assert "3ms" not in str(found)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "Topic t: User:relay has no Read"),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "Group g: User:relay has no Read"),
        (
            KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            "TransactionalId i: User:relay has no Write",
        ),
        (
            KafkaError.CLUSTER_AUTHORIZATION_FAILED,
            "Cluster kafka-cluster: User:relay has no IdempotentWrite",
        ),
    ],
)
def test_a_missing_right_is_named(code: int, expected: str) -> None:
    error = access_error(
        KafkaError(code), SETTINGS, topic="t", group="g", transactional_id="i"
    )
    assert expected in str(error)


def test_other_errors_are_about_no_right() -> None:
    assert access_error(REFUSED, SETTINGS) is None


def test_without_sasl_the_user_has_no_name() -> None:
    assert principal_of({"sasl.username": "relay"}) == "this client's user"


def test_clients_are_built_in_one_place() -> None:
    """librdkafka implements the embedded broker as a producer."""
    root = Path(__file__).parents[3]
    sources = [*root.glob("fnm_bus/**/*.py"), *root.glob("consumers/**/*.py")]
    builds = re.compile(r"\b(Producer|Consumer|AdminClient)\((?!\))")
    found = {
        str(path.relative_to(root))
        for path in sources
        if builds.search(path.read_text())
    }
    assert found == {"fnm_bus/kafka/client.py", "fnm_bus/kafka/embedded_broker.py"}


def test_a_new_client_waits_for_a_slow_cluster() -> None:
    """librdkafka's mock cluster answers each request after 600 ms."""
    settings = {
        "bootstrap.servers": "mock",
        "test.mock.num.brokers": "1",
        "test.mock.broker.rtt": "600",
    }
    state = ConnectionState(settings)
    admin = build_admin(settings, state)
    assert metadata(admin, None, state, is_new=True).brokers
