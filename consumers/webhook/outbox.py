"""Outbox: notices that wait, sent one after the other, each until it is taken.

A thread sends, so that whoever reads Kafka never waits for a web server. There is one
queue, so notices arrive in the order in which they were made.
"""

import logging
import threading
import time
from collections import deque
from random import uniform
from typing import Final, Generic, Protocol, TypeVar

from consumers.webhook.post import Letter, NotTaken, Post, Refused

log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST: Final = 1.0
_LONGEST: Final = 60.0
"""Seconds between attempts, at first and at most; each is shortened by chance."""
_LONGEST_ASKED: Final = 300.0
"""Seconds for which a server may ask us to wait."""
_MAX_WAITING: Final = 1000
_MAX_BYTES: Final = 64 << 20
"""Notices that wait, and the bytes of their bodies; from then on it is full."""


class Sending(Protocol[T]):
    """Where notices go."""

    def put(self, letter: Letter, token: T) -> None:
        """Take a notice; *token* comes back from `done` once it is out."""

    def done(self) -> list[T]:
        """Return the tokens of the notices that are out."""

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""

    @property
    def full(self) -> bool:
        """Whether no further notice should be made now."""

    def close(self, seconds: float) -> None:
        """End within *seconds*."""


class Logged(Generic[T]):
    """Logs notices instead of sending them: the dry run."""

    def __init__(self) -> None:
        self._done: list[T] = []

    def put(self, letter: Letter, token: T) -> None:
        """Log a notice."""
        log.info("dry run, not sent: notice %s: %s", letter.key, letter.body.decode())
        self._done.append(token)

    def done(self) -> list[T]:
        """Return the tokens of what was logged."""
        found, self._done = self._done, []
        return found

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""
        return not self._done

    @property
    def full(self) -> bool:
        """Never: nothing waits long."""
        return False

    def close(self, seconds: float) -> None:
        """Do nothing."""


class Outbox(Generic[T]):
    """The notices that wait, and the thread that sends them.

    Args:
        post: sends one.
        give_up: seconds after which a notice is given up, since it was put here.
    """

    def __init__(self, post: Post, give_up: float) -> None:
        self._post = post
        self._give_up = give_up
        self._waiting: deque[tuple[Letter, T, float]] = deque()
        self._done: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._news = threading.Semaphore(0)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._broken: Exception | None = None

    def put(self, letter: Letter, token: T) -> None:
        """Send *letter* when its turn comes; *token* comes back from `done`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="post", daemon=True)
            self._thread.start()
        self._bytes += len(letter.body)
        self._waiting.append((letter, token, time.monotonic()))
        self._news.release()

    def done(self) -> list[T]:
        """Return the tokens of what was sent or given up since the last call.

        Raises:
            Exception: whatever ended the thread, which should never happen.
        """
        if self._broken is not None:
            raise self._broken
        tokens = []
        for _ in range(len(self._done)):
            token, size = self._done.popleft()
            # Only the caller's thread touches the sum.
            self._bytes -= size
            tokens.append(token)
        return tokens

    @property
    def idle(self) -> bool:
        """Whether nothing waits, neither to be sent nor to be asked for by `done`."""
        return not self._waiting and not self._done

    @property
    def full(self) -> bool:
        """Whether too many notices, or too many bytes, wait."""
        return len(self._waiting) >= _MAX_WAITING or self._bytes >= _MAX_BYTES

    def close(self, seconds: float) -> None:
        """Let the attempt that goes on end, for up to *seconds*; begin no other."""
        self._stopping.set()
        self._news.release()
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self._send_all()
        except Exception as exc:  # noqa: BLE001 - a dead thread must not be silent
            self._broken = exc

    def _send_all(self) -> None:
        while not self._stopping.is_set():
            self._news.acquire()
            if self._waiting and not self._stopping.is_set():
                letter, token, since = self._waiting[0]
                if self._sent(letter, since):
                    self._done.append((token, len(letter.body)))
                    self._waiting.popleft()

    def _sent(self, letter: Letter, since: float) -> bool:
        """Try until it is sent or given up; return False when told to stop."""
        pause = _FIRST
        while True:
            try:
                self._post.send(letter)
            except Refused as exc:
                text = "given up: notice %s (%s): %s"
                log.error(text, letter.key, letter.title, exc)  # noqa: TRY400 - no trace
                return True
            except NotTaken as exc:
                left = since + self._give_up - time.monotonic()
                if left <= 0:
                    text = "given up after %.0f s: notice %s (%s): %s"
                    log.error(  # noqa: TRY400 - as above
                        text, self._give_up, letter.key, letter.title, exc
                    )
                    return True
                log.warning("tried again: notice %s: %s", letter.key, exc)
                wait = pause * uniform(0.5, 1.0)  # noqa: S311 - no secret
                if exc.after is not None:
                    wait = min(max(wait, exc.after), _LONGEST_ASKED)
                if self._stopping.wait(min(wait, left)):
                    return False
                pause = min(pause * 2, _LONGEST)
            else:
                log.info("sent: notice %s (%s)", letter.key, letter.title)
                return True
