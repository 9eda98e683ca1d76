"""Memory: the latest values of a bounded number of keys, stored nowhere else."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeVar

_MAX_REMEMBERED: Final = 100_000
"""Entries of one memory; the oldest are forgotten first."""

Undo = Callable[[], object]
K = TypeVar("K")
V = TypeVar("V")


def remember(memory: OrderedDict[K, V], key: K, value: V) -> Undo:
    """Store a value at the end of a bounded memory; return how to undo it."""
    previous = memory.get(key)
    memory[key] = value
    memory.move_to_end(key)
    is_full = len(memory) > _MAX_REMEMBERED
    oldest = memory.popitem(last=False) if is_full else None

    def undo() -> None:
        if previous is None:
            del memory[key]
        else:
            memory[key] = previous
        if oldest is not None:
            memory[oldest[0]] = oldest[1]
            memory.move_to_end(oldest[0], last=False)

    return undo
