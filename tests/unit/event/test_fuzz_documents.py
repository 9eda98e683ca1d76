"""Damaged documents become an event or an error, quickly and with little memory.

FUZZ_SECONDS (default 2) is the duration; `make fuzz` uses ten minutes. FUZZ_SEED
repeats the documents of an earlier run. Failed documents are stored in `corpus/fuzz`,
and each run begins with these.
"""

import os
import random
import resource
import sys
import time

import pytest
from support import corpus
from support.odd_documents import Call, Mutator, real

from fnm_bus.avro.codec import Codec
from fnm_bus.errors import InvalidNotification
from fnm_bus.event.identifiers import check_event
from fnm_bus.kafka.addressing import Topics
from fnm_bus.kafka.record import digest
from fnm_bus.relay.pipeline import Pipeline
from fnm_bus.relay.preparation import prepare
from fnm_bus.spool.entry import Entry, utc_time

pytestmark = pytest.mark.timeout(7_200)

SECONDS = float(os.environ.get("FUZZ_SECONDS", "2"))
SEED = int(os.environ.get("FUZZ_SEED", "0")) or random.SystemRandom().randrange(
    1, 2**32
)
CODEC = Codec()
PIPELINE = Pipeline("fra1", Topics(), CODEC)
NAME = f"{'a' * 32}-000000001000-0000100-0000000a"
SLOWEST = 2.0
"""Seconds of CPU time for one document; the slowest took 0.7 s in 2026."""
GROWTH = 400_000
"""Largest growth of the process in kB after all documents of a run."""


def say(line: str) -> None:
    """Write a line for `make fuzz`."""
    sys.stdout.write(f"{line}\n")


def check(call: Call) -> float:
    """Prepare a document as the relay does; return the seconds of CPU time."""
    document, arguments = call
    entry = Entry(NAME, arguments, document, utc_time(10**18), len(document), "")
    start = time.process_time()
    try:
        ready = prepare(PIPELINE, entry, 7, without_samples=False)
    except InvalidNotification as error:
        assert error.reason.isprintable()  # noqa: PT017 - both ways out are allowed
        assert len(error.reason) < 2_000  # noqa: PT017 - as above
    else:
        assert ready.record is not None
        event = CODEC.decode(ready.record.value)
        check_event(event)  # type: ignore[arg-type]
        assert event.receipt.raw_digest == digest(document)  # type: ignore[union-attr]
    took = time.process_time() - start
    assert took < SLOWEST
    return took


@pytest.mark.parametrize("call", corpus.calls())
def test_earlier_failures_do_not_return(call: Call) -> None:
    check(call)


def test_every_document_becomes_an_event_or_a_reason() -> None:
    mutated = Mutator(SEED, [*real(), *corpus.calls()])
    end = time.monotonic() + SECONDS
    tried, slowest = 0, 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while time.monotonic() < end:
        call = mutated()
        try:
            with corpus.kept(call):
                slowest = max(slowest, check(call))
        except BaseException:
            say(f"FUZZ_SEED={SEED}: document {tried} is in {corpus.DIRECTORY}")
            raise
        tried += 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    say(f"{tried} documents, slowest {slowest:.2f} s, memory grew {grown} kB")
    assert grown < GROWTH
