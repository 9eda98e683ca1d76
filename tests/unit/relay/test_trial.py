"""A suspect entry is prepared in a child; only what kills the child is poison."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.planted import Planted, poison

from fnm_bus.avro.codec import Codec
from fnm_bus.errors import InvalidNotification, PoisonEntry, SpoolError
from fnm_bus.hook import python_hook
from fnm_bus.kafka.route import Topics
from fnm_bus.relay import trial
from fnm_bus.relay.pipeline import Pipeline
from fnm_bus.relay.preparation import Preparation, prepare
from fnm_bus.relay.trial import Task, Trial
from fnm_bus.spool.entry import read

BAN = b'{"action":"ban","ip":"192.0.2.1"}'
PIPELINE = Pipeline("fra1", Topics(), Codec())


class Box:
    """A directory of entries, and a trial whose parser has planted faults."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trial = Trial(PIPELINE)
        self._count = 0

    def store(self, document: bytes, *arguments: str) -> Task:
        self._count += 1
        name = f"{'a' * 32}-{self._count:012d}-0000100-0000000a"
        (self.root / name).write_bytes(python_hook.pack(arguments, document))
        return Task(str(self.root), name, 7, without_samples=False)


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    (tmp_path / "planted").mkdir()
    monkeypatch.setenv("PYTHONPATH", Planted(tmp_path / "planted").path)
    made = Box(tmp_path)
    yield made
    made.trial.close()


def test_a_good_entry_becomes_the_same_record_as_without_a_trial(box: Box) -> None:
    task = box.store(BAN, "ban", "192.0.2.1")
    entry = read(task.directory, task.name)
    expected = prepare(PIPELINE, entry, 7, without_samples=False)
    assert box.trial.prepare(task) == expected


def test_one_child_prepares_many_entries(box: Box) -> None:
    box.trial.prepare(box.store(BAN))
    child = box.trial._child
    box.trial.prepare(box.store(BAN))
    assert box.trial._child is child


def test_an_entry_of_hook_check_has_no_record(box: Box) -> None:
    assert box.trial.prepare(box.store(b"", python_hook.CHECK_ARGUMENT)).record is None


def test_an_invalid_document_has_its_own_reason(box: Box) -> None:
    with pytest.raises(InvalidNotification, match="/ip: wanted"):
        box.trial.prepare(box.store(b'{"action":"ban","ip":7}'))


def test_an_entry_that_is_gone_is_reported_as_gone(box: Box) -> None:
    task = box.store(BAN)
    (box.root / task.name).unlink()
    with pytest.raises(FileNotFoundError):
        box.trial.prepare(task)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("crash", "SIGSEGV"),
        ("exit", "exit status 3"),
        ("fault", "RuntimeError: nobody thought of this"),
        ("memory", "bytes of memory"),
    ],
)
def test_what_kills_the_child_is_poison(box: Box, kind: str, reason: str) -> None:
    with pytest.raises(PoisonEntry, match=reason):
        box.trial.prepare(box.store(poison(kind)))
    assert box.trial.prepare(box.store(BAN)).record is not None


def test_what_takes_too_much_cpu_time_is_poison(box: Box) -> None:
    task = box.store(poison("hang"))
    with pytest.raises(PoisonEntry, match="CPU time"):
        prepare_in_the_end(box, task)


def prepare_in_the_end(box: Box, task: Task) -> Preparation:
    """Ask until there is an answer: a busy machine gives little CPU time."""
    while True:
        try:
            return box.trial.prepare(task)
        except SpoolError as exc:
            assert "still being read" in str(exc)  # noqa: PT017 - or it is raised


def test_a_child_killed_from_outside_proves_nothing(box: Box) -> None:
    with pytest.raises(SpoolError, match="from outside"):
        box.trial.prepare(box.store(b'{"action":"ban","x":"killed outside"}'))


@pytest.fixture
def stopped(box: Box, monkeypatch: pytest.MonkeyPatch) -> Task:
    """An entry whose child was stopped before it could read it."""
    box.trial.prepare(box.store(BAN))
    assert box.trial._child is not None
    os.kill(box.trial._child.pid, signal.SIGSTOP)
    monkeypatch.setattr(trial, "_PATIENCE", 0.1)
    task = box.store(BAN)
    with pytest.raises(SpoolError, match="still being read"):
        box.trial.prepare(task)
    return task


def test_a_slow_child_answers_when_it_is_asked_again(box: Box, stopped: Task) -> None:
    box.trial.rest()
    assert box.trial._child is not None
    os.kill(box.trial._child.pid, signal.SIGCONT)
    assert prepare_in_the_end(box, stopped).record is not None


def test_another_entry_waits_for_a_slow_one(box: Box, stopped: Task) -> None:
    del stopped
    with pytest.raises(SpoolError, match="waits until"):
        box.trial.prepare(box.store(BAN))


def test_a_child_that_never_answers_is_replaced(
    box: Box, stopped: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_LONGEST", 0.0)
    with pytest.raises(SpoolError, match="no answer within"):
        box.trial.prepare(stopped)
    assert prepare_in_the_end(box, stopped).record is not None


def test_a_child_that_cannot_start_proves_nothing(box: Box) -> None:
    (box.root / "planted/sitecustomize.py").write_text("import os; os._exit(1)")
    with pytest.raises(SpoolError, match="did not start"):
        box.trial.prepare(box.store(BAN))


def test_the_end_of_a_service_does_not_kill_the_child(box: Box) -> None:
    box.trial.prepare(box.store(BAN))
    child = box.trial._child
    assert child is not None
    child.send_signal(signal.SIGTERM)
    assert box.trial.prepare(box.store(BAN)).record is not None
    assert box.trial._child is child


def test_the_child_inherits_no_secret(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FNM_BUS_KAFKA__PASSWORD", "secret")
    box.trial.prepare(box.store(BAN))
    assert box.trial._child is not None
    environment = Path(f"/proc/{box.trial._child.pid}/environ").read_bytes()
    assert b"secret" not in environment
