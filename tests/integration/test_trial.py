"""A suspect entry is prepared in a child; only what kills the child is poison."""

import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.planted import Planted, poison

from fnm_bus.avro import schema
from fnm_bus.avro.codec import Codec
from fnm_bus.avro.schema_ids import SchemaIds
from fnm_bus.errors import InvalidNotification, PoisonEntry, SpoolError
from fnm_bus.hook import python_hook
from fnm_bus.kafka.route import Topics
from fnm_bus.relay import trial
from fnm_bus.relay.pipeline import Pipeline
from fnm_bus.relay.preparation import Preparation, prepare
from fnm_bus.relay.trial import Task, Trial
from fnm_bus.spool.entry import read_entry

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
        (self.root / name).write_bytes(python_hook.encode_entry(arguments, document))
        return Task(str(self.root), name, 7, without_samples=False)


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    (tmp_path / "planted").mkdir()
    monkeypatch.setenv("PYTHONPATH", Planted(tmp_path / "planted").path)
    # A busy machine starts a child slowly; tests of slowness set a short time.
    monkeypatch.setattr(trial, "_PATIENCE", 120.0)
    made = Box(tmp_path)
    yield made
    made.trial.close()


def test_a_good_entry_becomes_the_same_record_as_without_a_trial(box: Box) -> None:
    task = box.store(BAN, "ban", "192.0.2.1")
    entry = read_entry(task.directory, task.name)
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
            if not re.search("still being read|is starting", str(exc)):
                raise


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
    with monkeypatch.context() as patch:
        patch.setattr(trial, "_LONGEST", 0.0)
        with pytest.raises(SpoolError, match="no answer within"):
            box.trial.prepare(stopped)
    assert prepare_in_the_end(box, stopped).record is not None


def test_a_child_that_cannot_start_proves_nothing(box: Box) -> None:
    (box.root / "planted/sitecustomize.py").write_text("import os; os._exit(1)")
    with pytest.raises(SpoolError, match="did not start"):
        box.trial.prepare(box.store(BAN))


@pytest.fixture
def installation(box: Box, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, from which the next children are started."""
    root = Path(trial.__file__).parents[2]
    copy = box.root / "installed"
    for name in ("fnm_bus", "schemas"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(root / name, copy / name, ignore=ignored)
    places = (str(box.root / "planted"), str(copy))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    return copy


def break_file(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 1000 if how == "half" else 0])


@pytest.mark.parametrize("how", ["half", "empty", "missing"])
def test_a_broken_schema_file_blames_no_entry(
    box: Box, installation: Path, how: str
) -> None:
    break_file(installation / "schemas/avro/fastnetmon.HostEvent.avsc", how)
    with pytest.raises(SpoolError, match="did not start"):
        box.trial.prepare(box.store(BAN))


def test_an_installation_that_breaks_while_a_child_runs_blames_no_entry(
    box: Box, installation: Path
) -> None:
    box.trial.prepare(box.store(BAN))
    break_file(installation / "schemas/avro/fastnetmon.HostEvent.avsc", "half")
    with pytest.raises(SpoolError, match="did not start"):
        box.trial.prepare(box.store(poison("crash")))


def test_a_child_of_another_version_blames_no_entry(
    box: Box, installation: Path
) -> None:
    (installation / "fnm_bus/__init__.py").write_text('__version__ = "9"\n')
    with pytest.raises(SpoolError, match="restart this one"):
        box.trial.prepare(box.store(poison("crash")))


@pytest.mark.parametrize(
    "error",
    [
        "SchemaError('half')",
        "RegistryError('away')",
        "ImportError('half')",
        "FileNotFoundError(2, 'gone', 'codec.py')",
        "PermissionError(13, 'codec.py')",
    ],
)
def test_an_error_of_the_installation_blames_no_entry(box: Box, error: str) -> None:
    relays(box, f"raise {error}")
    with pytest.raises(SpoolError, match=error.partition("(")[0]):
        box.trial.prepare(box.store(b'{"action":"ban","x":"planted"}'))


def relays(box: Box, statement: str) -> None:
    """Run *statement* in the parser of the next child, for a document so marked."""
    with (box.root / "planted/sitecustomize.py").open("a") as file:
        file.write(
            f"""
from fnm_bus.errors import RegistryError, SchemaError

_marked = pipeline.parse


def _planted(document, arguments, receipt):
    if b"planted" in document:
        {statement}
    return _marked(document, arguments, receipt)


pipeline.parse = _planted
"""
        )


@pytest.mark.parametrize(
    "number", ["HUP", "INT", "QUIT", "TERM", "USR1", "ALRM", "KILL", "RTMIN"]
)
def test_a_signal_from_outside_blames_no_entry(box: Box, number: str) -> None:
    relays(
        box,
        f"signal.signal(signal.SIG{number}, signal.SIG_DFL)"
        f" if {number!r} != 'KILL' else None;"
        f" os.kill(os.getpid(), signal.SIG{number}); signal.pause()",
    )
    with pytest.raises(SpoolError, match="from outside"):
        box.trial.prepare(box.store(b'{"action":"ban","x":"planted"}'))


@pytest.mark.parametrize("number", ["BUS", "ILL", "FPE", "ABRT", "SYS"])
def test_a_signal_that_a_fault_causes_blames_the_entry(box: Box, number: str) -> None:
    relays(box, f"os.kill(os.getpid(), signal.SIG{number})")
    with pytest.raises(PoisonEntry, match=f"SIG{number}"):
        box.trial.prepare(box.store(b'{"action":"ban","x":"planted"}'))


def test_a_child_whose_pipe_is_closed_when_time_is_over_blames_no_entry(
    box: Box, stopped: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would end by itself at once, as by its entry, if it were waited for."""
    assert box.trial._child is not None
    child, pipe = box.trial._child, box.trial._child.stdout
    assert pipe is not None
    close = pipe.close

    def close_and_continue() -> None:
        close()
        if child.returncode is None:
            child.send_signal(signal.SIGCONT)

    monkeypatch.setattr(pipe, "close", close_and_continue)
    monkeypatch.setattr(trial, "_LONGEST", 0.0)
    with pytest.raises(SpoolError, match="no answer within"):
        box.trial.prepare(stopped)


def start_by(box: Box, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Let a shell run *command* before it becomes the next child."""
    python = box.root / "python"
    python.write_text(f'#!/bin/sh\n{command}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))


@pytest.fixture
def limited(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child with a low hard limit of memory."""
    start_by(box, monkeypatch, "ulimit -v 150000")


@pytest.mark.usefixtures("limited")
def test_a_low_limit_of_memory_lets_a_child_start(box: Box) -> None:
    assert prepare_in_the_end(box, box.store(BAN)).record is not None


@pytest.mark.usefixtures("limited")
def test_too_little_memory_by_a_low_limit_blames_no_entry(box: Box) -> None:
    with pytest.raises(SpoolError, match="ulimit -v"):
        prepare_in_the_end(box, box.store(poison("memory")))


def test_a_low_limit_of_cpu_time_blames_no_entry(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_by(box, monkeypatch, "ulimit -t 2")
    with pytest.raises(SpoolError, match="from outside"):
        prepare_in_the_end(box, box.store(poison("hang")))


def test_a_garbled_answer_blames_no_entry(box: Box) -> None:
    relays(box, "os.write(3, b'\\0\\0\\0\\1x'); signal.pause()")
    with pytest.raises(SpoolError, match="answers with"):
        box.trial.prepare(box.store(b'{"action":"ban","x":"planted"}'))
    assert prepare_in_the_end(box, box.store(BAN)).record is not None


@pytest.fixture
def slow_start(box: Box, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let a child start when this file exists."""
    go = box.root / "go"
    start_by(box, monkeypatch, f"while [ ! -e {go} ]; do sleep 0.05; done")
    monkeypatch.setattr(trial, "_PATIENCE", 0.1)
    return go


def test_a_child_that_starts_slowly_is_kept(box: Box, slow_start: Path) -> None:
    task = box.store(BAN)
    with pytest.raises(SpoolError, match="is starting"):
        box.trial.prepare(task)
    child = box.trial._child
    box.trial.rest()
    slow_start.touch()
    assert prepare_in_the_end(box, task).record is not None
    assert box.trial._child is child


def test_while_a_child_starts_another_entry_waits_without_a_pause(
    box: Box, slow_start: Path
) -> None:
    del slow_start
    with pytest.raises(SpoolError, match="is starting"):
        box.trial.prepare(box.store(BAN))
    with pytest.raises(SpoolError, match="waits until"):
        box.trial.prepare(box.store(BAN))


def test_a_child_that_starts_slowly_takes_a_pipeline_larger_than_a_pipe(
    box: Box, slow_start: Path
) -> None:
    topics = Topics()
    numbers = dict(enumerate(topics.of_framed().items(), 1))
    pins = SchemaIds(
        "x" * 10**6,
        {f"{topic}-value": number for number, (topic, _) in numbers.items()},
        {},
        {number: schema.text(name) for number, (_, name) in numbers.items()},
    )
    box.trial = Trial(Pipeline("fra1", topics, Codec(pins)))
    task = box.store(BAN)
    with pytest.raises(SpoolError, match="is starting"):
        box.trial.prepare(task)
    slow_start.touch()
    assert prepare_in_the_end(box, task).record is not None


def test_after_a_failed_start_no_other_child_is_started_for_a_while(box: Box) -> None:
    (box.root / "planted/sitecustomize.py").write_text("import os; os._exit(1)")
    with pytest.raises(SpoolError, match="did not start"):
        box.trial.prepare(box.store(BAN))
    with pytest.raises(SpoolError, match="no process to read it"):
        box.trial.prepare(box.store(BAN))
    assert not box.trial.busy


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
