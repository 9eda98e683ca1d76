"""Snapshot: what an enforcer looks after and until when, in a file on its machine.

It is written before the system is touched, so that whoever reads it later (the enforcer
after a restart, without Kafka; the watchdog while the enforcer hangs) knows at least
everything that may stand. Ends are counted on `clock.now`; after a reboot the wall
clock has to do.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from consumers.mitigation.clock import now
from consumers.mitigation.measure import Measure
from fnm_bus import durable, hook
from fnm_bus.errors import FnmBusError

_VERSION: Final = 1


class SnapshotError(FnmBusError):
    """The snapshot cannot be written or read; the text names the file."""

    exit_code = 75


class Lease(msgspec.Struct, frozen=True):
    """One measure that stands or may stand.

    Attributes:
        measure: what is done.
        ends: when it is to be gone, in seconds of `clock.now`.
    """

    measure: Measure
    ends: float


class Snapshot(msgspec.Struct, frozen=True):
    """What an enforcer knew.

    Attributes:
        leases: key → what stands or may stand.
    """

    leases: Mapping[str, Lease]


def save(path: Path, snapshot: Snapshot) -> None:
    """Put *snapshot* into *path*; a reader sees the old one or the new one.

    Raises:
        SnapshotError: it is not certain to survive a loss of power.
    """
    data = {
        "version": _VERSION,
        "boot": hook.boot_id(),
        "boottime": now(),
        "saved_at": datetime.now(UTC),
        "snapshot": snapshot,
    }
    try:
        durable.replace(path, msgspec.json.encode(data))
    except OSError as exc:
        raise SnapshotError(f"{path}: {exc.strerror}") from exc


def load(path: Path) -> Snapshot | None:
    """Return the snapshot in *path* with ends of this boot, or None when there is none.

    Raises:
        SnapshotError: the file cannot be read, or is no snapshot.
    """
    try:
        found: Any = msgspec.json.decode(path.read_bytes())
        if found["version"] != _VERSION:
            raise SnapshotError(f"{path}: version {found['version']} is not known")
        snapshot = msgspec.convert(found["snapshot"], type=Snapshot)
        if found["boot"] == hook.boot_id():
            return snapshot
        saved = datetime.fromisoformat(found["saved_at"])
        # A clock that went back must not lengthen a lease.
        slept = max((datetime.now(UTC) - saved).total_seconds(), 0.0)
        shift = now() - float(found["boottime"]) - slept
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise SnapshotError(f"{path}: {exc.strerror}") from exc
    except (msgspec.MsgspecError, LookupError, TypeError, ValueError) as exc:
        raise SnapshotError(f"{path}: no snapshot of an enforcer: {exc}") from exc
    leases = {
        key: Lease(it.measure, it.ends + shift) for key, it in snapshot.leases.items()
    }
    return Snapshot(leases)
