"""Trial: a suspect entry is read in a child process with limits of memory and time.

The child returns the finished record, so nothing of a suspect is parsed in the process
that drains. The child blames an entry only for its own end: one that was killed from
outside, or did not start, proves nothing, and the entry is tried again later. On a
busy machine the child may need minutes for its seconds of CPU time: it goes on
meanwhile, and is asked again (docs/decisions/poison-entries.md).
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

from fnm_bus.errors import InvalidNotification, InvalidRecord, PoisonEntry, SpoolError
from fnm_bus.relay.pipeline import Pipeline
from fnm_bus.relay.preparation import Preparation, prepare
from fnm_bus.spool import entry

MAX_MEMORY: Final = 160 * 1024 * 1024
"""Bytes of address space that one child may add to those of its start. The most that a
valid document needs is about half of it."""
MAX_CPU: Final = 5
"""Seconds of CPU time for one entry; the slowest valid document takes under one."""
_STARTING: Final = 15.0
"""Seconds to wait for the start of a child."""
_PATIENCE: Final = 3.0
"""Seconds to wait for an answer before other entries go first."""
_AGAIN: Final = 0.1
"""Seconds to wait each time that the answer is asked for again."""
_LONGEST: Final = 600.0
"""Seconds after which a child is replaced, such as one that somebody stopped."""
_LAST: Final = 0.5
"""Seconds that a child gets to end by itself."""
_COMMAND: Final = ("-P", "-c", "from fnm_bus.relay.trial import serve; serve()")
_ENVIRONMENT: Final = ("PYTHONPATH", "LD_LIBRARY_PATH")
"""All that a child inherits of the environment, which may hold secrets."""
_LENGTH: Final = struct.Struct(">I")
_CHUNK: Final = 1 << 20
_OUTSIDE: Final = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT})
"""Signals that an entry does not cause: the memory limit is below the machine's."""


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
    """The child has started: from here on its end is its entry's fault."""


class _Invalid(msgspec.Struct, tag=True):
    field: str
    wanted: str
    got: str


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
        self._running: Task | None = None
        self._since = 0.0
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
        child = self._child or self._start()
        if self._running is None:
            self._running, self._since = task, monotonic()
            _send(child, msgspec.msgpack.encode(task))
            patience = _PATIENCE
        elif self._running == task:
            patience = _AGAIN
        else:
            raise SpoolError(f"{task.name}: waits until {self._running.name} is read")
        reply = self._receive(child, monotonic() + patience)
        if reply is None and child.poll() is None and not self._is_overdue():
            raise SpoolError(f"{task.name}: still being read")
        self._running = None
        match reply:
            case _Done(preparation=preparation):
                return preparation
            case _Invalid(field=field, wanted=wanted, got=got):
                raise InvalidNotification(field, wanted, got)
            case _Misfit(text=text):
                raise InvalidRecord(text)
            case _Unreadable(text=text, missing=missing):
                raise FileNotFoundError(text) if missing else SpoolError(text)
            case _Broken(text=text):
                raise PoisonEntry(f"reading it failed: {text}")
            case _:
                raise self._verdict(task, self._end(child))

    @property
    def busy(self) -> bool:
        """Whether the child is still reading an entry."""
        return self._running is not None

    def rest(self) -> None:
        """End the child unless it is still reading an entry."""
        if not self.busy:
            self.close()

    def close(self) -> None:
        """End the child; the next `prepare` starts another one."""
        if self._child is not None:
            self._end(self._child)

    def _is_overdue(self) -> bool:
        return monotonic() - self._since > _LONGEST

    def _start(self) -> subprocess.Popen[bytes]:
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
            raise SpoolError(f"cannot start {sys.executable}: {exc}") from exc
        _send(child, pickle.dumps(self._pipeline))
        if not isinstance(self._receive(child, monotonic() + _STARTING), _Ready):
            self._end(child)
            raise SpoolError(
                "the process that reads suspect entries did not start; after an"
                " upgrade, restart this one"
            )
        return child

    def _receive(self, child: subprocess.Popen[bytes], end: float) -> _Reply | None:
        """Return the child's next reply, or None when it ended or needs longer."""
        out, data = child.stdout, self._received
        while out is not None:
            size = _LENGTH.size
            if len(data) >= size:
                size += int(_LENGTH.unpack_from(data)[0])
                if len(data) == size:
                    break
            left = max(end - monotonic(), 0.0)
            if not select.select([out], [], [], left)[0]:
                return None
            chunk = os.read(out.fileno(), min(size - len(data), _CHUNK))
            if not chunk:
                # Its last file is closed just before it can be waited for.
                with suppress(subprocess.TimeoutExpired):
                    child.wait(_LAST)
                return None
            data += chunk
        reply: _Reply = msgspec.msgpack.decode(data[_LENGTH.size :], type=_Reply)
        data.clear()
        return reply

    @staticmethod
    def _verdict(task: Task, status: int | None) -> PoisonEntry | SpoolError:
        """Return what an answer that did not come proves."""
        if status is None:
            return SpoolError(
                f"{task.name}: no answer within {_LONGEST:.0f} s from the process"
                " that reads it"
            )
        if -status in _OUTSIDE:
            return SpoolError(
                f"{task.name}: the process that reads it was killed from outside"
                f" ({signal.Signals(-status).name})"
            )
        if -status == signal.SIGXCPU:
            return PoisonEntry(f"reading it takes more than {MAX_CPU} s of CPU time")
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return PoisonEntry(f"reading it kills the process that does it: {how}")

    def _end(self, child: subprocess.Popen[bytes]) -> int | None:
        """Reap the child; return its status, or None if it had to be killed."""
        self._child = self._running = None
        self._received.clear()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with suppress(OSError):  # the child may have closed its end first
                    pipe.close()
        try:
            return child.wait(_LAST)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            return None


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
    _limit()
    _reply(replies, _Ready())
    while frame := _frame(tasks):
        _allow_cpu()
        _reply(replies, _answer(pipeline, msgspec.msgpack.decode(frame, type=Task)))


def _answer(pipeline: Pipeline, task: Task) -> _Reply:
    try:
        return _Done(
            prepare(
                pipeline,
                entry.read(task.directory, task.name),
                task.sequence,
                without_samples=task.without_samples,
            )
        )
    except InvalidNotification as exc:
        return _Invalid(exc.field, exc.wanted, exc.got)
    except InvalidRecord as exc:
        return _Misfit(str(exc))
    except (FileNotFoundError, SpoolError) as exc:
        return _Unreadable(str(exc), missing=isinstance(exc, FileNotFoundError))
    except Exception as exc:  # noqa: BLE001 - any of them would end a drain
        if isinstance(exc, MemoryError):
            return _Broken(f"more than {MAX_MEMORY} bytes of memory")
        return _Broken(f"{type(exc).__name__}: {exc}"[:500])


def _limit() -> None:
    """Limit the memory; when it runs short all the same, this process goes first."""
    with suppress(OSError):  # /proc may be hidden
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    except OSError:
        pages = MAX_MEMORY // resource.getpagesize()
    most = pages * resource.getpagesize() + MAX_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _allow_cpu() -> None:
    """Give this process MAX_CPU seconds from now on; the kernel counts whole ones."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    until = int(usage.ru_utime + usage.ru_stime) + 1 + MAX_CPU
    _soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (until, hard))


def _frame(stream: IO[bytes]) -> bytes:
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return b""
    return stream.read(_LENGTH.unpack(head)[0])


def _send(child: subprocess.Popen[bytes], data: bytes) -> None:
    # A child that is gone is noticed when it is read from.
    with suppress(BrokenPipeError):
        if child.stdin is not None:
            _write(child.stdin.fileno(), _LENGTH.pack(len(data)) + data)


def _reply(out: int, reply: _Reply) -> None:
    body = msgspec.msgpack.encode(reply)
    _write(out, _LENGTH.pack(len(body)) + body)


def _write(out: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(out, rest) :]
