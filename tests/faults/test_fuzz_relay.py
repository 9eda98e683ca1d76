"""Random documents through the hook, a relay that is killed, and a broker.

FUZZ_SECONDS (5 unless set) is how long; `make fuzz` takes ten minutes. FUZZ_SEED draws
the same documents again. What is lost stays in the corpus of the unit tests.
"""

import os
import random
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import pytest
from support import corpus
from support.installed_hook import InstalledHook
from support.odd_documents import Call, Mutator, real
from support.relay_processes import RelayProcesses

from fnm_bus.event import DeadLetter, Event
from fnm_bus.kafka.addressing import event_id
from fnm_bus.spool.quarantine import Quarantine

pytestmark = pytest.mark.timeout(7_200)

SECONDS = float(os.environ.get("FUZZ_SECONDS", "5"))
SEED = int(os.environ.get("FUZZ_SEED", "0")) or random.SystemRandom().randrange(
    1, 2**32
)
BY_HOOK, BY_FILE = 20, 60
"""Documents of a round that come through the hook's own process, and those that do not,
which are quicker. A round is read before the embedded broker drops any of it: it keeps
5 MB of each partition."""
KINDS = ("host", "hostgroup", "status")


def say(line: str) -> None:
    """Write a line that `make fuzz` shows."""
    sys.stdout.write(f"{line}\n")


class Fuzz:
    """Relays and a spool with a hook, and what went into it.

    Attributes:
        stored: documents by the names of their entries.
        kills: how often a relay was killed.
        ids: of the events on the topics.
        letters: names of the entries with a dead letter.
    """

    def __init__(self, relays: RelayProcesses, root: Path) -> None:
        self.relays = relays
        self.hook = InstalledHook(root)
        self.stored: dict[str, Call] = {}
        self.kills = 0
        self.ids: set[str] = set()
        self.letters: set[str] = set()
        self._random = random.Random(SEED)  # noqa: S311 - a test's
        self._mutated = Mutator(SEED, [*real(), *corpus.calls()])

    def store(self) -> None:
        """Let a round's calls come in; no relay runs."""
        calls = [self._mutated() for _ in range(BY_HOOK)]
        with ThreadPoolExecutor(2) as pool:
            ended = [*pool.map(self._call, calls)]
        assert ended == [0] * BY_HOOK
        for path in (self.hook.spool.path(name) for name in self.hook.spool.scan()):
            entry = self.hook.spool.read(path.name)
            self.stored[path.name] = (entry.document, entry.arguments)
            path.rename(self.relays.spool.path(path.name))
        for _ in range(BY_FILE):
            call = self._mutated()
            self.stored[self.relays.call(*call)] = call

    def drain(self) -> None:
        """Drain by a relay that is killed in the middle, and by the next one."""
        waiting = len(self.relays.spool.scan())
        rest = self._random.randrange(waiting)
        killed = self.relays.start()
        self.relays.until(lambda: len(self.relays.spool.scan()) <= rest, within=120)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        self.kills += 1
        relay = self.relays.start()
        self.relays.until(self._done, within=120)
        assert relay.poll() is None
        relay.send_signal(signal.SIGTERM)
        assert relay.wait(30) == 0

    def read(self) -> None:
        """Read the topics."""
        for kind in KINDS:
            for event in self.relays.events(kind, 0):
                assert isinstance(event, Event)
                self.ids.add(event.receipt.event_id)
        for letter in self.relays.events("deadletter", 0):
            assert isinstance(letter, DeadLetter)
            self.letters.add(letter.entry)

    def lost(self) -> list[str]:
        """Return the names of entries that became neither an event nor a letter."""
        kept = set(Quarantine(self.relays.spool.root, 10**6, 10**12).names())
        assert self.letters <= kept
        return [
            name
            for name in self.stored
            if event_id("fra1", name) not in self.ids and name not in self.letters
        ]

    def _done(self) -> bool:
        quarantine = Quarantine(self.relays.spool.root, 10**6, 10**12)
        return self.relays.empty() and not quarantine.unpublished()

    def _call(self, call: Call) -> int:
        document, arguments = call
        return self.hook(document, *arguments).returncode


def test_every_accepted_document_is_an_event_or_a_dead_letter(
    relays: RelayProcesses, tmp_path: Path
) -> None:
    relays.configure("[log]", 'level = "error"')
    (tmp_path / "front").mkdir()
    fuzz = Fuzz(relays, tmp_path / "front")
    end = monotonic() + SECONDS
    while monotonic() < end:
        fuzz.store()
        fuzz.drain()
        fuzz.read()
    lost = fuzz.lost()
    for name in lost:
        say(f"FUZZ_SEED={SEED}: lost: {corpus.add(fuzz.stored[name])}")
    say(f"{len(fuzz.stored)} documents, {fuzz.kills} kills, {len(lost)} lost")
    assert not lost
