"""The writers against fastavro, byte for byte."""

import json
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from typing import Any

import msgspec
import pytest
from fastavro import schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from fnm_bus import avro, schema
from fnm_bus.errors import SchemaError
from fnm_bus.event import AnyEvent, AttackDetails, HostEvent, PacketSample, Receipt

NAMED: dict[str, st.SearchStrategy[Any]] = {}
PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "string": st.text(max_size=50),
    "bytes": st.binary(max_size=50),
}
EVENTS = [
    pytest.param(full_name, event, id=f"{full_name}-{name}")
    for full_name in schema.EVENTS
    for name, event in schema.examples(full_name).items()
]
BAN = HostEvent(receipt=Receipt(), action="ban", ip="192.0.2.1")


def values(declared: Any) -> st.SearchStrategy[Any]:
    """Any value of an Avro type, in the form that events have."""
    match declared:
        case str():
            return {**PLAIN, **NAMED}[declared]
        case ["null", inner]:
            return st.none() | values(inner)
        case {"logicalType": "timestamp-micros"}:
            return st.datetimes(timezones=st.just(UTC))
        case {"type": "array", "items": items}:
            return st.lists(values(items), max_size=2).map(tuple)
        case {"type": "map", "values": it}:
            return st.dictionaries(PLAIN["string"], values(it), max_size=2)
    kind = schema.STRUCTS[f"{schema.NAMESPACE}.{declared['name']}"]
    parts = {it["name"]: values(it["type"]) for it in declared["fields"]}
    NAMED[declared["name"]] = st.builds(kind, **parts)
    return NAMED[declared["name"]]


def by_fastavro(full_name: str, event: AnyEvent) -> bytes:
    out = BytesIO()
    datum = msgspec.to_builtins(event, builtin_types=(bytes, datetime))
    schemaless_writer(out, schema.load()[full_name], datum)
    return out.getvalue()


@pytest.mark.parametrize(("full_name", "event"), EVENTS)
def test_every_example_has_the_bytes_that_fastavro_gives_it(
    full_name: str, event: AnyEvent
) -> None:
    assert avro.writer(full_name)(event) == by_fastavro(full_name, event)


@pytest.mark.parametrize("full_name", schema.EVENTS)
@settings(max_examples=40)  # drawing ninety fields is what takes the time
@given(data=st.data())
def test_any_event_has_the_bytes_that_fastavro_gives_it(
    full_name: str, data: st.DataObject
) -> None:
    event = data.draw(values(json.loads(schema.text(full_name))))
    assert avro.writer(full_name)(event) == by_fastavro(full_name, event)


@pytest.mark.parametrize("full_name", schema.STRUCTS)
def test_the_fields_of_a_value_stand_in_the_order_of_its_schema(full_name: str) -> None:
    declared = [it["name"] for it in schema._declared(full_name)["fields"]]
    assert list(schema.STRUCTS[full_name].__struct_fields__) == declared


@pytest.mark.parametrize(
    "number", [0, -1, 63, 64, -64, -65, 4095, 4096, 2**31, 2**63 - 1, -(2**63)]
)
def test_numbers_are_the_same_the_first_time_and_from_the_table(number: int) -> None:
    event = msgspec.structs.replace(BAN, receipt=Receipt(sequence=number))
    write = avro.writer("fastnetmon.HostEvent")
    assert write(event) == write(event) == by_fastavro("fastnetmon.HostEvent", event)


def test_a_table_of_texts_that_is_full_begins_anew() -> None:
    table = avro._Texts()
    for number in range(5 * avro._KEPT):
        text = f"text {number}"
        assert table[text] == bytes([2 * len(text)]) + text.encode()
    assert len(table) <= avro._KEPT


def detailed(**details: Any) -> HostEvent:
    return msgspec.structs.replace(BAN, attack_details=AttackDetails(**details))


def sampled(**parts: Any) -> HostEvent:
    return msgspec.structs.replace(BAN, packet_dump_detailed=(PacketSample(**parts),))


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (
            detailed(total_incoming_pps=2**63),
            "attack_details: total_incoming_pps: 9223372036854775808 has more than 64",
        ),
        (detailed(total_incoming_pps=-(2**63) - 1), "has more than 64 bits"),
        (detailed(total_incoming_pps=1.5), "total_incoming_pps: "),
        (detailed(total_incoming_pps="1"), "total_incoming_pps: "),
        (detailed(attack_uuid=b"bytes"), "attack_uuid: "),
        (detailed(attack_uuid="\ud800"), "attack_uuid: .*surrogates not allowed"),
        (sampled(ttl=2**31), "packet_dump_detailed: ttl: 2147483648 has more than 32"),
        (sampled(source_port=-(2**31) - 1), "source_port: .* more than 32 bits"),
        (msgspec.structs.replace(BAN, ip=None), "ip: wanted a value, got None"),
        (msgspec.structs.replace(BAN, truncated="yes"), "truncated: 'yes'"),
        (msgspec.structs.replace(BAN, receipt=None), "receipt: "),
        (
            msgspec.structs.replace(
                BAN,
                receipt=Receipt(received_at=datetime(2026, 1, 1)),  # noqa: DTZ001 - bad
            ),
            "receipt: received_at: .*offset-naive",
        ),
        (msgspec.structs.replace(BAN, extra={"/a": "\udfff"}), "extra: "),
        (msgspec.structs.replace(BAN, packet_dump=(1,)), "packet_dump: "),
    ],
)
def test_what_avro_cannot_hold_is_refused_by_the_name_of_its_field(
    event: HostEvent, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        avro.writer("fastnetmon.HostEvent")(event)


def test_a_time_before_1970_and_of_another_zone_is_the_same_instant() -> None:
    utc = datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)
    east = utc.astimezone(timezone(timedelta(hours=5, minutes=45)))
    first, second = (
        msgspec.structs.replace(BAN, receipt=Receipt(received_at=it))
        for it in (utc, east)
    )
    full_name = "fastnetmon.HostEvent"
    assert avro.writer(full_name)(second) == by_fastavro(full_name, first)


@pytest.mark.parametrize(
    "declared",
    [
        "float",
        ["string", "long"],
        {"type": "enum", "name": "E", "symbols": ["A"]},
        {"type": "long", "logicalType": "timestamp-millis"},
        {"type": "record", "name": "R", "fields": [{"name": "f", "type": "double"}]},
    ],
)
def test_a_type_that_our_schemas_do_not_use_is_refused(declared: Any) -> None:
    with pytest.raises(SchemaError, match="no writer for"):
        avro._writer(declared, {})


def test_an_unknown_record_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"acme\.Order"):
        avro.writer("acme.Order")
