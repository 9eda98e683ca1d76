"""Suspect entries are prepared in a child; only an entry that kills it is poison."""

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
from fnm_bus.kafka.addressing import Topics
from fnm_bus.relay.isolation import parent
from fnm_bus.relay.isolation.parent import IsolatedPreparation
from fnm_bus.relay.isolation.protocol import Task
from fnm_bus.relay.pipeline import Pipeline
from fnm_bus.relay.preparation import Preparation, prepare
from fnm_bus.spool.entry import read_entry

BAN = b'{"action":"ban","ip":"192.0.2.1"}'
PIPELINE = Pipeline("fra1", Topics(), Codec())


class SuspectEntries:
    """A directory of entries, and a child whose parser has planted faults."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.isolated = IsolatedPreparation(PIPELINE)
        self._count = 0

    def store(self, document: bytes, *arguments: str) -> Task:
        self._count += 1
        name = f"{'a' * 32}-{self._count:012d}-0000100-0000000a"
        (self.root / name).write_bytes(python_hook.encode_entry(arguments, document))
        return Task(str(self.root), name, 7, without_samples=False)

    def prepare(self, document: bytes, *arguments: str) -> Preparation:
        """Store an entry, and prepare it in the child."""
        return self.isolated.prepare(self.store(document, *arguments))

    def answer(self, entry: Task | bytes) -> Preparation:
        """Repeat the call until an answer: a busy machine gives little CPU time."""
        task = self.store(entry) if isinstance(entry, bytes) else entry
        while True:
            try:
                return self.isolated.prepare(task)
            except SpoolError as exc:
                if not re.search("still being read|is starting", str(exc)):
                    raise


@pytest.fixture
def entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SuspectEntries]:
    (tmp_path / "planted").mkdir()
    monkeypatch.setenv("PYTHONPATH", Planted(tmp_path / "planted").path)
    # On a busy machine the start of a child takes longer than the relay waits for it.
    monkeypatch.setattr(parent, "_FIRST_WAIT", 60.0)
    entries = SuspectEntries(tmp_path)
    yield entries
    entries.isolated.close()


def test_a_valid_entry_gives_the_same_record_in_a_child(
    entries: SuspectEntries,
) -> None:
    task = entries.store(BAN, "ban", "192.0.2.1")
    entry = read_entry(task.directory, task.name)
    expected = prepare(PIPELINE, entry, 7, without_samples=False)
    assert entries.isolated.prepare(task) == expected


def test_a_child_prepares_many_entries(entries: SuspectEntries) -> None:
    entries.prepare(BAN)
    child = entries.isolated._child
    entries.prepare(BAN)
    assert entries.isolated._child is child


def test_an_entry_of_hook_check_has_no_record(entries: SuspectEntries) -> None:
    assert entries.prepare(b"", python_hook.CHECK_ARGUMENT).record is None


def test_an_invalid_document_has_its_own_reason(entries: SuspectEntries) -> None:
    with pytest.raises(InvalidNotification, match="/ip: wanted"):
        entries.prepare(b'{"action":"ban","ip":7}')


def test_a_removed_entry_raises_file_not_found(entries: SuspectEntries) -> None:
    task = entries.store(BAN)
    (entries.root / task.name).unlink()
    with pytest.raises(FileNotFoundError):
        entries.isolated.prepare(task)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("crash", "SIGSEGV"),
        ("exit", "exit status 3"),
        ("fault", "RuntimeError: nobody thought of this"),
        ("memory", "bytes of memory"),
    ],
)
def test_an_entry_that_kills_the_child_is_poison(
    entries: SuspectEntries, kind: str, reason: str
) -> None:
    with pytest.raises(PoisonEntry, match=reason):
        entries.prepare(poison(kind))
    assert entries.prepare(BAN).record is not None


def test_an_entry_that_takes_too_much_cpu_time_is_poison(
    entries: SuspectEntries,
) -> None:
    with pytest.raises(PoisonEntry, match="CPU time"):
        entries.answer(poison("hang"))


def test_a_child_killed_from_outside_blames_no_entry(entries: SuspectEntries) -> None:
    with pytest.raises(SpoolError, match="from outside"):
        entries.prepare(b'{"action":"ban","x":"killed outside"}')


@pytest.fixture
def stopped(entries: SuspectEntries, monkeypatch: pytest.MonkeyPatch) -> Task:
    """An entry whose child was stopped before it read the entry."""
    entries.prepare(BAN)
    assert entries.isolated._child is not None
    os.kill(entries.isolated._child.pid, signal.SIGSTOP)
    monkeypatch.setattr(parent, "_FIRST_WAIT", 0.1)
    task = entries.store(BAN)
    with pytest.raises(SpoolError, match="still being read"):
        entries.isolated.prepare(task)
    return task


def test_a_slow_child_answers_a_later_call(
    entries: SuspectEntries, stopped: Task
) -> None:
    entries.isolated.close_if_idle()
    assert entries.isolated._child is not None
    os.kill(entries.isolated._child.pid, signal.SIGCONT)
    assert entries.answer(stopped).record is not None


def test_another_entry_waits_for_a_slow_entry(
    entries: SuspectEntries, stopped: Task
) -> None:
    del stopped
    with pytest.raises(SpoolError, match="waits until"):
        entries.prepare(BAN)


def test_a_child_that_never_answers_is_replaced(
    entries: SuspectEntries, stopped: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(parent, "_MAX_TIME", 0.0)
        with pytest.raises(SpoolError, match="no answer within"):
            entries.isolated.prepare(stopped)
    assert entries.answer(stopped).record is not None


def test_a_child_that_cannot_start_blames_no_entry(entries: SuspectEntries) -> None:
    (entries.root / "planted/sitecustomize.py").write_text("import os; os._exit(1)")
    with pytest.raises(SpoolError, match="did not start"):
        entries.prepare(BAN)


@pytest.fixture
def installation(entries: SuspectEntries, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, from which the next children are started."""
    root = Path(parent.__file__).parents[3]
    copy = entries.root / "installed"
    for name in ("fnm_bus", "schemas"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(root / name, copy / name, ignore=ignored)
    places = (str(entries.root / "planted"), str(copy))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    return copy


def break_file(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 1000 if how == "half" else 0])


@pytest.mark.parametrize("how", ["half", "empty", "missing"])
def test_a_broken_schema_file_blames_no_entry(
    entries: SuspectEntries, installation: Path, how: str
) -> None:
    break_file(installation / "schemas/avro/fastnetmon.HostEvent.avsc", how)
    with pytest.raises(SpoolError, match="did not start"):
        entries.prepare(BAN)


def test_an_installation_broken_during_a_run_blames_no_entry(
    entries: SuspectEntries, installation: Path
) -> None:
    entries.prepare(BAN)
    break_file(installation / "schemas/avro/fastnetmon.HostEvent.avsc", "half")
    with pytest.raises(SpoolError, match="did not start"):
        entries.prepare(poison("crash"))


def test_a_child_of_another_version_blames_no_entry(
    entries: SuspectEntries, installation: Path
) -> None:
    (installation / "fnm_bus/__init__.py").write_text('__version__ = "9"\n')
    with pytest.raises(SpoolError, match="restart this one"):
        entries.prepare(poison("crash"))


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
def test_an_error_of_the_installation_blames_no_entry(
    entries: SuspectEntries, error: str
) -> None:
    plant(entries, f"raise {error}")
    with pytest.raises(SpoolError, match=error.partition("(")[0]):
        entries.prepare(b'{"action":"ban","x":"planted"}')


def plant(entries: SuspectEntries, statement: str) -> None:
    """Run *statement* in the parser of the next child, for a document so marked."""
    with (entries.root / "planted/sitecustomize.py").open("a") as file:
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
def test_a_signal_from_outside_blames_no_entry(
    entries: SuspectEntries, number: str
) -> None:
    plant(
        entries,
        f"signal.signal(signal.SIG{number}, signal.SIG_DFL)"
        f" if {number!r} != 'KILL' else None;"
        f" os.kill(os.getpid(), signal.SIG{number}); signal.pause()",
    )
    with pytest.raises(SpoolError, match="from outside"):
        entries.prepare(b'{"action":"ban","x":"planted"}')


@pytest.mark.parametrize("number", ["BUS", "ILL", "FPE", "ABRT", "SYS"])
def test_a_signal_that_a_fault_causes_blames_the_entry(
    entries: SuspectEntries, number: str
) -> None:
    plant(entries, f"os.kill(os.getpid(), signal.SIG{number})")
    with pytest.raises(PoisonEntry, match=f"SIG{number}"):
        entries.prepare(b'{"action":"ban","x":"planted"}')


def test_a_child_that_exits_after_the_timeout_blames_no_entry(
    entries: SuspectEntries, stopped: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A closed pipe ends a continued child, as an entry could."""
    assert entries.isolated._child is not None
    child, pipe = entries.isolated._child, entries.isolated._child.stdout
    assert pipe is not None
    close = pipe.close

    def close_and_continue() -> None:
        close()
        if child.returncode is None:
            child.send_signal(signal.SIGCONT)

    monkeypatch.setattr(pipe, "close", close_and_continue)
    monkeypatch.setattr(parent, "_MAX_TIME", 0.0)
    with pytest.raises(SpoolError, match="no answer within"):
        entries.isolated.prepare(stopped)


def start_by(
    entries: SuspectEntries, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Let a shell run *command* before it becomes the next child."""
    python = entries.root / "python"
    python.write_text(f'#!/bin/sh\n{command}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))


@pytest.fixture
def limited(entries: SuspectEntries, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child with a low hard limit of memory."""
    start_by(entries, monkeypatch, "ulimit -v 150000")


@pytest.mark.usefixtures("limited")
def test_a_low_limit_of_memory_lets_a_child_start(entries: SuspectEntries) -> None:
    assert entries.answer(BAN).record is not None


@pytest.mark.usefixtures("limited")
def test_a_low_limit_of_memory_blames_no_entry(entries: SuspectEntries) -> None:
    with pytest.raises(SpoolError, match="ulimit -v"):
        entries.answer(poison("memory"))


def test_a_low_limit_of_cpu_time_blames_no_entry(
    entries: SuspectEntries, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_by(entries, monkeypatch, "ulimit -t 2")
    with pytest.raises(SpoolError, match="from outside"):
        entries.answer(poison("hang"))


def test_a_garbled_answer_blames_no_entry(entries: SuspectEntries) -> None:
    plant(entries, "os.write(3, b'\\0\\0\\0\\1x'); signal.pause()")
    with pytest.raises(SpoolError, match="answers with"):
        entries.prepare(b'{"action":"ban","x":"planted"}')
    assert entries.answer(BAN).record is not None


@pytest.fixture
def slow_start(entries: SuspectEntries, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let a child start when this file exists."""
    go = entries.root / "go"
    start_by(entries, monkeypatch, f"while [ ! -e {go} ]; do sleep 0.05; done")
    monkeypatch.setattr(parent, "_FIRST_WAIT", 0.1)
    return go


def test_a_child_that_starts_slowly_is_kept(
    entries: SuspectEntries, slow_start: Path
) -> None:
    task = entries.store(BAN)
    with pytest.raises(SpoolError, match="is starting"):
        entries.isolated.prepare(task)
    child = entries.isolated._child
    entries.isolated.close_if_idle()
    slow_start.touch()
    assert entries.answer(task).record is not None
    assert entries.isolated._child is child


def test_an_entry_waits_while_a_child_starts_for_another(
    entries: SuspectEntries, slow_start: Path
) -> None:
    del slow_start
    with pytest.raises(SpoolError, match="is starting"):
        entries.prepare(BAN)
    with pytest.raises(SpoolError, match="waits until"):
        entries.prepare(BAN)


def test_a_slow_child_receives_a_pipeline_larger_than_a_pipe(
    entries: SuspectEntries, slow_start: Path
) -> None:
    topics = Topics()
    numbers = dict(enumerate(topics.of_framed().items(), 1))
    pins = SchemaIds(
        "x" * 10**6,
        {f"{topic}-value": number for number, (topic, _) in numbers.items()},
        {},
        {number: schema.text(name) for number, (_, name) in numbers.items()},
    )
    entries.isolated = IsolatedPreparation(Pipeline("fra1", topics, Codec(pins)))
    task = entries.store(BAN)
    with pytest.raises(SpoolError, match="is starting"):
        entries.isolated.prepare(task)
    slow_start.touch()
    assert entries.answer(task).record is not None


def test_a_failed_start_delays_the_next_start(entries: SuspectEntries) -> None:
    (entries.root / "planted/sitecustomize.py").write_text("import os; os._exit(1)")
    with pytest.raises(SpoolError, match="did not start"):
        entries.prepare(BAN)
    with pytest.raises(SpoolError, match="no process to read it"):
        entries.prepare(BAN)
    assert not entries.isolated.is_busy


def test_the_end_of_a_service_does_not_kill_the_child(entries: SuspectEntries) -> None:
    entries.prepare(BAN)
    child = entries.isolated._child
    assert child is not None
    child.send_signal(signal.SIGTERM)
    assert entries.prepare(BAN).record is not None
    assert entries.isolated._child is child


def test_the_child_inherits_no_secret(
    entries: SuspectEntries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FNM_BUS_KAFKA__PASSWORD", "secret")
    entries.prepare(BAN)
    assert entries.isolated._child is not None
    environment = Path(f"/proc/{entries.isolated._child.pid}/environ").read_bytes()
    assert b"secret" not in environment
