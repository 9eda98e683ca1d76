"""Many want the spool's lock, and its holder is stopped: one drains, none is lost."""

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.relay_processes import RelayProcesses, ban

CALLS = 50


@pytest.fixture
def hook(relays: RelayProcesses) -> Path:
    """A hook that would drain the spool if it got the lock."""
    path = relays.root / "hook"
    done = relays.run(
        *("hook", "install", str(path), "--drain"), *("--config", str(relays.config))
    )
    assert done.returncode == 0, done.stderr
    return path


def test_no_process_waits_for_a_stopped_lock_holder(
    relays: RelayProcesses, hook: Path
) -> None:
    holder = relays.start()
    waiting = relays.start(ready="READY=1")
    holder.send_signal(signal.SIGSTOP)

    def call(number: int) -> int:
        document = ban(f"192.0.2.{number}")
        return subprocess.run([hook], input=document, check=False).returncode

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(call, range(CALLS))) == {0}
    assert len(relays.spool.scan()) == CALLS
    holder.send_signal(signal.SIGCONT)
    relays.until(relays.empty)
    events = relays.events("host", CALLS)
    assert len(events) == CALLS  # once each: no other process has drained
    assert waiting.poll() is None
    holder.kill()
    holder.wait()
    assert call(CALLS) == 0
    relays.until(relays.empty)
    ids = {event.receipt.event_id for event in relays.events("host", CALLS + 1)}
    assert len(ids) == CALLS + 1


def started(hook: Path, numbers: range) -> "list[subprocess.Popen[bytes]]":
    """Start calls, all of them at once; each has its whole document."""
    calls = [subprocess.Popen([hook], stdin=subprocess.PIPE) for _ in numbers]
    for number, call in zip(numbers, calls, strict=True):
        assert call.stdin is not None
        call.stdin.write(ban(f"192.0.2.{number}"))
        call.stdin.close()
    return calls


def ids(relays: RelayProcesses, least: int) -> set[object]:
    return {event.receipt.event_id for event in relays.events("host", least)}


def test_fifty_calls_at_once_that_would_drain_leave_nothing(
    relays: RelayProcesses, hook: Path
) -> None:
    """No relay runs: one of them drains at a time, for all."""
    calls = started(hook, range(CALLS))
    assert {call.wait(timeout=120) for call in calls} == {0}
    assert relays.empty()
    assert len(ids(relays, CALLS)) == CALLS


def test_no_call_waits_for_a_stopped_drain(relays: RelayProcesses, hook: Path) -> None:
    [first] = started(hook, range(1))
    children = Path(f"/proc/{first.pid}/task/{first.pid}/children")
    relays.until(lambda: bool(children.read_text()))
    drain = int(children.read_text())
    os.kill(drain, signal.SIGSTOP)
    try:
        calls = started(hook, range(1, CALLS))
        assert {call.wait(timeout=60) for call in calls} == {0}
        assert first.poll() is None
        assert relays.spool.is_locked()
    finally:
        os.kill(drain, signal.SIGCONT)
    assert first.wait(timeout=60) == 0
    assert relays.empty()
    assert len(ids(relays, CALLS)) == CALLS
