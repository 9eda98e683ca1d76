"""The snapshot: an enforcer's leases in a file on its machine.

The enforcer writes the snapshot before it changes the system, so the snapshot has every
measure that may be in force. It is read by an enforcer that restarts without Kafka, and
by the watchdog while the enforcer hangs. Ends are counted on `clock.now`, which starts
at 0 on each boot. No measure survives a reboot, so the leases of an earlier boot are
ignored: no wall clock is trusted to measure how long the machine was off.
"""

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from consumers.enforcers.record_guard import MAX_LEASE
from consumers.mitigation import clock
from consumers.mitigation.measure import Measure
from fnm_bus import atomic_file
from fnm_bus.errors import FnmBusError
from fnm_bus.hook import python_hook

_VERSION: Final = 2
_MAX_BYTES: Final = 1 << 29
"""Room for the maximum number of leases."""
_DECODE_ERRORS: Final = (
    msgspec.MsgspecError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""Exceptions for a file that is not a snapshot."""


class SnapshotError(FnmBusError):
    """The snapshot cannot be written or read; the text names the file."""

    exit_code = 75


class Lease(msgspec.Struct, frozen=True):
    """One measure that may be in force.

    Attributes:
        ends: the lease's end, in seconds of `clock.now`.
    """

    measure: Measure
    ends: float


class Snapshot(msgspec.Struct, frozen=True):
    """The saved state of an enforcer.

    Attributes:
        leases: key → lease of each measure that may be in force.
        pause_command: offset of the pause command that was not answered, or None.
    """

    leases: Mapping[str, Lease]
    pause_command: int | None = None


def save(path: Path, snapshot: Snapshot) -> None:
    """Replace the file *path* atomically with *snapshot*.

    Raises:
        SnapshotError: the snapshot may not survive a power loss.
    """
    data = {"version": _VERSION, "boot": python_hook.boot_id(), "snapshot": snapshot}
    try:
        atomic_file.replace(path, msgspec.json.encode(data))
    except OSError as exc:
        raise SnapshotError(f"{path}: {exc.strerror}") from exc


def load(path: Path) -> Snapshot | None:
    """Return the snapshot in *path*, or None if there is no such file.

    The leases of an earlier boot are left out.

    Raises:
        SnapshotError: the file cannot be read, or is not a snapshot.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
            raise SnapshotError(f"{path}: not a file of at most {_MAX_BYTES} bytes")
        document: Any = msgspec.json.decode(path.read_bytes())
        if document["version"] != _VERSION:
            raise SnapshotError(
                f"{path}: version {document['version']} is not supported"
            )
        snapshot = msgspec.convert(document["snapshot"], type=Snapshot)
        if document["boot"] != python_hook.boot_id():
            return Snapshot({}, snapshot.pause_command)
        return replace(snapshot, leases=_checked(snapshot.leases))
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise SnapshotError(f"{path}: {exc.strerror}") from exc
    except _DECODE_ERRORS as exc:
        raise SnapshotError(f"{path}: not an enforcer's snapshot: {exc}") from exc


def _checked(leases: Mapping[str, Lease]) -> Mapping[str, Lease]:
    """Return the leases, shortened to the maximum lease.

    Raises:
        ValueError: a lease has the key of another measure.
    """
    latest = clock.now() + MAX_LEASE
    for key, lease in leases.items():
        if lease.measure.key != key:
            raise ValueError(f"the lease of {key:.200} is for another measure")
    return {
        key: replace(lease, ends=min(lease.ends, latest))
        for key, lease in leases.items()
    }
