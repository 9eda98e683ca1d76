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
def crew(real_plant: RelayProcesses) -> Iterator[ConsumerProcesses]:
    it = ConsumerProcesses(real_plant, policy())
    yield it
    it.stop()


def test_a_ban_becomes_wanted_and_its_unban_ends_it(crew: ConsumerProcesses) -> None:
    crew.start("mitigator")
    [event] = crew.tell("ban", "203.0.113.7")
    crew.until(lambda: crew.wanted() == [KEY])
    [audit] = crew.audits("wanted")
    assert (audit.event_id, audit.rule, audit.key) == (event, "all", KEY)
    names = {check.name for check in audit.checks}
    assert {"max_event_age", "all", "own_networks", "max_active"} <= names
    crew.tell("unban", "203.0.113.7")
    crew.until(lambda: crew.wanted() == [])
    assert crew.state()[KEY].ended_because == "unban"


def test_a_restarted_mitigator_goes_on_where_the_last_one_was_killed(
    crew: ConsumerProcesses,
) -> None:
    first = crew.start("mitigator")
    crew.tell("ban", "203.0.113.7", "203.0.113.8")
    crew.until(lambda: len(crew.wanted()) == 2)
    first.kill()
    crew.tell("unban", "203.0.113.7")
    crew.tell("ban", "203.0.113.9")
    crew.start("mitigator")
    crew.until(
        lambda: (
            crew.wanted() == ["blackhole|203.0.113.8/32", "blackhole|203.0.113.9/32"]
        )
    )
    assert len(crew.audits("wanted")) == 3


def test_a_mitigator_that_was_stopped_and_overtaken_writes_nothing_more(
    crew: ConsumerProcesses,
) -> None:
    first = crew.start("mitigator")
    crew.tell("ban", "203.0.113.7")
    crew.until(lambda: crew.wanted() == [KEY])
    os.kill(first.pid, signal.SIGSTOP)
    crew.start("mitigator")  # is elected once the first one's session is over
    crew.tell("ban", "203.0.113.8")
    crew.tell("unban", "203.0.113.7")
    crew.until(lambda: crew.wanted() == ["blackhole|203.0.113.8/32"])
    os.kill(first.pid, signal.SIGCONT)
    crew.tell("ban", "203.0.113.9")
    wanted = ["blackhole|203.0.113.8/32", "blackhole|203.0.113.9/32"]
    crew.until(lambda: crew.wanted() == wanted)
    assert len(crew.audits("wanted")) == 3, "an event was decided twice"


def test_the_one_that_stands_by_takes_over(crew: ConsumerProcesses) -> None:
    first = crew.start("mitigator")
    second = crew.start("mitigator", ready="standing by")
    crew.tell("ban", "203.0.113.7")
    crew.until(lambda: crew.wanted() == [KEY])
    os.kill(first.pid, signal.SIGTERM)
    crew.tell("unban", "203.0.113.7")
    crew.until(lambda: crew.wanted() == [])
    # Nobody has to wait until Kafka misses the one that is gone.
    assert crew.members() == 1
    os.kill(second.pid, signal.SIGTERM)
    crew.until(lambda: crew.members() == 0, 4, "no member")


def test_what_nobody_can_decode_is_a_dead_letter_and_the_rest_goes_on(
    crew: ConsumerProcesses,
) -> None:
    crew.start("mitigator")
    crew.put("host", b"203.0.113.7", b"not avro")
    crew.tell("ban", "203.0.113.7")
    crew.until(lambda: crew.wanted() == [KEY])
    [(_key, letter, _at)] = crew.records("deadletter")
    assert isinstance(letter, DeadLetter)
    assert letter.head == b"not avro"
    assert letter.origin_topic == crew.plant.topic("host")
    assert letter.origin_offset is not None


def test_a_broken_record_of_the_wanted_state_changes_nothing_that_stands(
    crew: ConsumerProcesses,
) -> None:
    first = crew.start("mitigator")
    crew.tell("ban", "203.0.113.7")
    crew.until(lambda: crew.wanted() == [KEY])
    first.kill()
    crew.put("mitigation", b"blackhole|203.0.113.8/32", b"broken")
    crew.start("mitigator")
    crew.tell("ban", "203.0.113.9")
    crew.until(lambda: "blackhole|203.0.113.9/32" in crew.wanted())
    assert KEY in crew.wanted()


def test_commands_are_answered_on_the_command_line(crew: ConsumerProcesses) -> None:
    crew.start("mitigator")
    crew.tell("ban", "203.0.113.7")
    crew.until(lambda: crew.wanted() == [KEY])
    status, _out, said = crew.run(
        "mitigations", "withdraw", KEY, "--why", "ticket 4711"
    )
    assert status == 0, said
    assert "withdrawn by" in said
    assert "ticket 4711" in said
    status, out, _said = crew.run("mitigations", "list")
    assert status == 0
    assert "suppressed" in out
    status, _out, said = crew.run("mitigations", "add", "8.8.8.8/32", "--why", "no")
    assert status == 1
    assert "own_networks" in said
    status, _out, said = crew.run("mitigations", "pause", "--why", "red")
    assert status == 0
    status, out, said = crew.run("mitigations", "list")
    assert "PAUSED" in said
    crew.tell("ban", "203.0.113.9")
    status, _out, said = crew.run("mitigations", "resume", "--why", "green")
    assert status == 0, said
    crew.until(lambda: crew.wanted() == ["blackhole|203.0.113.9/32"])


def test_a_command_without_a_mitigator_says_that_it_waits(
    crew: ConsumerProcesses,
) -> None:
    status, _out, said = crew.run("mitigations", "pause", "--why", "red")
    assert status == 75
    assert "no mitigator answered" in said


def test_explain_shows_every_question_and_publishes_nothing(
    crew: ConsumerProcesses,
) -> None:
    document = (
        b'{"ip": "203.0.113.7", "action": "ban", "alert_scope": "host",'
        b' "attack_details": {"attack_uuid": "a"}}'
    )
    status, out, said = crew.run("explain", stdin=document)
    assert status == 0, said
    for word in ("match", "all", "own_networks", "max_active", "⇒ wanted"):
        assert word in out
    assert crew.state() == {}
    assert crew.records("audit") == []


def test_explain_replays_what_is_on_the_topics(crew: ConsumerProcesses) -> None:
    [event] = crew.tell("ban", "203.0.113.7")
    crew.tell("unban", "203.0.113.7")
    status, out, said = crew.run("explain", "--since", "1h")
    assert status == 0, said
    assert "⇒ wanted" in out
    assert "⇒ ended" in out
    status, out, said = crew.run("explain", "--event-id", event, "--offline")
    assert status == 0, said
    assert "⇒ wanted: blackhole|203.0.113.7/32" in out


def test_a_mistake_in_the_policy_stops_the_start(crew: ConsumerProcesses) -> None:
    crew.policy.write_text('own_networks = ["203.0.113.0/24"]\nspelt = "wrong"\n')
    status, _out, said = crew.run("consumer", "mitigator")
    assert status == 78
    assert "policy.toml: spelt" in said
