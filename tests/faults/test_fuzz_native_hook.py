"""Calls that nobody makes, on a native hook with sanitizers, in spools with obstacles.

FUZZ_SECONDS (5 unless set) is the duration; `make fuzz` takes ten minutes. FUZZ_SEED
repeats the calls.
"""

import os
import random
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from time import monotonic

import pytest
from support.installed_hook import NativeHook

from fnm_bus.spool.spool import Spool

pytestmark = pytest.mark.timeout(7_200)

SECONDS = float(os.environ.get("FUZZ_SECONDS", "5"))
SEED = int(os.environ.get("FUZZ_SEED", "0")) or random.SystemRandom().randrange(
    1, 2**32
)
SIZES = (0, 1, 9, 1_500, 4_095, 4_096, 4_097, 19_000, 65_535, 65_536, 65_537, 900_000)
MARKERS = (b"all", b" all\n", b"status", b"allx", b"\0", b"al", b"", b"x" * 5_000)


class Fuzz:
    """A native hook with two spools, and random calls.

    Attributes:
        outcomes: number of calls by the place of the entry.
    """

    def __init__(self, place: Path, program: Path) -> None:
        self.hook = NativeHook(place, program)
        self.random = random.Random(SEED)  # noqa: S311 - a test's
        self.outcomes: dict[str, int] = {}

    def call(self) -> None:
        """Make one call, and check its promise."""
        arguments, document = self._arguments(), self._document()
        with self._obstacle():
            done = self._run(arguments, document)
        if arguments[3:] == [b"unban"]:
            document = b""
        head = b"fnm-bus 1 %d" % len(arguments)
        entry = b"\0".join([head, *arguments, document])
        stored, aside = take(self.hook.spool), take(self.hook.fallback)
        lines = done.stderr.count(b"\n")
        outcome = "stored"
        if done.returncode == 0:
            assert (stored, aside, done.stderr) == ([entry], [], b"")
        else:
            assert done.returncode == 75, done.stderr
            assert lines == 1, done.stderr
            outcome = "lost" if b"notification is lost: " in done.stderr else "aside"
            assert aside == ([] if outcome == "lost" else [entry]), done.stderr
            assert stored == [], done.stderr
        assert done.stdout == b""
        assert self.hook.temporary() == []
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def _arguments(self) -> list[bytes]:
        count = self.random.choice((0, 1, 2, 3, 4, 4, 9, 300))
        texts = [self.random.randbytes(self.random.randrange(40)) for _ in range(count)]
        arguments = [text.replace(b"\0", b"") for text in texts]
        if count == 4 and self.random.random() < 0.5:
            arguments[3] = b"unban"
        if count and self.random.random() < 0.1:
            arguments[0] = b"x" * self.random.randrange(120_000)
        return arguments

    def _document(self) -> bytes:
        document = self.random.randbytes(self.random.choice(SIZES))
        if self.random.random() < 0.3:
            document += b'"attack_status"'
        return document

    @contextmanager
    def _obstacle(self) -> Iterator[None]:
        """Put an obstacle into the call's way, and remove it."""
        hook, choice = self.hook, self.random.random()
        if choice < 0.3:
            marker = hook.spool.root / "full"
            marker.write_bytes(self.random.choice(MARKERS))
            yield
            marker.unlink()
        elif choice < 0.5:
            spool = self.random.choice((hook.spool, hook.fallback))
            paths = ("incoming", "incoming/tmp", "incoming/new", "incoming/new/7")
            path = spool.root / self.random.choice(paths)
            moved = path.rename(hook.directory / "moved")
            yield
            moved.rename(path)
        elif choice < 0.7:
            block = bytearray(hook.block())
            for _ in range(self.random.randint(1, 3)):
                block[self.random.randrange(len(block))] = self.random.randrange(256)
            hook.write_block(bytes(block))
            yield
            hook.change()
        else:
            yield

    def _run(self, arguments: list[bytes], document: bytes) -> CompletedProcess[bytes]:
        limit, value = resource.RLIMIT_FSIZE, resource.RLIM_INFINITY
        if self.random.random() < 0.2:
            value = self.random.choice((0, 1, 100, 5_000, 70_000))
        elif self.random.random() < 0.1:
            limit, value = resource.RLIMIT_NOFILE, self.random.choice((4, 5, 6, 7))
        umask = self.random.choice((0, 0o22, 0o777))

        def lower() -> None:
            resource.setrlimit(limit, (value, value))
            os.umask(umask)

        return self.hook(document, *arguments, preexec_fn=lower)


def take(spool: Spool) -> list[bytes]:
    """Return the bytes of a spool's entries, and remove them."""
    paths = [spool.path(name) for name in spool.scan()]
    entries = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    return entries


@pytest.mark.parametrize("build", ["musl", "sanitized"])
def test_every_call_stores_its_bytes_or_reports_the_loss(
    place: Path, native_program: Callable[[str], Path], build: str
) -> None:
    fuzz = Fuzz(place, native_program(build))
    end = monotonic() + SECONDS / 2
    try:
        while monotonic() < end:
            fuzz.call()
    finally:
        sys.stdout.write(f"FUZZ_SEED={SEED}: {fuzz.outcomes}\n")
    assert fuzz.outcomes.keys() == {"stored", "aside", "lost"}
