"""The session of an API process with the ExaBGP that started it.

ExaBGP answers each command with `done` or `error`, in order. A command's listing comes
before its answer, one JSON value a line.
"""

import os
import queue
import select
from collections import deque
from collections.abc import Sequence
from typing import Final

from consumers.enforcers.backend import BackendError
from consumers.enforcers.exabgp import neighbor
from consumers.enforcers.exabgp.output_reader import OutputReader
from consumers.mitigation.clock import now

_FIRST_COMMANDS: Final = f"reset\n{neighbor.COMMAND}\n".encode("ascii")
"""Cancels an earlier process's commands; the second answer is unlike theirs."""
_ANSWERS: Final = frozenset({b"done", b"error"})
_SENT_CHECK_INTERVAL: Final = 0.02
"""Seconds between two checks of the number of sent UPDATEs."""
_WRITE_SIZE: Final = select.PIPE_BUF
"""Bytes that a writable pipe accepts without blocking."""
_MAX_UNANSWERED: Final = 1000
"""Maximum number of commands without an answer; further ones are not sent."""
_SEND_TIMEOUT: Final = 60.0
"""Seconds for sending UPDATEs; 10,000 routes take up to 15 s."""
_STABLE_COUNTS: Final = 3
"""Equal counts of sent UPDATEs in a row. ExaBGP sends between two of them if it has any
UPDATE to send."""


class ExabgpExited(BackendError):
    """ExaBGP has exited, which withdrew its routes; this process should exit."""

    retryable = False


class Session(OutputReader):
    """One session, for one thread at a time.

    Args:
        reading: descriptor of ExaBGP's output.
        writing: descriptor for commands.
        timeout: seconds without output from ExaBGP until a request fails.
    """

    def __init__(self, reading: int, writing: int, timeout: float = 10.0) -> None:
        super().__init__(reading)
        self._writing = writing
        self._timeout = timeout
        # Answers are counted, so that a late answer is assigned to its own command.
        self._unsent = bytearray(_FIRST_COMMANDS)
        self._unanswered: deque[str] = deque([neighbor.COMMAND])

    @property
    def up(self) -> bool:
        """Whether the BGP session is established, by the last report."""
        return self.neighbor is not None and self.neighbor.up

    def request(self, commands: Sequence[str]) -> list[bytes]:
        """Send commands; return their listings, once all commands are answered.

        Raises:
            ExabgpExited: ExaBGP has exited.
            BackendError: ExaBGP refused a command or did not answer. It may still
                execute the commands.
        """
        self.open()
        earlier = len(self._unanswered)
        if earlier > _MAX_UNANSWERED:
            self._await_answers()
            earlier = 0
        self._unanswered.extend(commands)
        self._unsent += "".join(f"{command}\n" for command in commands).encode("ascii")
        self._send()
        listing, refused = [], []
        while self._unanswered:
            line = self._next_line()
            if line not in _ANSWERS:
                if not earlier:
                    listing.append(line)
                continue
            command = self._unanswered.popleft()
            if earlier:
                earlier -= 1
            elif line == b"error":
                refused.append(command)
        if refused:
            raise BackendError(
                f"ExaBGP refused {len(refused)} of {len(commands)} commands; the first:"
                f" {refused[0]:.200}"
            )
        return listing

    def wait_sent(self) -> None:
        """Wait until all UPDATEs are sent, or the BGP session is down.

        Call this between two requests whose UPDATEs must reach the neighbor in order:
        ExaBGP has one queue for each set of attributes.

        Raises:
            BackendError: sending takes too long; or as for `request`.
        """
        deadline, last, stable = now() + _SEND_TIMEOUT, -1, 0
        while stable < _STABLE_COUNTS:
            lines = self.request([neighbor.COMMAND])
            try:
                status = neighbor.parse_listing(b"".join(lines))
            except ValueError as exc:
                raise BackendError(f"ExaBGP's answer is not understood: {exc}") from exc
            if not status.up:
                return
            stable = stable + 1 if status.sent == last else 1
            last = status.sent
            if now() > deadline:
                raise BackendError(f"ExaBGP has been sending for {_SEND_TIMEOUT:g} s")
            if stable == 1:
                self.exited.wait(_SENT_CHECK_INTERVAL)

    def _await_answers(self) -> None:
        """Wait for the answers to all earlier commands.

        Without this, commands would accumulate while ExaBGP does not answer.
        """
        self._send()
        while self._unanswered:
            if self._next_line() in _ANSWERS:
                self._unanswered.popleft()

    def _send(self) -> None:
        while self._unsent:
            ready = select.select([], [self._writing], [], self._timeout)[1]
            if self.exited.is_set():
                raise _exited()
            if not ready:
                raise self._timeout_error()
            try:
                sent = os.write(self._writing, self._unsent[:_WRITE_SIZE])
            except OSError as exc:
                raise _exited() from exc
            del self._unsent[:sent]

    def _next_line(self) -> bytes:
        try:
            line = self.lines.get(timeout=self._timeout)
        except queue.Empty as exc:
            raise self._timeout_error() from exc
        if not line:
            self.lines.put(b"")
            raise _exited()
        return line

    def _timeout_error(self) -> BackendError:
        return BackendError(f"ExaBGP has not answered for {self._timeout:g} s")


def pipes() -> tuple[int, int]:
    """Return descriptors of ExaBGP's pipes: for reading, for writing.

    From now on, stdout is stderr, since ExaBGP reads the original stdout as commands,
    and stdin is empty.
    """
    reading, writing = os.dup(0), os.dup(1)
    devnull = os.open(os.devnull, os.O_RDONLY)
    os.dup2(devnull, 0)
    os.close(devnull)
    os.dup2(2, 1)
    return reading, writing


def _exited() -> ExabgpExited:
    return ExabgpExited("ExaBGP has exited; its service manager has to restart it")
