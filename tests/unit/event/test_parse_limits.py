"""The time to parse is linear in the size of a document, also of an invalid one."""

import time
from collections.abc import Callable

import pytest
from support.odd_documents import FAULTS, TEXT_ARGUMENTS, TEXT_FAULTS

from fnm_bus.errors import InvalidNotification
from fnm_bus.event import Receipt
from fnm_bus.event.parse import parse

_SMALL = 16_000
_FACTOR = 4
_SOONER = 0.02
"""Shorter times in seconds are not compared, since noise dominates them."""


def seconds(document: bytes, arguments: tuple[str, ...]) -> float:
    """Return the CPU time that parsing takes: the least of three, in seconds."""
    took = []
    for _ in range(3):
        start = time.process_time()
        try:
            parse(document, arguments, Receipt())
        except InvalidNotification as error:
            assert error.reason.isprintable()  # noqa: PT017 - both ways out are allowed
        took.append(time.process_time() - start)
    return min(took)


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        *(pytest.param(make, (), id=name) for name, make in FAULTS.items()),
        *(
            pytest.param(make, TEXT_ARGUMENTS, id=name)
            for name, make in TEXT_FAULTS.items()
        ),
    ],
)
def test_four_times_the_size_takes_under_nine_times_longer(
    make: Callable[[int], bytes], arguments: tuple[str, ...]
) -> None:
    """Linear is four times, quadratic sixteen."""
    small = max(seconds(make(_SMALL), arguments), _SOONER)
    assert seconds(make(_SMALL * _FACTOR), arguments) < 9 * small


def test_a_cut_document_of_four_megabytes_takes_under_two_seconds() -> None:
    document = FAULTS["an open string of escaped quotes"](4_000_000)
    assert seconds(document, ()) < 2
