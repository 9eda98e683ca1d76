"""Commands and lists of mitigations: every command is sent, output is escaped."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import pytest
from support.mitigator_harness import policy, rule
from typer.testing import CliRunner

from consumers import build, reading
from consumers.cli import mitigations
from consumers.errors import MitigatorTimeout
from consumers.mitigation import command_client
from consumers.mitigation.command_client import new_command, send_command
from consumers.mitigator.context import DecisionContext
from consumers.mitigator.explain import explanation_lines, replay_events
from consumers.mitigator.kafka.stored_state import StoredState
from consumers.mitigator.state.restore import StoredRecord
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import ConfigError, SchemaError
from fnm_bus.event import (
    Audit,
    Command,
    HostEvent,
    Mitigation,
    ReasonSummary,
    Receipt,
)
from fnm_bus.kafka.addressing import Topics
from fnm_bus.kafka.reader import ConsumedRecord, record_time

NOW = datetime.now(UTC)


class Audits:
    """Replaces the `TopicReader` of the audit topic.

    Attributes:
        answer: the audit record after a command was sent.
        unread: whether a partition has no leader.
    """

    answer: Audit | None = None
    unread = False

    def __init__(self, *_: object) -> None:
        pass

    @property
    def at_end(self) -> bool:
        return not self.unread

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def check(self) -> None:
        pass

    def read(self, _seconds: float) -> Iterator[ConsumedRecord]:
        if self.answer is not None:
            yield ConsumedRecord("audit", 0, 0, NOW, None, (), b"x", self.answer, "")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The records that were published."""
    published: list[Any] = []
    monkeypatch.setattr(command_client, "TopicReader", Audits)
    monkeypatch.setattr(
        command_client, "_publish", lambda _settings, record: published.append(record)
    )
    return published


def ask(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> Audit:
    command = new_command("pause", "alice", "a test", **fields)
    answer = Audit(event_id=command.command_id, action="paused")
    monkeypatch.setattr(Audits, "answer", answer)
    return send_command({}, Topics(), Codec(), command)


def test_an_audit_partition_without_leader_does_not_prevent_commands(
    sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Audits, "unread", True)
    monkeypatch.setattr(command_client, "_TIMEOUT", 0.2)
    assert ask(monkeypatch).action == "paused"
    assert len(sent) == 1


def test_a_user_without_a_name_can_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a container with a user of its own."""

    def nobody() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr("getpass.getuser", nobody)
    assert new_command("pause", None, "").by.startswith("uid ")


def test_bytes_that_are_not_utf_8_are_refused(sent: list[Any]) -> None:
    command = new_command("withdraw", "alice", "", key="blackhole|\udcff")
    with pytest.raises(ConfigError, match="key"):
        send_command({}, Topics(), Codec(), command)
    assert not sent


# -- the commands ----------------------------------------------------------------------


class Sender:
    """Replaces `send_command`; the command for one key gets no answer."""

    def __init__(self) -> None:
        self.keys: list[str | None] = []

    def __call__(self, *args: Any) -> Audit:
        command: Command = args[3]
        self.keys.append(command.key)
        if command.key == "first":
            raise MitigatorTimeout("no mitigator answered")
        return Audit(event_id=command.command_id, action="ended", key=command.key)


@pytest.fixture
def sender(monkeypatch: pytest.MonkeyPatch) -> Sender:
    fake = Sender()
    monkeypatch.setattr(command_client, "send_command", fake)
    monkeypatch.setattr(build, "load_settings", lambda _file: None)
    monkeypatch.setattr("fnm_bus.build.kafka_settings", lambda _settings: {})
    monkeypatch.setattr("fnm_bus.build.topic_names", lambda _settings: Topics())
    monkeypatch.setattr("fnm_bus.build.build_reading_codec", lambda _settings: Codec())
    return fake


def test_a_withdrawal_without_answer_does_not_prevent_the_others(
    sender: Sender,
) -> None:
    arguments = ["withdraw", "first", "second", "third", "--by", "a"]
    result = CliRunner().invoke(mitigations.app, arguments)
    assert sender.keys == ["first", "second", "third"]
    assert result.exit_code == 75
    assert "first: no mitigator answered" in result.output


def test_an_approval_without_answer_does_not_prevent_the_others(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(_settings: object, key: str) -> Mitigation:
        return Mitigation(key=key, kind="blackhole", state="proposed", revision=3)

    monkeypatch.setattr(mitigations, "_find_mitigation", find)
    arguments = ["approve", "first", "second", "--by", "a"]
    result = CliRunner().invoke(mitigations.app, arguments)
    assert sender.keys == ["first", "second"]
    assert result.exit_code == 75


def test_text_of_other_programs_is_sent_unchanged(
    sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A no-break space from a copied text does not prevent a pause."""
    command = new_command("pause", "alice", "DDoS\u00a0here\n")
    answer = Audit(event_id=command.command_id, action="paused")
    monkeypatch.setattr(Audits, "answer", answer)
    assert send_command({}, Topics(), Codec(), command) == answer
    assert len(sent) == 1


def test_a_bad_schema_ids_file_does_not_prevent_a_pause(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_settings: object) -> Codec:
        raise SchemaError("pins.json: not JSON")

    monkeypatch.setattr("fnm_bus.build.build_reading_codec", broken)
    monkeypatch.setattr(
        "fnm_bus.build.build_independent_codec", lambda _settings: Codec()
    )
    result = CliRunner().invoke(mitigations.app, ["pause", "--by", "a"])
    assert (result.exit_code, sender.keys) == (0, [None])


@pytest.mark.parametrize(
    "arguments",
    [["list"], ["show", "blackhole|203.0.113.7/32"]],
    ids=lambda arguments: arguments[0],
)
def test_control_characters_of_a_record_are_escaped(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    bad = "\x1b]0;owned\x07\x9b2J\r\nforged"
    record = Mitigation(
        key="blackhole|203.0.113.7/32",
        kind="blackhole",
        prefix="203.0.113.7/32",
        state="wanted",
        cause=bad,
        by=bad,
        reasons=(ReasonSummary(sensor=bad, action=bad, rule=bad, attack=bad),),
    )
    stored = StoredState(
        mitigations=[StoredRecord(record, NOW)], unreadable=[(f"k{bad}", f"why {bad}")]
    )
    monkeypatch.setattr(build, "load_settings", lambda _file: None)
    monkeypatch.setattr(reading, "read_wanted_state", lambda _settings: stored)
    result = CliRunner().invoke(mitigations.app, arguments)
    assert result.exit_code == 0
    assert "owned" in result.output
    lines = result.output.splitlines()
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("forged") for line in lines)


def test_an_event_of_the_last_year_can_be_explained() -> None:
    last = datetime(9999, 12, 31, tzinfo=UTC)
    receipt = Receipt(event_id="e", sensor="fnm1", received_at=last, sequence=1)
    event = HostEvent(receipt=receipt, action="ban", ip="203.0.113.7")
    context = DecisionContext(policy(rule("all")), dry_run=False)
    (explanation,) = replay_events([event], context)
    assert list(explanation_lines(explanation))


def test_an_extreme_record_time_does_not_overflow() -> None:
    assert record_time(2**62) + timedelta(days=365)
    assert record_time(-(2**62)) - timedelta(days=365)
