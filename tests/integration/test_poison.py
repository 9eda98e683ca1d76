"""One bad thing never stops the relay: poison entries, deaths, a spool that goes."""

import os
import re
import signal
from pathlib import Path

import pytest
from support.relay_processes import RelayProcesses, ban
from support.planted import Planted, poison

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


def quarantined(plant: RelayProcesses) -> list[str]:
    return list(Quarantine(plant.spool.root, 1_000, 10**9).list())


def ips(plant: RelayProcesses, least: int) -> list[str]:
    return sorted({event.ip for event in plant.events("host", least)})


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize(
    ("kind", "reason"), [("crash", "SIGSEGV"), ("memory", "memory"), ("fault", "fault")]
)
def test_an_entry_that_kills_the_relay_is_set_aside_by_the_next_one(
    plant: RelayProcesses, kind: str, reason: str
) -> None:
    for number in range(20):
        plant.call(ban(f"192.0.2.{number}"))
    bad = plant.call(poison(kind))
    for number in range(20, 40):
        plant.call(ban(f"192.0.2.{number}"))
    first = plant.start()
    assert first.wait(30) != 0
    second = plant.start()
    plant.until(plant.empty)
    assert quarantined(plant) == [bad]
    assert len(ips(plant, 40)) == 40
    (letter,) = plant.events("deadletter", 1)
    assert letter.entry == bad
    assert reason in letter.reason or reason == "fault"
    assert second.poll() is None


def test_a_document_that_never_ends_is_set_aside_after_the_watchdog(
    plant: RelayProcesses, planted: Planted
) -> None:
    del planted
    bad = plant.call(poison("hang"))
    plant.call(ban("192.0.2.1"))
    first = plant.start()
    note = plant.spool.root / "state/reading"
    plant.until(lambda: note.exists() and bad in note.read_text())
    first.send_signal(signal.SIGABRT)  # as systemd's watchdog does
    first.wait()
    plant.start()
    plant.until(plant.empty)
    assert quarantined(plant) == [bad]
    assert ips(plant, 1) == ["192.0.2.1"]
    assert "CPU time" in plant.events("deadletter", 1)[0].reason


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_two_kills_in_a_deployment_set_no_good_ban_aside(
    plant: RelayProcesses, planted: Planted, number: signal.Signals
) -> None:
    planted.stop.touch()
    name = plant.call(ban("192.0.2.1", attack_uuid="slow"))
    for _ in range(2):
        planted.began.unlink(missing_ok=True)
        relay = plant.start()
        plant.until(planted.began.exists)
        relay.send_signal(number)
        # SIGTERM ends the pause in the parser: then the ban is published, too.
        relay.send_signal(signal.SIGKILL)
        relay.wait()
    planted.stop.unlink()
    assert plant.spool.scan() == [name]
    plant.start()
    plant.until(plant.empty)
    assert quarantined(plant) == []
    assert ips(plant, 1) == ["192.0.2.1"]


def test_a_short_drain_waits_for_the_verdict_on_a_suspect(
    plant: RelayProcesses, planted: Planted
) -> None:
    del planted
    bad = plant.call(poison("hang"))
    plant.call(ban("192.0.2.1"))
    ReadingNote(plant.spool.root / "state/reading").write([bad])
    for _ in range(5):  # a busy machine gives little CPU time
        plant.run("relay", "--once", "--deadline", "1")
        (plant.spool.root / "state/backoff").unlink(missing_ok=True)
        if plant.empty():
            break
    assert quarantined(plant) == [bad]
    assert ips(plant, 1) == ["192.0.2.1"]


@pytest.mark.usefixtures("planted")
def test_a_drain_of_one_call_sets_poison_aside_as_well(plant: RelayProcesses) -> None:
    bad = plant.call(poison("crash"))
    plant.call(ban("192.0.2.1"))
    assert plant.run("relay", "--once").returncode == -signal.SIGSEGV
    assert plant.run("relay", "--once").returncode == 0
    assert plant.empty()
    assert quarantined(plant) == [bad]


def test_a_spool_that_is_moved_away_and_back_is_drained_again(
    plant: RelayProcesses,
) -> None:
    relay = plant.start()
    away = plant.spool.root.with_name("away")
    plant.spool.root.rename(away)
    plant.until(lambda: "moved away or replaced" in plant.said())
    away.rename(plant.spool.root)
    plant.call(ban("192.0.2.1"))
    plant.until(plant.empty)
    assert relay.poll() is None
    assert ips(plant, 1) == ["192.0.2.1"]


def test_a_spool_that_is_made_again_is_drained_by_one_relay(
    plant: RelayProcesses,
) -> None:
    plant.start()
    plant.spool.root.rename(plant.spool.root.with_name("away"))
    plant.until(lambda: "moved away or replaced" in plant.said())
    plant.spool.make(os.getuid(), os.getgid())
    plant.until(lambda: "works again" in plant.said())
    assert plant.spool.locked()
    plant.call(ban("192.0.2.1"))
    plant.until(plant.empty)


def test_a_refused_drain_says_for_how_long(plant: RelayProcesses) -> None:
    for _ in range(6):  # the pause doubles
        Backoff(plant.spool.root).failed()
    ended = plant.run("relay", "--once")
    assert ended.returncode == 75
    assert re.search(rb"next attempt in [23][0-9] s", ended.stderr)


def test_eight_documents_of_16_megabytes_cost_neither_time_nor_memory(
    plant: RelayProcesses,
) -> None:
    names = [
        plant.call(b'{"x":[' + b"{}," * 5_000_000 + b"%d]}" % number)
        for number in range(8)
    ]
    plant.call(ban("192.0.2.1"))
    relay = plant.start()
    plant.until(plant.empty, within=60)
    status = Path(f"/proc/{relay.pid}/status").read_text()
    peak = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])
    assert peak < 200_000
    assert sorted(quarantined(plant)) == sorted(names)
    assert ips(plant, 1) == ["192.0.2.1"]
