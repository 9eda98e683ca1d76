"""The mitigator as a process, on a real Kafka."""

import os
import signal

import pytest
from support.consumer_processes import ConsumerProcesses
from support.process import Server

KEY = "blackhole|203.0.113.7/32"

pytestmark = pytest.mark.kafka


def start_with_ban(services: ConsumerProcesses) -> Server:
    """Start a mitigator; ban a host, and wait until its mitigation is wanted."""
    mitigator = services.start("mitigator")
    services.tell("ban", "203.0.113.7")
    services.until(lambda: services.wanted() == [KEY])
    return mitigator


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
    first = start_with_ban(services)
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
    # The standby need not wait until Kafka removes the first one.
    assert services.members() == 1
    os.kill(second.pid, signal.SIGTERM)
    services.until(lambda: services.members() == 0, 4, "no member")


def test_an_undecodable_record_is_a_dead_letter(services: ConsumerProcesses) -> None:
    services.start("mitigator")
    services.put("host", b"203.0.113.7", b"not avro")
    services.tell("ban", "203.0.113.7")
    services.until(lambda: services.wanted() == [KEY])
    [letter] = services.dead_letters(1)
    assert letter.head == b"not avro"
    assert letter.origin_topic == services.relays.topic("host")
    assert letter.origin_offset is not None


def test_a_broken_stored_record_changes_no_active_mitigation(
    services: ConsumerProcesses,
) -> None:
    first = start_with_ban(services)
    first.kill()
    services.put("mitigation", b"blackhole|203.0.113.8/32", b"broken")
    services.start("mitigator")
    services.tell("ban", "203.0.113.9")
    services.until(lambda: "blackhole|203.0.113.9/32" in services.wanted())
    assert KEY in services.wanted()


def test_commands_are_answered_on_the_command_line(services: ConsumerProcesses) -> None:
    start_with_ban(services)
    answer = services.succeed(
        "mitigations", "withdraw", KEY, "--comment", "ticket 4711"
    )
    assert "withdrawn by" in answer
    assert "ticket 4711" in answer
    assert "suppressed" in services.succeed("mitigations", "list")
    status, _out, refusal = services.run(
        "mitigations", "add", "8.8.8.8/32", "--comment", "no"
    )
    assert status == 1
    assert "own_networks" in refusal
    services.succeed("mitigations", "pause", "--comment", "red")
    assert "PAUSED" in services.succeed("mitigations", "list")
    services.tell("ban", "203.0.113.9")
    services.succeed("mitigations", "resume", "--comment", "green")
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
    explanation = services.succeed("explain", stdin=document)
    for word in ("match", "all", "own_networks", "max_active", "⇒ wanted"):
        assert word in explanation
    assert services.state() == {}
    assert services.records("audit") == []


def test_explain_replays_the_topics(services: ConsumerProcesses) -> None:
    [event] = services.tell("ban", "203.0.113.7")
    services.tell("unban", "203.0.113.7")
    replay = services.succeed("explain", "--since", "1h")
    assert "⇒ wanted" in replay
    assert "⇒ ended" in replay
    explanation = services.succeed("explain", "--event-id", event, "--offline")
    assert "⇒ wanted: blackhole|203.0.113.7/32" in explanation


def test_a_mistake_in_the_policy_stops_the_start(services: ConsumerProcesses) -> None:
    services.policy.write_text('own_networks = ["203.0.113.0/24"]\nspelt = "wrong"\n')
    status, _out, said = services.run("consumer", "mitigator")
    assert status == 78
    assert "policy.toml: spelt" in said
