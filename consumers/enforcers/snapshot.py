"""What an enforcer keeps in force and until when, in a file on its machine.

It is written before the system is touched. So its readers (the enforcer after a restart
without Kafka; the watchdog while the enforcer hangs) know at least everything that may
be in force. Ends are counted on `clock.now`, which begins again with each boot. Nothing
of an earlier boot is in force any more, so its leases are left out: no wall clock is
trusted to tell how long the machine was off.
"""

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from consumers.enforcers.guard import MAX_LEASE
from consumers.mitigation import clock
from consumers.mitigation.measure import Measure
from fnm_bus import atomic_file
from fnm_bus.errors import FnmBusError
from fnm_bus.hook import python_hook

_VERSION: Final = 2
_MAX_BYTES: Final = 1 << 29
"""Room for as many leases as an enforcer remembers."""
_BROKEN: Final = (
    msgspec.MsgspecError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What reading bytes raises that are none of ours."""


class SnapshotError(FnmBusError):
    """The snapshot cannot be written or read; the text names the file."""

    exit_code = 75


class Lease(msgspec.Struct, frozen=True):
    """One measure that is or may be in force.

    Attributes:
        measure: what is done.
        ends: when it ends, in seconds of `clock.now`.
    """

    measure: Measure
    ends: float


class Snapshot(msgspec.Struct, frozen=True):
    """What an enforcer knew.

    Attributes:
        leases: key → what is or may be in force.
        pause_command: offset of the pause command that was not answered yet, or None.
    """

    leases: Mapping[str, Lease]
    pause_command: int | None = None


def save(path: Path, snapshot: Snapshot) -> None:
    """Put *snapshot* into *path*; a reader sees the old one or the new one.

    Raises:
        SnapshotError: it is not certain to survive a loss of power.
    """
    data = {"version": _VERSION, "boot": python_hook.boot_id(), "snapshot": snapshot}
    try:
        atomic_file.replace(path, msgspec.json.encode(data))
    except OSError as exc:
        raise SnapshotError(f"{path}: {exc.strerror}") from exc


def load(path: Path) -> Snapshot | None:
    """Return the snapshot in *path*, without the leases of an earlier boot.

    None: there is no such file.

    Raises:
        SnapshotError: the file cannot be read, or is not a snapshot.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_BYTES:
            raise SnapshotError(f"{path}: not a file of at most {_MAX_BYTES} bytes")
        document: Any = msgspec.json.decode(path.read_bytes())
        if document["version"] != _VERSION:
            raise SnapshotError(f"{path}: version {document['version']} is unknown")
        snapshot = msgspec.convert(document["snapshot"], type=Snapshot)
        if document["boot"] != python_hook.boot_id():
            return Snapshot({}, snapshot.pause_command)
        return replace(snapshot, leases=_checked(snapshot.leases))
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise SnapshotError(f"{path}: {exc.strerror}") from exc
    except _BROKEN as exc:
        raise SnapshotError(f"{path}: not a snapshot of an enforcer: {exc}") from exc


def _checked(leases: Mapping[str, Lease]) -> Mapping[str, Lease]:
    """Return leases of which none is longer than any of ours.

    Raises:
        ValueError: one has the key of another measure.
    """
    latest = clock.now() + MAX_LEASE
    for key, lease in leases.items():
        if lease.measure.key != key:
            raise ValueError(f"the lease of {key:.200} is for another measure")
    return {
        key: replace(lease, ends=min(lease.ends, latest))
        for key, lease in leases.items()
    }
