"""The child process that reads suspect entries, with limits of memory and CPU time."""

import ctypes
import os
import pickle
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

import msgspec

from fnm_bus.errors import FnmBusError, InvalidNotification, InvalidRecord, SpoolError
from fnm_bus.relay.isolation.protocol import (
    LENGTH,
    LOW_MEMORY,
    MAX_CPU,
    MAX_MEMORY,
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
from fnm_bus.relay.preparation import prepare
from fnm_bus.spool import entry

_PR_SET_PDEATHSIG: Final = 1
"""From <linux/prctl.h>."""


def serve() -> None:
    """Answer tasks until stdin ends, or the parent dies."""
    _end_with_parent()
    for number in (signal.SIGTERM, signal.SIGINT):
        # A service manager sends them to all processes of a service. This process ends
        # after its parent, when the pipe is closed.
        signal.signal(number, signal.SIG_IGN)
    tasks = sys.stdin.buffer
    replies = os.dup(1)
    os.dup2(2, 1)
    pipeline: Pipeline = pickle.loads(_read_message(tasks))  # noqa: S301 - from our parent
    checked = pipeline.check()
    is_memory_low = _limit_memory()
    _write_message(replies, msgspec.msgpack.encode(Ready(checked, is_memory_low)))
    while message := _read_message(tasks):
        _limit_cpu_time()
        task = msgspec.msgpack.decode(message, type=Task)
        _write_message(replies, _answer(pipeline, task, is_memory_low=is_memory_low))


def _end_with_parent() -> None:
    """Let the kernel kill this process if its parent dies, even while an entry hangs.

    The parent's process id is the first argument.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):  # the parent died before the call
        sys.exit()


def _answer(pipeline: Pipeline, task: Task, *, is_memory_low: bool) -> bytes:
    """Return the encoded reply."""
    reply: Reply
    try:
        suspect = entry.read_entry(task.directory, task.name)
    except (FileNotFoundError, SpoolError) as exc:
        reply = Unreadable(str(exc), missing=isinstance(exc, FileNotFoundError))
        return msgspec.msgpack.encode(reply)
    try:
        preparation = prepare(
            pipeline, suspect, task.sequence, without_samples=task.without_samples
        )
        return msgspec.msgpack.encode(Done(preparation))
    except InvalidNotification as exc:
        reply = Invalid(exc.field, exc.expected, exc.actual)
    except InvalidRecord as exc:
        reply = Misfit(str(exc))
    except (FnmBusError, ImportError, OSError) as exc:
        # Errors of the installation, which no document causes.
        text = f"{task.name}: {type(exc).__name__}: {exc}"[:500]
        reply = Unreadable(text, missing=False)
    except MemoryError:
        reply = (
            Unreadable(f"{task.name}: {LOW_MEMORY}", missing=False)
            if is_memory_low
            else Failed(f"more than {MAX_MEMORY} bytes of memory")
        )
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - any would end a drain
        reply = Failed(f"{type(exc).__name__}: {exc}"[:500])
    return msgspec.msgpack.encode(reply)


def _limit_memory() -> bool:
    """Limit the memory, and let the kernel kill this process first if it runs short.

    Returns:
        Whether the hard limit of this process allows less than MAX_MEMORY.
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
    limit = _at_most(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return limit < wanted


def _limit_cpu_time() -> None:
    """Allow MAX_CPU more seconds of CPU time; the kernel counts whole seconds.

    If the hard limit of the process comes first, the kernel sends SIGKILL.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    until = int(usage.ru_utime + usage.ru_stime) + 1 + MAX_CPU
    _soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (_at_most(until, hard), hard))


def _at_most(wanted: int, hard: int) -> int:
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def _read_message(stream: IO[bytes]) -> bytes:
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return b""
    return stream.read(LENGTH.unpack(head)[0])


def _write_message(fd: int, message: bytes) -> None:
    rest = memoryview(frame(message))
    while rest:
        rest = rest[os.write(fd, rest) :]
