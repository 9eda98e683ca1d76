"""Trial: a suspect entry is read in a child process with limits of memory and time.

The child returns the finished record, so nothing of a suspect is parsed in the process
that drains. An entry is blamed only for an end of the child that it can have caused,
and only when a fresh child then prepares valid documents as this process does: a
broken installation blames no entry. On a busy machine a child may need minutes to
start, or for its seconds of CPU time: it goes on meanwhile, and its answer is received
by a later call (docs/decisions/poison-entries.md).
"""

import os
import pickle
import resource
import select
import signal
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import IO, Final

import msgspec

from fnm_bus.errors import (
    FnmBusError,
    InvalidNotification,
    InvalidRecord,
    PoisonEntry,
    SpoolError,
)
from fnm_bus.kafka.record import Record
from fnm_bus.relay.pipeline import Pipeline
from fnm_bus.relay.preparation import Preparation, prepare
from fnm_bus.spool import entry

MAX_MEMORY: Final = 160 * 1024 * 1024
"""Bytes of address space that one child may add to those of its start. The most that a
valid document needs is about half of it."""
MAX_CPU: Final = 5
"""Seconds of CPU time for one entry; the slowest valid document takes under one."""
_PATIENCE: Final = 3.0
"""Seconds to wait for an answer, or for a start, before other entries go first."""
_AGAIN: Final = 0.1
"""Seconds to wait each time that the answer is asked for again."""
_LONGEST: Final = 600.0
"""Seconds after which a child is replaced, such as one that somebody stopped."""
_PAUSE: Final = 5.0
"""Seconds without another start after a child that did not start."""
_LAST: Final = 0.5
"""Seconds between the end of a child's output and its own."""
_COMMAND: Final = ("-P", "-c", "from fnm_bus.relay.trial import serve; serve()")
_ENVIRONMENT: Final = ("PYTHONPATH", "LD_LIBRARY_PATH")
"""All that a child inherits of the environment, which may hold secrets."""
_REMEDY: Final = "after an upgrade, restart this one"
_SHORT: Final = "the hard limit of memory (ulimit -v) is too low: raise it"
_LENGTH: Final = struct.Struct(">I")
_CHUNK: Final = 1 << 20
_BLAMED: Final = frozenset(
    {
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGILL,
        signal.SIGFPE,
        signal.SIGABRT,
        signal.SIGSYS,
        signal.SIGXCPU,
    }
)
"""Signals that an entry can cause. All others come from outside, SIGKILL as well: the
memory limit is below the machine's, and the limit of CPU time ends by SIGXCPU."""
_FAILED: Final = frozenset({0, 1})
"""Exit statuses of a child whose input ended, or whose own part failed."""


class Task(msgspec.Struct, frozen=True):
    """An entry to be prepared.

    Attributes:
        directory: of its file.
        name: of its file.
        sequence: its place among the calls of its target.
        without_samples: whether the record goes without its packet samples.
    """

    directory: str
    name: str
    sequence: int
    without_samples: bool


class _Ready(msgspec.Struct, tag=True):
    """The child has started and can read entries.

    Attributes:
        checked: what valid documents became.
        is_memory_short: whether it may use less than MAX_MEMORY: `ulimit -v` is low.
    """

    checked: tuple[Record, ...]
    is_memory_short: bool


class _Invalid(msgspec.Struct, tag=True):
    field: str
    expected: str
    actual: str


class _Misfit(msgspec.Struct, tag=True):
    text: str


class _Unreadable(msgspec.Struct, tag=True):
    text: str
    missing: bool


class _Broken(msgspec.Struct, tag=True):
    text: str


class _Done(msgspec.Struct, tag=True):
    preparation: Preparation


_Reply = _Ready | _Invalid | _Misfit | _Unreadable | _Broken | _Done


class Trial:
    """Prepares suspect entries, all in one child as long as it lives.

    Args:
        pipeline: what every entry goes through; the child gets a copy.

    Nothing is started before the first `prepare`.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._child: subprocess.Popen[bytes] | None = None
        self._ready: _Ready | None = None
        self._running: Task | None = None
        self._since = 0.0
        self._resume_at = 0.0
        self._charge: PoisonEntry | None = None
        self._unsent = bytearray()
        self._received = bytearray()

    def prepare(self, task: Task) -> Preparation:
        """Return what an entry becomes.

        Raises:
            InvalidNotification: the document can never become an event.
            InvalidRecord: the event does not fit its schema.
            FileNotFoundError: the entry is gone.
            PoisonEntry: reading it killed the child, or passed a limit.
            SpoolError: it cannot be read, or the child failed for another reason, or
                has not answered yet: call again with the same task later.
        """
        if self._running not in (None, task):
            raise SpoolError(f"{task.name}: waits until another suspect entry is read")
        patience = _AGAIN
        if self._running is None:
            self._running, self._since = task, monotonic()
            patience = _PATIENCE
            if self._ready is not None:
                self._send(msgspec.msgpack.encode(task))
        if self._ready is None:
            self._finish_start(task, patience)
            self._since, patience = monotonic(), _PATIENCE
            self._send(msgspec.msgpack.encode(task))
        reply = self._receive(patience)
        if reply is None:
            self._charge = self._judge(task)
        elif isinstance(reply, _Broken):
            self._end()
            self._charge = PoisonEntry(f"reading it failed: {reply.text}")
        self._running = None
        if self._charge is None:
            return _result(reply)
        # The verdict waits for a fresh child that can read.
        return self.prepare(task)

    @property
    def busy(self) -> bool:
        """Whether an entry waits for the child's answer, or for its start."""
        return self._running is not None

    def rest(self) -> None:
        """End the child unless an entry waits for it."""
        if not self.busy:
            self.close()

    def close(self) -> None:
        """End the child; the next `prepare` starts another one."""
        self._end()
        self._running = self._charge = None

    def _finish_start(self, task: Task, patience: float) -> None:
        """Return when the child can read entries.

        Raises:
            PoisonEntry: it can, so the entry had ended the child before it.
            SpoolError: it did not start, has not yet, or did a moment ago not.
        """
        if self._child is None:
            if monotonic() < self._resume_at:
                self._running = None
                raise SpoolError(f"{task.name}: no process to read it could be started")
            self._start()
        reply = self._receive(patience)
        if reply is None and self._is_waiting():
            raise SpoolError(f"{task.name}: the process that reads it is starting")
        if isinstance(reply, _Ready) and reply.checked == self._pipeline.check():
            self._ready = reply
        else:
            raise self._failed(f"did not start; {_REMEDY}")
        charge, self._charge = self._charge, None
        if charge is not None:
            self._running = None
            raise charge

    def _start(self) -> None:
        environment = {it: os.environ[it] for it in _ENVIRONMENT if it in os.environ}
        try:
            self._child = child = subprocess.Popen(  # noqa: S603 - our own interpreter
                [sys.executable, *_COMMAND],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                bufsize=0,
            )
        except OSError as exc:
            raise self._failed(f"did not start: {sys.executable}: {exc}") from exc
        # A child that starts slowly reads nothing yet, and more than a pipe holds.
        os.set_blocking(_fd(child.stdin), False)
        self._since = monotonic()
        self._send(pickle.dumps(self._pipeline))

    def _failed(self, problem: str) -> SpoolError:
        """End the child and return the error; if it did not start, start none now."""
        if self._ready is None:
            self._resume_at = monotonic() + _PAUSE
        self.close()
        return SpoolError(f"the process that reads suspect entries {problem}")

    def _is_waiting(self) -> bool:
        """Return whether the child lives and may take longer."""
        alive = self._child is not None and self._child.poll() is None
        return alive and monotonic() - self._since <= _LONGEST

    def _judge(self, task: Task) -> PoisonEntry:
        """Return what the child's end proves against an entry.

        Raises:
            SpoolError: nothing, or the child has not ended.
        """
        if self._is_waiting():
            raise SpoolError(f"{task.name}: still being read")
        is_memory_short = self._ready is not None and self._ready.is_memory_short
        status = self._end()
        self._running = None  # another entry may be read first
        return _charge(task, status, is_memory_short=is_memory_short)

    def _send(self, data: bytes) -> None:
        self._unsent += _LENGTH.pack(len(data)) + data

    def _receive(self, patience: float) -> _Reply | None:
        """Return the child's next reply; None when it ended or needs longer.

        Raises:
            SpoolError: the reply is not one of this version.
        """
        child, data, end = self._child, self._received, monotonic() + patience
        if child is None:
            return None
        into, out = _fd(child.stdin), _fd(child.stdout)
        while True:
            size = _LENGTH.size
            if len(data) >= size:
                size += int(_LENGTH.unpack_from(data)[0])
                if len(data) == size:
                    break
            sending = [into] if self._unsent else []
            left = max(end - monotonic(), 0.0)
            readable, writable, _ = select.select([out], sending, [], left)
            if not readable and not writable:
                return None
            if writable:
                self._write(into)
            if readable:
                chunk = os.read(out, min(size - len(data), _CHUNK))
                if not chunk:
                    # Its last file is closed just before it can be waited for.
                    with suppress(subprocess.TimeoutExpired):
                        child.wait(_LAST)
                    return None
                data += chunk
        try:
            reply: _Reply = msgspec.msgpack.decode(data[_LENGTH.size :], type=_Reply)
        except msgspec.MsgspecError as exc:
            raise self._failed(f"answers with {exc}; {_REMEDY}") from exc
        data.clear()
        return reply

    def _write(self, into: int) -> None:
        try:
            del self._unsent[: os.write(into, self._unsent)]
        except BrokenPipeError:  # the end of its output tells that a child ended
            self._unsent.clear()

    def _end(self) -> int | None:
        """End the child; return the status with which it had ended before, if any."""
        child, self._child, self._ready = self._child, None, None
        self._unsent.clear()
        self._received.clear()
        if child is None:
            return None
        status = child.poll()
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
        return status


def _result(reply: _Reply | None) -> Preparation:
    """Return the preparation in a reply, or raise the error that it holds."""
    match reply:
        case _Done(preparation=preparation):
            return preparation
        case _Invalid(field=field, expected=expected, actual=actual):
            raise InvalidNotification(field, expected, actual)
        case _Misfit(text=text):
            raise InvalidRecord(text)
        case _Unreadable(text=text, missing=missing):
            raise FileNotFoundError(text) if missing else SpoolError(text)
    raise SpoolError(f"the process that reads suspect entries answers {reply!r:.80}")


def _charge(task: Task, status: int | None, *, is_memory_short: bool) -> PoisonEntry:
    """Return what a child's end proves against the entry that it read.

    Args:
        task: the entry.
        status: of the child; None if it did not end by itself.
        is_memory_short: whether it had less memory than any valid entry may need.

    Raises:
        SpoolError: it proves nothing.
    """
    if status is None:
        raise SpoolError(
            f"{task.name}: no answer within {_LONGEST:.0f} s from the process that"
            " reads it"
        )
    if status in _FAILED:
        raise SpoolError(
            f"{task.name}: the process that reads it failed (exit status {status}):"
            " its error is on stderr"
        )
    if status > 0:
        how = f"exit status {status}"
    elif -status not in _BLAMED:
        raise SpoolError(
            f"{task.name}: the process that reads it was killed from outside"
            f" ({_signal_name(-status)})"
        )
    elif is_memory_short and -status != signal.SIGXCPU:
        raise SpoolError(
            f"{task.name}: the process that reads it ended ({_signal_name(-status)}),"
            f" and {_SHORT}"
        )
    elif -status == signal.SIGXCPU:
        return PoisonEntry(f"reading it takes more than {MAX_CPU} s of CPU time")
    else:
        how = _signal_name(-status)
    return PoisonEntry(f"reading it kills the process that does it: {how}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"


def _fd(pipe: IO[bytes] | None) -> int:
    return -1 if pipe is None else pipe.fileno()


def serve() -> None:
    """Be the child: answer one task after another until stdin ends."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # The service manager sends them to all processes of a service at once; this
        # one ends with its parent, whose pipe it reads.
        signal.signal(number, signal.SIG_IGN)
    tasks = sys.stdin.buffer
    replies = os.dup(1)
    os.dup2(2, 1)
    pipeline: Pipeline = pickle.loads(_frame(tasks))  # noqa: S301 - from our parent
    checked = pipeline.check()
    is_memory_short = _limit()
    _reply(replies, msgspec.msgpack.encode(_Ready(checked, is_memory_short)))
    while frame := _frame(tasks):
        _allow_cpu()
        task = msgspec.msgpack.decode(frame, type=Task)
        _reply(replies, _answer(pipeline, task, is_memory_short=is_memory_short))


def _answer(pipeline: Pipeline, task: Task, *, is_memory_short: bool) -> bytes:
    """Return the encoded reply."""
    reply: _Reply
    try:
        found = entry.read_entry(task.directory, task.name)
    except (FileNotFoundError, SpoolError) as exc:
        reply = _Unreadable(str(exc), missing=isinstance(exc, FileNotFoundError))
        return msgspec.msgpack.encode(reply)
    try:
        reply = _Done(
            prepare(
                pipeline, found, task.sequence, without_samples=task.without_samples
            )
        )
        return msgspec.msgpack.encode(reply)
    except InvalidNotification as exc:
        reply = _Invalid(exc.field, exc.expected, exc.actual)
    except InvalidRecord as exc:
        reply = _Misfit(str(exc))
    except (FnmBusError, ImportError, OSError) as exc:
        # Of the installation: no document causes them.
        reply = _Unreadable(
            f"{task.name}: {type(exc).__name__}: {exc}"[:500], missing=False
        )
    except MemoryError:
        reply = (
            _Unreadable(f"{task.name}: {_SHORT}", missing=False)
            if is_memory_short
            else _Broken(f"more than {MAX_MEMORY} bytes of memory")
        )
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - any of them would end a drain
        reply = _Broken(f"{type(exc).__name__}: {exc}"[:500])
    return msgspec.msgpack.encode(reply)


def _limit() -> bool:
    """Limit the memory; when it runs short all the same, this process goes first.

    Returns:
        Whether the hard limit of this process leaves less than MAX_MEMORY.
    """
    with suppress(OSError):  # /proc may be hidden
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    except OSError:
        pages = MAX_MEMORY // resource.getpagesize()
    wanted = pages * resource.getpagesize() + MAX_MEMORY
    _soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = _least(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    return most < wanted


def _allow_cpu() -> None:
    """Give this process MAX_CPU seconds from now on; the kernel counts whole ones.

    Where its hard limit comes first, the kernel ends it by SIGKILL.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    until = int(usage.ru_utime + usage.ru_stime) + 1 + MAX_CPU
    _soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (_least(until, hard), hard))


def _least(wanted: int, hard: int) -> int:
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def _frame(stream: IO[bytes]) -> bytes:
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return b""
    return stream.read(_LENGTH.unpack(head)[0])


def _reply(out: int, body: bytes) -> None:
    rest = memoryview(_LENGTH.pack(len(body)) + body)
    while rest:
        rest = rest[os.write(out, rest) :]
