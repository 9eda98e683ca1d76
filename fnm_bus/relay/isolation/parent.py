"""Prepare suspect entries in a child process, so that none can kill the relay.

The child returns the finished record, so the relay itself never parses a suspect. An
entry is blamed only for an end of the child that an entry can cause. A new child must
then prepare valid documents as this process does: a broken installation blames no
entry. On a busy machine a child may need minutes for its start or for its seconds of
CPU time. It continues meanwhile, and a later call receives its answer
(docs/decisions/poison-entries.md).
"""

import os
import pickle
import select
import signal
import subprocess
import sys
from contextlib import suppress
from time import monotonic
from typing import IO, Final

import msgspec

from fnm_bus.errors import InvalidNotification, InvalidRecord, PoisonEntry, SpoolError
from fnm_bus.relay.isolation.protocol import (
    LENGTH,
    LOW_MEMORY,
    MAX_CPU,
    Done,
    Failed,
    Invalid,
    Misfit,
    Ready,
    Reply,
    Task,
    Unreadable,
    frame,
)
from fnm_bus.relay.pipeline import Pipeline
from fnm_bus.relay.preparation import Preparation

_FIRST_WAIT: Final = 3.0
"""Seconds to wait for an answer, or for a start, before other entries go first."""
_NEXT_WAIT: Final = 0.1
"""Seconds of each later wait for the same answer."""
_MAX_TIME: Final = 600.0
"""Seconds after which a child is replaced, such as a stopped one."""
_RESTART_PAUSE: Final = 5.0
"""Seconds without another start after a failed one."""
_EXIT_WAIT: Final = 0.5
"""Seconds between the end of a child's output and its exit."""
_COMMAND: Final = (
    *("-P", "-c"),
    "from fnm_bus.relay.isolation.child import serve; serve()",
)
_ENVIRONMENT: Final = ("PYTHONPATH", "LD_LIBRARY_PATH")
"""The only variables that a child inherits; others may contain secrets."""
_REMEDY: Final = "after an upgrade, restart this one"
_CHUNK: Final = 1 << 20
_BLAMED_SIGNALS: Final = frozenset(
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
"""Signals that an entry can cause. All others come from outside. So does SIGKILL: the
memory limit is below the machine's, and the limit of CPU time ends by SIGXCPU."""
_OWN_FAILURES: Final = frozenset({0, 1})
"""Exit statuses of a child whose input ended, or that failed outside of an entry."""


class IsolatedPreparation:
    """Prepares suspect entries, all in one child as long as it lives.

    Args:
        pipeline: makes the records; the child gets a copy.

    No child is started before the first `prepare`.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._child: subprocess.Popen[bytes] | None = None
        self._ready: Ready | None = None
        self._task: Task | None = None
        self._waiting_since = 0.0
        self._next_start = 0.0
        self._charge: PoisonEntry | None = None
        self._unsent = bytearray()
        self._received = bytearray()

    def prepare(self, task: Task) -> Preparation:
        """Return the preparation of an entry.

        Raises:
            InvalidNotification: the document can never become an event.
            InvalidRecord: the event does not fit its schema.
            FileNotFoundError: the entry does not exist.
            PoisonEntry: reading it killed the child, or exceeded a limit.
            SpoolError: it is unreadable, or the child failed for another reason, or has
                not answered yet: call again with the same task later.
        """
        if self._task not in (None, task):
            raise SpoolError(f"{task.name}: waits until another suspect entry is read")
        wait = _NEXT_WAIT
        if self._task is None:
            self._task, self._waiting_since = task, monotonic()
            wait = _FIRST_WAIT
            if self._ready is not None:
                self._send(msgspec.msgpack.encode(task))
        if self._ready is None:
            self._finish_start(task, wait)
            self._waiting_since, wait = monotonic(), _FIRST_WAIT
            self._send(msgspec.msgpack.encode(task))
        reply = self._receive(wait)
        if reply is None:
            self._charge = self._examine_end(task)
        elif isinstance(reply, Failed):
            self._end_child()
            self._charge = PoisonEntry(f"reading it failed: {reply.text}")
        self._task = None
        if self._charge is None:
            return _result(reply)
        # The charge is raised after a new child has proved the installation.
        return self.prepare(task)

    @property
    def is_busy(self) -> bool:
        """Whether an entry waits for the child's answer, or for its start."""
        return self._task is not None

    def close_if_idle(self) -> None:
        """End the child unless an entry waits for it."""
        if not self.is_busy:
            self.close()

    def close(self) -> None:
        """End the child; the next `prepare` starts another one."""
        self._end_child()
        self._task = self._charge = None

    def _finish_start(self, task: Task, wait: float) -> None:
        """Wait until the child can read entries.

        Raises:
            PoisonEntry: the child started, so the entry had ended the previous one.
            SpoolError: the child did not start, has not started yet, or did not start a
                moment ago.
        """
        if self._child is None:
            if monotonic() < self._next_start:
                self._task = None
                raise SpoolError(f"{task.name}: no process to read it could be started")
            self._start_child()
        reply = self._receive(wait)
        if reply is None and self._may_still_answer():
            raise SpoolError(f"{task.name}: the process that reads it is starting")
        if isinstance(reply, Ready) and reply.checked == self._pipeline.check():
            self._ready = reply
        else:
            raise self._child_failure(f"did not start; {_REMEDY}")
        charge, self._charge = self._charge, None
        if charge is not None:
            self._task = None
            raise charge

    def _start_child(self) -> None:
        environment = {
            name: os.environ[name] for name in _ENVIRONMENT if name in os.environ
        }
        try:
            self._child = child = subprocess.Popen(  # noqa: S603 - our own interpreter
                [sys.executable, *_COMMAND, str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                bufsize=0,
            )
        except OSError as exc:
            problem = f"did not start: {sys.executable}: {exc}"
            raise self._child_failure(problem) from exc
        # A pipeline can be larger than a pipe, and a starting child reads nothing yet.
        os.set_blocking(_fd(child.stdin), False)
        self._waiting_since = monotonic()
        self._send(pickle.dumps(self._pipeline))

    def _child_failure(self, problem: str) -> SpoolError:
        """End the child and return the error; delay the next start if it had none."""
        if self._ready is None:
            self._next_start = monotonic() + _RESTART_PAUSE
        self.close()
        return SpoolError(f"the process that reads suspect entries {problem}")

    def _may_still_answer(self) -> bool:
        """Return whether the child lives and has time left."""
        is_alive = self._child is not None and self._child.poll() is None
        return is_alive and monotonic() - self._waiting_since <= _MAX_TIME

    def _examine_end(self, task: Task) -> PoisonEntry:
        """Return the charge against an entry after the child's end.

        Raises:
            SpoolError: the end proves nothing, or the child has not ended.
        """
        if self._may_still_answer():
            raise SpoolError(f"{task.name}: still being read")
        is_memory_low = self._ready is not None and self._ready.is_memory_low
        status = self._end_child()
        self._task = None  # another entry may be read first
        return _charge(task, status, is_memory_low=is_memory_low)

    def _send(self, message: bytes) -> None:
        self._unsent += frame(message)

    def _receive(self, wait: float) -> Reply | None:
        """Return the child's next reply; None if it ended or needs more time.

        Raises:
            SpoolError: the reply is not one of this version.
        """
        child, data, end = self._child, self._received, monotonic() + wait
        if child is None:
            return None
        stdin, stdout = _fd(child.stdin), _fd(child.stdout)
        while True:
            size = LENGTH.size
            if len(data) >= size:
                size += int(LENGTH.unpack_from(data)[0])
                if len(data) == size:
                    break
            sending = [stdin] if self._unsent else []
            left = max(end - monotonic(), 0.0)
            readable, writable, _ = select.select([stdout], sending, [], left)
            if not readable and not writable:
                return None
            if writable:
                self._write(stdin)
            if readable:
                chunk = os.read(stdout, min(size - len(data), _CHUNK))
                if not chunk:
                    # Its last file is closed just before it can be waited for.
                    with suppress(subprocess.TimeoutExpired):
                        child.wait(_EXIT_WAIT)
                    return None
                data += chunk
        try:
            reply: Reply = msgspec.msgpack.decode(data[LENGTH.size :], type=Reply)
        except msgspec.MsgspecError as exc:
            raise self._child_failure(f"answers with {exc}; {_REMEDY}") from exc
        data.clear()
        return reply

    def _write(self, stdin: int) -> None:
        try:
            del self._unsent[: os.write(stdin, self._unsent)]
        except BrokenPipeError:  # the end of the child's output follows
            self._unsent.clear()

    def _end_child(self) -> int | None:
        """End the child; return its exit status if it had ended before."""
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


def _result(reply: Reply | None) -> Preparation:
    """Return the preparation in a reply, or raise its error."""
    match reply:
        case Done(preparation=preparation):
            return preparation
        case Invalid(field=field, expected=expected, actual=actual):
            raise InvalidNotification(field, expected, actual)
        case Misfit(text=text):
            raise InvalidRecord(text)
        case Unreadable(text=text, missing=missing):
            raise FileNotFoundError(text) if missing else SpoolError(text)
    raise SpoolError(f"the process that reads suspect entries answers {reply!r:.80}")


def _charge(task: Task, status: int | None, *, is_memory_low: bool) -> PoisonEntry:
    """Return the charge against the entry that a child read when it ended.

    Args:
        task: the entry.
        status: of the child; None if it did not end by itself.
        is_memory_low: whether it had less memory than a valid entry may need.

    Raises:
        SpoolError: the status proves nothing.
    """
    if status is None:
        raise SpoolError(
            f"{task.name}: no answer within {_MAX_TIME:.0f} s from the process that"
            " reads it"
        )
    if status in _OWN_FAILURES:
        raise SpoolError(
            f"{task.name}: the process that reads it failed (exit status {status}):"
            " its error is on stderr"
        )
    if status > 0:
        end = f"exit status {status}"
    elif -status not in _BLAMED_SIGNALS:
        raise SpoolError(
            f"{task.name}: the process that reads it was killed from outside"
            f" ({_signal_name(-status)})"
        )
    elif is_memory_low and -status != signal.SIGXCPU:
        raise SpoolError(
            f"{task.name}: the process that reads it ended ({_signal_name(-status)}),"
            f" and {LOW_MEMORY}"
        )
    elif -status == signal.SIGXCPU:
        return PoisonEntry(f"reading it takes more than {MAX_CPU} s of CPU time")
    else:
        end = _signal_name(-status)
    return PoisonEntry(f"reading it kills the process that does it: {end}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"


def _fd(pipe: IO[bytes] | None) -> int:
    return -1 if pipe is None else pipe.fileno()
