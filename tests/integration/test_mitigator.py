"""The mitigator as a process, on a real Kafka."""

import os
import signal
from collections.abc import Iterator

import pytest
from support.consumer_processes import ConsumerProcesses, policy
from support.relay_processes import RelayProcesses

from fnm_bus.event import DeadLetter

KEY = "blackhole|203.0.113.7/32"

pytestmark = pytest.mark.kafka


@pytest.fixture
def services(kafka_relays: RelayProcesses) -> Iterator[ConsumerProcesses]:
    services = ConsumerProcesses(kafka_relays, policy())
    yield services
    services.stop()


def test_a_ban_becomes_wanted_until_its_unban(services: ConsumerProcesses) -> None:
    services.start("mitigator")
    [event] = services.tell("ban", "203.0.113.7")
    services.until(lambda: services.wanted() == [KEY])
    [audit] = services.audits("wanted")
    assert (audit.event_id, audit.rule, audit.key) == (event, "all", KEY)
    names = {check.name for check in audit.checks}
    assert {"max_event_age", "all", "own_networks", "max_active"} <= names
    services.tell("unban", "203.0.113.7")
    services.until(lambda: services.wanted() == [])
    assert services.state()[KEY].ended_because == "unban"


def test_a_restarted_mitigator_continues_after_a_kill(
    services: ConsumerProcesses,
) -> None:
    first = services.start("mitigator")
    services.tell("ban", "203.0.113.7", "203.0.113.8")
    services.until(lambda: len(services.wanted()) == 2)
    first.kill()
    services.tell("unban", "203.0.113.7")
    services.tell("ban", "203.0.113.9")
    services.start("mitigator")
    services.until(
        lambda: (
            services.wanted()
            == ["blackhole|203.0.113.8/32", "blackhole|203.0.113.9/32"]
        )
    )
    assert len(services.audits("wanted")) == 3


def test_a_stopped_and_overtaken_mitigator_writes_nothing(
    services: ConsumerProcesses,
) -> None:
    first = services.start("mitigator")
    services.tell("ban", "203.0.113.7")
    services.until(lambda: services.wanted() == [KEY])
    os.kill(first.pid, signal.SIGSTOP)
    services.start("mitigator")  # is elected once the first one's session is over
    services.tell("ban", "203.0.113.8")
    services.tell("unban", "203.0.113.7")
    services.until(lambda: services.wanted() == ["blackhole|203.0.113.8/32"])
    os.kill(first.pid, signal.SIGCONT)
    services.tell("ban", "203.0.113.9")
    wanted = ["blackhole|203.0.113.8/32", "blackhole|203.0.113.9/32"]
    services.until(lambda: services.wanted() == wanted)
    assert len(services.audits("wanted")) == 3, "an event was decided twice"


def test_a_standby_takes_over_from_a_terminated_leader(
    services: ConsumerProcesses,
) -> None:
    first = services.start("mitigator")
    second = services.start("mitigator", ready="standby")
    services.tell("ban", "203.0.113.7")
    services.until(lambda: services.wanted() == [KEY])
    os.kill(first.pid, signal.SIGTERM)
    services.tell("unban", "203.0.113.7")
    services.until(lambda: services.wanted() == [])
    # Nobody has to wait until Kafka misses the one that is gone.
    assert services.members() == 1
    os.kill(second.pid, signal.SIGTERM)
    services.until(lambda: services.members() == 0, 4, "no member")


def test_an_undecodable_record_is_a_dead_letter(services: ConsumerProcesses) -> None:
    services.start("mitigator")
    services.put("host", b"203.0.113.7", b"not avro")
    services.tell("ban", "203.0.113.7")
    services.until(lambda: services.wanted() == [KEY])
    [(_key, letter, _at)] = services.records("deadletter")
    assert isinstance(letter, DeadLetter)
    assert letter.head == b"not avro"
    assert letter.origin_topic == services.relays.topic("host")
    assert letter.origin_offset is not None


def test_a_broken_stored_record_changes_no_active_mitigation(
    services: ConsumerProcesses,
) -> None:
    first = services.start("mitigator")
    services.tell("ban", "203.0.113.7")
    services.until(lambda: services.wanted() == [KEY])
    first.kill()
    services.put("mitigation", b"blackhole|203.0.113.8/32", b"broken")
    services.start("mitigator")
    services.tell("ban", "203.0.113.9")
    services.until(lambda: "blackhole|203.0.113.9/32" in services.wanted())
    assert KEY in services.wanted()


def test_commands_are_answered_on_the_command_line(services: ConsumerProcesses) -> None:
    services.start("mitigator")
    services.tell("ban", "203.0.113.7")
    services.until(lambda: services.wanted() == [KEY])
    status, _out, said = services.run(
        "mitigations", "withdraw", KEY, "--comment", "ticket 4711"
    )
    assert status == 0, said
    assert "withdrawn by" in said
    assert "ticket 4711" in said
    status, out, _said = services.run("mitigations", "list")
    assert status == 0
    assert "suppressed" in out
    status, _out, said = services.run(
        "mitigations", "add", "8.8.8.8/32", "--comment", "no"
    )
    assert status == 1
    assert "own_networks" in said
    status, _out, said = services.run("mitigations", "pause", "--comment", "red")
    assert status == 0
    status, out, said = services.run("mitigations", "list")
    assert "PAUSED" in said
    services.tell("ban", "203.0.113.9")
    status, _out, said = services.run("mitigations", "resume", "--comment", "green")
    assert status == 0, said
    services.until(lambda: services.wanted() == ["blackhole|203.0.113.9/32"])


def test_a_command_without_a_mitigator_exits_75(services: ConsumerProcesses) -> None:
    status, _out, said = services.run("mitigations", "pause", "--comment", "red")
    assert status == 75
    assert "no mitigator answered" in said


def test_explain_shows_every_check_and_publishes_nothing(
    services: ConsumerProcesses,
) -> None:
    document = (
        b'{"ip": "203.0.113.7", "action": "ban", "alert_scope": "host",'
        b' "attack_details": {"attack_uuid": "a"}}'
    )
    status, out, said = services.run("explain", stdin=document)
    assert status == 0, said
    for word in ("match", "all", "own_networks", "max_active", "⇒ wanted"):
        assert word in out
    assert services.state() == {}
    assert services.records("audit") == []


def test_explain_replays_the_topics(services: ConsumerProcesses) -> None:
    [event] = services.tell("ban", "203.0.113.7")
    services.tell("unban", "203.0.113.7")
    status, out, said = services.run("explain", "--since", "1h")
    assert status == 0, said
    assert "⇒ wanted" in out
    assert "⇒ ended" in out
    status, out, said = services.run("explain", "--event-id", event, "--offline")
    assert status == 0, said
    assert "⇒ wanted: blackhole|203.0.113.7/32" in out


def test_a_mistake_in_the_policy_stops_the_start(services: ConsumerProcesses) -> None:
    services.policy.write_text('own_networks = ["203.0.113.0/24"]\nspelt = "wrong"\n')
    status, _out, said = services.run("consumer", "mitigator")
    assert status == 78
    assert "policy.toml: spelt" in said
