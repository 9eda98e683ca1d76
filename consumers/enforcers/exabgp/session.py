"""The conversation of an API process with the ExaBGP that started it.

ExaBGP answers each command with `done` or `error`, in order. What it lists comes before
that, one JSON value a line, and news of the neighbor come in between at any time. All
of ExaBGP waits for a process that does not read; so a thread reads always.
"""

import fcntl
import logging
import os
import queue
import select
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from consumers.enforcers.backend import BackendError
from consumers.enforcers.exabgp import neighbor
from consumers.enforcers.exabgp.neighbor import Neighbor
from consumers.mitigation.clock import now

log = logging.getLogger(__name__)

_HELLO: Final = f"reset\n{neighbor.ASK}\n".encode("ascii")
"""Drops what a predecessor had asked for, and asks for what nobody else asks for."""
_F_SETPIPE_SZ: Final = 1031
_PIPE: Final = 1 << 20
"""Bytes that ExaBGP may write while this process is stopped: 3,000 events."""
_STEP: Final = 0.02
"""Seconds between two looks at what is being sent."""
_SLICE: Final = select.PIPE_BUF
"""Bytes that a pipe which is ready takes without waiting."""
_READ: Final = 1 << 16
_MAX_UNANSWERED: Final = 1000
"""With more commands without an answer, no further ones are given."""
_BUSY: Final = 60.0
"""Seconds for sending; 10,000 routes take up to 15."""
_CALM: Final = 3
"""Equal counts in a row of what was sent: between two of them ExaBGP sends, if there is
anything to send."""


class ExabgpExited(BackendError):
    """ExaBGP has ended, and its routes with it; this process has no work left."""

    retryable = False


class Session:
    """One conversation, for one thread at a time.

    Args:
        reading: descriptor from which ExaBGP's lines come.
        writing: descriptor that takes commands.
        patience: seconds of silence after which an answer is not waited for.

    Attributes:
        gone: set when ExaBGP has ended.
        neighbor: the BGP session, once ExaBGP has reported it.
    """

    def __init__(self, reading: int, writing: int, patience: float = 10.0) -> None:
        self._reading = reading
        self._writing = writing
        self._patience = patience
        self.gone = threading.Event()
        self.neighbor: Neighbor | None = None
        self._thread: threading.Thread | None = None
        self._wake: tuple[int, int] | None = None
        # An answer that came too late belongs to its own command: all are counted.
        self._unsent = bytearray(_HELLO)
        self._asked: deque[str] = deque([neighbor.ASK])
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def open(self, when_gone: Callable[[], None] | None = None) -> None:
        """Begin to read, if that has not begun.

        Args:
            when_gone: called, from the thread that reads, when ExaBGP has ended.
        """
        if self._thread is not None:
            return
        with suppress(OSError):  # a socket, or more than this user may have
            fcntl.fcntl(self._reading, _F_SETPIPE_SZ, _PIPE)
        self._wake = os.pipe()
        self._thread = threading.Thread(
            target=self._read,
            args=(self._wake[0], when_gone),
            name="exabgp",
            daemon=True,
        )
        self._thread.start()

    def ask(self, commands: Sequence[str]) -> list[bytes]:
        """Give commands; return the lines that they list, once all are answered.

        Raises:
            ExabgpExited: ExaBGP has ended.
            BackendError: it refused a command, or does not answer. It may still carry
                out what it was given.
        """
        self.open()
        earlier = len(self._asked)
        if earlier > _MAX_UNANSWERED:
            self._await_answers()
            earlier = 0
        self._asked.extend(commands)
        self._unsent += "".join(f"{it}\n" for it in commands).encode("ascii")
        self._send()
        listed, refused = [], []
        while self._asked:
            line = self._next()
            if line not in {b"done", b"error"}:
                if not earlier:
                    listed.append(line)
                continue
            command = self._asked.popleft()
            if earlier:
                earlier -= 1
            elif line == b"error":
                refused.append(command)
        if refused:
            raise BackendError(
                f"ExaBGP refused {len(refused)} of {len(commands)} commands; the first:"
                f" {refused[0]:.200}"
            )
        return listed

    def _await_answers(self) -> None:
        """Wait for the answers to all earlier commands.

        ExaBGP may be silent for days: what it is given then must not pile up.
        """
        self._send()
        while self._asked:
            if self._next() in {b"done", b"error"}:
                self._asked.popleft()

    def look(self) -> None:
        """Ask whether the session is up; `up` says what came of it.

        Raises:
            BackendError: as `ask`.
        """
        self.ask([neighbor.ASK])

    def settle(self) -> None:
        """Wait until all is sent, or there is nobody to send it to.

        What is asked for in two calls reaches the neighbor in that order when this
        stands between them. Else it may not: ExaBGP has a queue for each set of
        attributes.

        Raises:
            BackendError: it is sending for too long; or as `ask`.
        """
        end, last, calm = now() + _BUSY, -1, 0
        while calm < _CALM:
            lines = self.ask([neighbor.ASK])
            try:
                found = neighbor.figures(b"".join(lines))
            except ValueError as exc:
                raise BackendError(f"ExaBGP's answer is not understood: {exc}") from exc
            if not found.up:
                return
            calm = calm + 1 if found.sent == last else 1
            last = found.sent
            if now() > end:
                raise BackendError(f"ExaBGP has been sending for {_BUSY:g} s")
            if calm == 1:
                self.gone.wait(_STEP)

    @property
    def up(self) -> bool:
        """Whether the BGP session is established, as far as is known."""
        return self.neighbor is not None and self.neighbor.up

    def close(self) -> None:
        """Stop reading. The descriptors stay open: they are the process's own."""
        if self._thread is None or self._wake is None:
            return
        os.write(self._wake[1], b".")
        self._thread.join()
        for it in self._wake:
            os.close(it)
        self._thread = self._wake = None

    def _send(self) -> None:
        while self._unsent:
            ready = select.select([], [self._writing], [], self._patience)[1]
            if self.gone.is_set():
                raise _gone()
            if not ready:
                raise self._silent()
            try:
                sent = os.write(self._writing, self._unsent[:_SLICE])
            except OSError as exc:
                raise _gone() from exc
            del self._unsent[:sent]

    def _next(self) -> bytes:
        try:
            line = self._lines.get(timeout=self._patience)
        except queue.Empty as exc:
            raise self._silent() from exc
        if not line:
            self._lines.put(b"")
            raise _gone()
        return line

    def _silent(self) -> BackendError:
        return BackendError(f"ExaBGP has not answered for {self._patience:g} s")

    def _read(self, wake: int, when_gone: Callable[[], None] | None) -> None:
        rest, met = b"", False
        while True:
            if wake in select.select([self._reading, wake], [], [])[0]:
                return
            try:
                data = os.read(self._reading, _READ)
            except OSError:
                data = b""
            if not data:
                self.gone.set()
                self._lines.put(b"")
                if when_gone is not None:
                    when_gone()
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                # Before the first answer to us come those to a predecessor.
                met = met or line.startswith(b"[")
                if line.startswith(b'{ "exabgp"'):
                    self._is(neighbor.change(line))
                elif met and line:
                    if line.startswith(b"["):
                        with suppress(ValueError):
                            self._is((neighbor.figures(line).up, ""))
                    self._lines.put(line)

    def _is(self, told: tuple[bool, str] | None) -> None:
        if told is None or (self.neighbor and self.neighbor.up == told[0]):
            return
        up, reason = told
        self.neighbor = Neighbor(up, now(), reason)
        level = logging.INFO if up else logging.WARNING
        state = f"{'up' if up else 'down'}{f': {reason}' if reason else ''}"
        log.log(level, "the session with the neighbor is %s", state)


def pipes() -> tuple[int, int]:
    """Return descriptors of ExaBGP's pipes: for reading, for writing.

    What anybody prints from now on goes to stderr, for ExaBGP would take it for
    commands; and nobody else reads from stdin.
    """
    reading, writing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return reading, writing


def _gone() -> ExabgpExited:
    return ExabgpExited("ExaBGP has ended; its service manager has to start it again")
