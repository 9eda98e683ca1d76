"""Packet samples (`packet_dump_detailed`): the hot spot, dozens in one document.

A sample that does not fit its record goes to `extra` as a whole, since half a packet
misleads. FastNetMon's samples are flat; the event has the fields of newer versions in
the record's `flow`.
"""

from typing import Any

import msgspec
from msgspec import ValidationError

from fnm_bus.event.extra import ExtraFields, FieldMismatch, child_pointer
from fnm_bus.event.optional_fields import field_readers, text_fields
from fnm_bus.event.types import FlowDetails, PacketSample

_FLOW = frozenset(field_readers(FlowDetails))
_PLAIN = frozenset(field_readers(PacketSample)) - {"flow"}
_EMPTY_IS_ABSENT = text_fields(PacketSample) | text_fields(FlowDetails)
# In every sample seen so far. The record has no null for these, and absent is not zero.
_REQUIRED = _PLAIN - {"source_port", "destination_port", "tcp_flags", "agent_address"}
_READERS = {**field_readers(FlowDetails), **field_readers(PacketSample)}
_Samples = tuple[PacketSample, ...]


def read_samples(value: Any, path: str, extra: ExtraFields) -> _Samples:
    """Convert a list of packet samples; misfit samples go to *extra*."""
    if value is None:
        return ()
    if type(value) is not list:
        extra.add_misfit(path, "a list of objects", value)
        return ()
    if set(map(type, value)) == {dict} and all(
        map(_fits_fast_path, set(map(tuple, value)))
    ):
        rows = [_without_empty(row) if "" in row.values() else row for row in value]
        try:
            return msgspec.convert(rows, _Samples)
        except ValidationError:
            pass  # msgspec does not name each misfit sample
    samples = (
        _read_sample(row, f"{path}/{index}", extra) for index, row in enumerate(value)
    )
    return tuple(sample for sample in samples if sample is not None)


def _fits_fast_path(names: tuple[str, ...]) -> bool:
    return _PLAIN.issuperset(names) and _REQUIRED.issubset(names)


def _read_sample(row: Any, path: str, extra: ExtraFields) -> PacketSample | None:
    if type(row) is not dict:
        extra.add_misfit(path, "a packet sample", row)
        return None
    mismatch = _first_mismatch(row)
    if mismatch is not None:
        name, expected, actual, _ = mismatch
        extra.add_unknown(path, row)
        extra.add_mismatch(path, f"a packet sample with {name}: {expected}", actual)
        return None
    for name in row.keys() - _PLAIN - _FLOW:
        extra.add_unknown(child_pointer(path, name), row[name])
    fields = _without_empty(row)
    flow = {name: fields[name] for name in _FLOW & fields.keys()}
    plain = {name: fields[name] for name in _PLAIN & fields.keys()}
    return msgspec.convert({**plain, "flow": flow or None}, PacketSample)


def _first_mismatch(row: dict[str, Any]) -> FieldMismatch | None:
    """Return the first field in which a sample does not fit its record."""
    for name in sorted(_REQUIRED - row.keys()):
        return FieldMismatch(name, "always there", "nothing")
    extra = ExtraFields()
    for name in sorted(row.keys() & (_PLAIN | _FLOW)):
        _READERS[name](row[name], name, extra)
        if extra.mismatches:
            return extra.mismatches[0]
    return None


def _without_empty(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if v != "" or k not in _EMPTY_IS_ABSENT}
