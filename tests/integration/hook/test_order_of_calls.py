"""The order in which FastNetMon started its calls is read back from the topic."""

import os
import random
import subprocess
import time
from pathlib import Path

import pytest
from support.process import wait_until
from support.relay_processes import RelayProcesses, ban

from fnm_bus.hook.python_hook import uptime_ticks
from fnm_bus.spool.entry_name import pid_of
from fnm_bus.spool.sequence import PID_BITS

IN_FLIGHT = 500
HOST = "192.0.2.1"


@pytest.fixture
def hook(relays: RelayProcesses) -> Path:
    path = relays.root / "hook"
    relays.succeed("hook", "install", str(path), "--native")
    return path


def started(hook: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([hook], stdin=subprocess.PIPE)


def started_without_pid_wrap(hook: Path) -> "list[subprocess.Popen[bytes]]":
    """Start calls whose pids are in order also modulo 2^14, as in a sequence."""
    while True:
        calls = [started(hook) for _ in range(IN_FLIGHT)]
        if len({call.pid >> PID_BITS for call in calls}) == 1:
            return calls
        for call in calls:
            with call:
                call.kill()


def ended(call: "subprocess.Popen[bytes]", number: int) -> None:
    call.communicate(ban(HOST, total_incoming_pps=number), timeout=60)
    assert call.returncode == 0


def numbers(relays: RelayProcesses, count: int) -> list[int]:
    """Return the numbers on the topic, in the order of their sequence."""
    events = relays.events("host", count)
    assert len(events) == count
    events.sort(key=lambda event: event.receipt.sequence)
    return [event.attack_details.total_incoming_pps for event in events]


def test_events_of_five_hundred_concurrent_calls_keep_their_order(
    relays: RelayProcesses, hook: Path
) -> None:
    calls = list(enumerate(started_without_pid_wrap(hook)))
    random.Random(1).shuffle(calls)  # noqa: S311 - they end in any order
    for number, call in calls:
        ended(call, number)
    relays.start()
    assert numbers(relays, IN_FLIGHT) == list(range(IN_FLIGHT))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a namespace")
def test_calls_of_containers_with_a_shared_spool_keep_their_order(
    relays: RelayProcesses, hook: Path
) -> None:
    """Each call is process 1 of its container, so the kernel's ticks give the order."""
    contained = ["unshare", "--pid", "--fork", "--mount-proc", hook]
    for number in range(10):
        document = ban(HOST, total_incoming_pps=number)
        subprocess.run(contained, input=document, check=True)
        ended_at = uptime_ticks()
        wait_until(lambda at=ended_at: uptime_ticks() > at, 5, "the next tick")
    assert {pid_of(name) for name in relays.spool.scan()} == {1}
    relays.start()
    assert numbers(relays, 10) == list(range(10))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a namespace")
def test_a_call_after_a_restore_with_another_uptime_is_published(
    relays: RelayProcesses, hook: Path
) -> None:
    ahead = ["unshare", "--time", "--boottime", "200000", "--fork", hook]
    relays.start()
    for number, command in enumerate((ahead, [hook])):
        document = ban(HOST, total_incoming_pps=number)
        subprocess.run(command, input=document, check=True)
        wait_until(lambda: not relays.spool.scan(), 20, "an empty spool")
    assert numbers(relays, 2) == [0, 1]
    assert relays.spool.foreign_files() == []


def test_a_clock_that_jumps_back_changes_no_order(
    relays: RelayProcesses, hook: Path
) -> None:
    for number in range(10):
        ended(started(hook), number)
        if number < 5:
            [*_, last] = relays.spool.scan()
            later = time.time() + 3600
            os.utime(relays.spool.path(last), (later, later))
    relays.start()
    assert numbers(relays, 10) == list(range(10))


def test_a_late_call_has_the_lower_sequence(relays: RelayProcesses, hook: Path) -> None:
    relays.start()
    late = started(hook)
    early = started(hook)
    ended(early, 2)
    relays.events("host", 1)
    ended(late, 1)
    arrived = relays.events("host", 2)
    assert [event.attack_details.total_incoming_pps for event in arrived] == [2, 1]
    assert arrived[1].receipt.sequence < arrived[0].receipt.sequence
