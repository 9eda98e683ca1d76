"""One bad thing never stops the relay: poison entries, deaths, a spool that goes."""

import os
import re
import select
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from support.planted import Planted, poison
from support.relay_processes import RelayProcesses, ban

from fnm_bus.relay.reading_note import ReadingNote
from fnm_bus.spool.drain_backoff import Backoff
from fnm_bus.spool.quarantine import Quarantine


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planted:
    """Faults in the parser of every relay, and of its children."""
    root = tmp_path / "planted"
    root.mkdir()
    made = Planted(root)
    monkeypatch.setenv("PYTHONPATH", made.path)
    return made


def quarantined(relays: RelayProcesses) -> list[str]:
    return list(Quarantine(relays.spool.root, 1_000, 10**9).names())


def ips(relays: RelayProcesses, least: int) -> list[str]:
    return sorted({event.ip for event in relays.events("host", least)})


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize(
    ("kind", "reason"), [("crash", "SIGSEGV"), ("memory", "memory"), ("fault", "fault")]
)
def test_an_entry_that_killed_a_relay_is_quarantined(
    relays: RelayProcesses, kind: str, reason: str
) -> None:
    for number in range(20):
        relays.call(ban(f"192.0.2.{number}"))
    bad = relays.call(poison(kind))
    for number in range(20, 40):
        relays.call(ban(f"192.0.2.{number}"))
    first = relays.start()
    assert first.wait(30) != 0
    second = relays.start()
    relays.until(relays.empty)
    assert quarantined(relays) == [bad]
    assert len(ips(relays, 40)) == 40
    (letter,) = relays.events("deadletter", 1)
    assert letter.entry == bad
    assert reason in letter.reason or reason == "fault"
    assert second.poll() is None


def test_a_document_that_hung_the_relay_is_quarantined(
    relays: RelayProcesses, planted: Planted
) -> None:
    del planted
    bad = relays.call(poison("hang"))
    relays.call(ban("192.0.2.1"))
    first = relays.start()
    note = relays.spool.root / "state/reading"
    relays.until(lambda: note.exists() and bad in note.read_text())
    first.send_signal(signal.SIGABRT)  # as systemd's watchdog does
    first.wait()
    relays.start()
    relays.until(relays.empty)
    assert quarantined(relays) == [bad]
    assert ips(relays, 1) == ["192.0.2.1"]
    assert "CPU time" in relays.events("deadletter", 1)[0].reason


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_two_kills_of_the_relay_quarantine_no_valid_ban(
    relays: RelayProcesses, planted: Planted, number: signal.Signals
) -> None:
    planted.stop.touch()
    name = relays.call(ban("192.0.2.1", attack_uuid="slow"))
    for _ in range(2):
        planted.began.unlink(missing_ok=True)
        relay = relays.start()
        relays.until(planted.began.exists)
        relay.send_signal(number)
        # SIGTERM ends the pause in the parser: then the ban is published, too.
        relay.send_signal(signal.SIGKILL)
        relay.wait()
    planted.stop.unlink()
    assert relays.spool.scan() == [name]
    relays.start()
    relays.until(relays.empty)
    assert quarantined(relays) == []
    assert ips(relays, 1) == ["192.0.2.1"]


def test_child_of_killed_relay_ends(relays: RelayProcesses, planted: Planted) -> None:
    planted.stop.touch()
    name = relays.call(ban("192.0.2.1", attack_uuid="slow"))
    ReadingNote(relays.spool.root / "state/reading").write([name])
    relay = relays.start()
    relays.until(planted.began.exists)
    threads = Path(f"/proc/{relay.pid}/task").iterdir()
    children = [
        pid for path in threads for pid in (path / "children").read_text().split()
    ]
    (child,) = (os.pidfd_open(int(pid)) for pid in children)
    relay.kill()
    relay.wait()
    ended, _, _ = select.select([child], [], [], 10)
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(child, signal.SIGKILL)
    os.close(child)
    assert ended


def test_a_short_drain_waits_for_the_result_of_a_suspect(
    relays: RelayProcesses, planted: Planted
) -> None:
    del planted
    bad = relays.call(poison("hang"))
    relays.call(ban("192.0.2.1"))
    ReadingNote(relays.spool.root / "state/reading").write([bad])
    for _ in range(5):  # a busy machine gives little CPU time
        relays.run("drain", "--timeout", "1")
        (relays.spool.root / "state/backoff").unlink(missing_ok=True)
        if relays.empty():
            break
    assert quarantined(relays) == [bad]
    assert ips(relays, 1) == ["192.0.2.1"]


@pytest.mark.usefixtures("planted")
def test_the_drain_of_a_call_quarantines_poison(relays: RelayProcesses) -> None:
    bad = relays.call(poison("crash"))
    relays.call(ban("192.0.2.1"))
    assert relays.run("drain").returncode == -signal.SIGSEGV
    relays.succeed("drain")
    assert relays.empty()
    assert quarantined(relays) == [bad]


def test_a_spool_that_was_moved_and_restored_is_drained(relays: RelayProcesses) -> None:
    relay = relays.start()
    away = relays.spool.root.with_name("away")
    relays.spool.root.rename(away)
    relays.until(lambda: "moved away or replaced" in relays.said())
    away.rename(relays.spool.root)
    relays.call(ban("192.0.2.1"))
    relays.until(relays.empty)
    assert relay.poll() is None
    assert ips(relays, 1) == ["192.0.2.1"]


def test_a_spool_that_was_replaced_is_drained(relays: RelayProcesses) -> None:
    relays.start()
    relays.spool.root.rename(relays.spool.root.with_name("away"))
    relays.until(lambda: "moved away or replaced" in relays.said())
    relays.spool.make(os.getuid(), os.getgid())
    relays.until(lambda: "disk_error_ended" in relays.said())
    assert relays.spool.is_locked()
    relays.call(ban("192.0.2.1"))
    relays.until(relays.empty)


def test_a_refused_drain_reports_its_pause(relays: RelayProcesses) -> None:
    for _ in range(6):  # the pause doubles
        Backoff(relays.spool.root).record_failure()
    ended = relays.run("drain")
    assert ended.returncode == 75
    assert re.search(rb"next attempt in [23][0-9] s", ended.stderr)


def test_eight_documents_of_16_megabytes_need_little_time_and_memory(
    relays: RelayProcesses,
) -> None:
    names = [
        relays.call(b'{"x":[' + b"{}," * 5_000_000 + b"%d]}" % number)
        for number in range(8)
    ]
    relays.call(ban("192.0.2.1"))
    relay = relays.start()
    relays.until(relays.empty, within=60)
    status = Path(f"/proc/{relay.pid}/status").read_text()
    peak = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])
    assert peak < 200_000
    assert sorted(quarantined(relays)) == sorted(names)
    assert ips(relays, 1) == ["192.0.2.1"]
