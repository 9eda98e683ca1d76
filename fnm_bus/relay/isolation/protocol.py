"""Messages between the relay and the child process that reads suspect entries.

The parent sends the pickled pipeline, then tasks. The child sends `Ready`, then one
reply for each task. Each message is preceded by its length.
"""

import struct
from typing import Final

import msgspec

from fnm_bus.kafka.record import Record
from fnm_bus.relay.preparation import Preparation

MAX_MEMORY: Final = 160 * 1024 * 1024
"""Bytes of address space that a child may add after its start. A valid document needs
at most about half of it."""
MAX_CPU: Final = 5
"""Seconds of CPU time for one entry; the slowest valid document takes less than one."""
LOW_MEMORY: Final = "the hard limit of memory (ulimit -v) is too low: raise it"
LENGTH: Final = struct.Struct(">I")


class Task(msgspec.Struct, frozen=True):
    """An entry to be prepared.

    Attributes:
        directory: of its file.
        name: of its file.
        sequence: position among the calls of its target.
        without_samples: whether the record omits its packet samples.
    """

    directory: str
    name: str
    sequence: int
    without_samples: bool


class Ready(msgspec.Struct, tag=True):
    """The child has started and can read entries.

    Attributes:
        checked: the records of valid documents.
        is_memory_low: whether `ulimit -v` allows less than MAX_MEMORY.
    """

    checked: tuple[Record, ...]
    is_memory_low: bool


class Invalid(msgspec.Struct, tag=True):
    """The fields of an InvalidNotification."""

    field: str
    expected: str
    actual: str


class Misfit(msgspec.Struct, tag=True):
    """The text of an InvalidRecord."""

    text: str


class Unreadable(msgspec.Struct, tag=True):
    """The text of a SpoolError, or of a FileNotFoundError if *missing*."""

    text: str
    missing: bool


class Failed(msgspec.Struct, tag=True):
    """The text of an exception that the entry caused."""

    text: str


class Done(msgspec.Struct, tag=True):
    """The prepared record."""

    preparation: Preparation


Reply = Ready | Invalid | Misfit | Unreadable | Failed | Done


def frame(message: bytes) -> bytes:
    """Return a message with its length in front."""
    return LENGTH.pack(len(message)) + message
