"""Packet samples (`packet_dump_detailed`): the hot spot, dozens in one document.

A sample is all or nothing: one that does not fit its record goes aside as a whole, for
half a packet misleads. FastNetMon's samples are flat; the facts that only newer
versions tell stand in the record's `flow`.
"""

from typing import Any

import msgspec
from msgspec import ValidationError

from fnm_bus.event.extra import ExtraFields, FieldMismatch, step
from fnm_bus.event.optional_fields import readers, text_fields
from fnm_bus.event.types import FlowDetails, PacketSample

_FLOW = frozenset(readers(FlowDetails))
_PLAIN = frozenset(readers(PacketSample)) - {"flow"}
_EMPTY_IS_ABSENT = text_fields(PacketSample) | text_fields(FlowDetails)
# In every sample ever seen. The record has no null for these, and absent is not zero.
_ALWAYS = _PLAIN - {"source_port", "destination_port", "tcp_flags", "agent_address"}
_READERS = {**readers(FlowDetails), **readers(PacketSample)}
_Samples = tuple[PacketSample, ...]


def samples(value: Any, path: str, aside: ExtraFields) -> _Samples:
    """Read a list of packet samples, setting aside what does not fit."""
    if value is None:
        return ()
    if type(value) is not list:
        aside.drifted(path, "a list of objects", value)
        return ()
    if set(map(type, value)) == {dict} and all(map(_quick, set(map(tuple, value)))):
        rows = [_without_empty(row) if "" in row.values() else row for row in value]
        try:
            return msgspec.convert(rows, _Samples)
        except ValidationError:
            # Which sample it was, and what it held, the slow way finds out.
            return _one_by_one(value, path, aside)
    return _one_by_one(value, path, aside)


def _quick(names: tuple[str, ...]) -> bool:
    return _PLAIN.issuperset(names) and _ALWAYS.issubset(names)


def _one_by_one(value: list[Any], path: str, aside: ExtraFields) -> _Samples:
    taken = (_sample(row, f"{path}/{i}", aside) for i, row in enumerate(value))
    return tuple(sample for sample in taken if sample is not None)


def _sample(row: Any, path: str, aside: ExtraFields) -> PacketSample | None:
    if type(row) is not dict:
        aside.drifted(path, "a packet sample", row)
        return None
    misfit = _misfit(row)
    if misfit is not None:
        name, wanted, got, _ = misfit
        aside.unknown(path, row)
        aside.note(path, f"a packet sample with {name}: {wanted}", got)
        return None
    known = _without_empty(row)
    for name in row.keys() - _PLAIN - _FLOW:
        aside.unknown(step(path, name), row[name])
    flow = {name: known[name] for name in _FLOW & known.keys()}
    plain = {name: known[name] for name in _PLAIN & known.keys()}
    return msgspec.convert({**plain, "flow": flow or None}, PacketSample)


def _misfit(row: dict[str, Any]) -> FieldMismatch | None:
    """Return the first thing in which a sample differs from its record."""
    for name in sorted(_ALWAYS - row.keys()):
        return FieldMismatch(name, "always there", "nothing")
    trial = ExtraFields()
    for name in sorted(row.keys() & (_PLAIN | _FLOW)):
        _READERS[name](row[name], name, trial)
        if trial.drift:
            return trial.drift[0]
    return None


def _without_empty(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if v != "" or k not in _EMPTY_IS_ABSENT}
