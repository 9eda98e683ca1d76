import json
import struct
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from io import BytesIO

import msgspec
import pytest
from fastavro import schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from fnm_bus.avro import codec as codec_module
from fnm_bus.avro import schema
from fnm_bus.avro.codec import Codec
from fnm_bus.avro.examples import example_records
from fnm_bus.avro.schema_ids import SchemaIds
from fnm_bus.errors import InvalidRecord, RegistryError, SchemaError
from fnm_bus.event import AnyRecord, AttackDetails, HostEvent, PacketSample, Receipt
from fnm_bus.kafka.addressing import Topics

TOPIC = "fastnetmon.host.v1"
WANTED = Topics().of_events()
EXAMPLES = [
    pytest.param(event, id=f"{full_name}-{name}")
    for full_name in schema.RECORDS
    for name, event in example_records(full_name).items()
]
BAN = HostEvent(receipt=Receipt(event_id="id"), action="ban", ip="192.0.2.1")


def ban_with(**changes: object) -> HostEvent:
    return msgspec.structs.replace(BAN, **changes)


def pinned(wanted: Mapping[str, str] = WANTED) -> SchemaIds:
    """Return the ids of records, whose full names are the values of *wanted*."""
    ids = {f"{topic}-value": 100 + n for n, topic in enumerate(wanted)}
    texts = {100 + n: schema.text(name) for n, name in enumerate(wanted.values())}
    return SchemaIds("http://registry", ids, {}, texts)


@pytest.mark.parametrize("event", EXAMPLES)
def test_a_single_object_is_decoded_unchanged(event: AnyRecord) -> None:
    codec = Codec()
    value = codec.encode(event, TOPIC)
    assert value[:2] == b"\xc3\x01"
    assert codec.decode(value) == event


def test_with_schema_ids_an_event_has_confluents_framing() -> None:
    codec = Codec(pinned())
    value = codec.encode(BAN, TOPIC)
    assert value[:5] == bytes([0, 0, 0, 0, 100])
    assert codec.decode(value) == BAN


def test_a_codec_decodes_both_framings() -> None:
    codec = Codec(pinned())
    assert codec.decode(Codec().encode(BAN, TOPIC)) == BAN
    assert codec.decode(codec.encode(BAN, TOPIC)) == BAN


def framed() -> SchemaIds:
    """The ids of `fnm-bus schemas register`."""
    return pinned(Topics().of_framed())


def example(name: str) -> AnyRecord:
    return next(iter(example_records(f"fastnetmon.{name}").values()))


OPTIONAL = [("Audit", Topics().audit), ("DeadLetter", Topics().deadletter)]


@pytest.mark.parametrize(("name", "topic"), OPTIONAL)
def test_a_record_with_a_schema_id_has_confluents_framing(
    name: str, topic: str
) -> None:
    codec = Codec(framed())
    value = codec.encode(example(name), topic)
    assert value[:4] == bytes(4)
    assert value[4] == framed().ids[f"{topic}-value"]
    assert codec.decode(value) == example(name)


def with_an_id_of_another_version() -> SchemaIds:
    texts = {number: schema.text("fastnetmon.Command") for number in framed().schemas}
    return SchemaIds("http://registry", framed().ids, {}, texts)


@pytest.mark.parametrize("pins", [pinned(), with_an_id_of_another_version()])
@pytest.mark.parametrize(("name", "topic"), OPTIONAL)
def test_without_a_fitting_id_a_warning_is_logged_once(
    name: str, topic: str, pins: SchemaIds, caplog: pytest.LogCaptureFixture
) -> None:
    codec = Codec(pins)
    values = [codec.encode(example(name), topic) for _ in range(3)]
    assert {value[:2] for value in values} == {b"\xc3\x01"}
    (warning,) = caplog.records
    assert f"'topic': '{topic}'" in warning.getMessage()
    assert "fnm-bus schemas register" in warning.getMessage()


def test_without_a_registry_no_warning_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, topic in OPTIONAL:
        assert Codec().encode(example(name), topic)[:2] == b"\xc3\x01"
    assert caplog.records == []


@pytest.mark.parametrize("name", ["Mitigation", "Command"])
def test_the_end_of_a_block_depends_on_no_registry(name: str) -> None:
    topic = f"fastnetmon.{name.lower()}.v1"
    ids = {**framed().ids, f"{topic}-value": 999}
    texts = {**framed().schemas, 999: schema.text(f"fastnetmon.{name}")}
    codec = Codec(SchemaIds("http://registry", ids, {}, texts))
    assert codec.encode(example(name), topic).startswith(b"\xc3\x01")


def test_a_topic_without_a_schema_id_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"other-value.*schemas register"):
        Codec(pinned()).encode(BAN, "other")


def older() -> str:
    """The schema of an older writer, without `truncated`."""
    avro = json.loads(schema.text("fastnetmon.HostEvent"))
    avro["fields"] = [field for field in avro["fields"] if field["name"] != "truncated"]
    return json.dumps(avro)


def written_by(text: str, event: HostEvent) -> bytes:
    out = BytesIO()
    out.write(bytes([0, 0, 0, 0, 7]))
    datum = msgspec.to_builtins(event, builtin_types=(bytes, datetime))
    schemaless_writer(out, schema.parse(text), datum)
    return out.getvalue()


def test_an_older_record_gets_our_defaults() -> None:
    codec = Codec(lookup=lambda _number: older())
    assert codec.decode(written_by(older(), BAN)) == BAN


def test_a_schema_is_looked_up_once() -> None:
    asked: list[int] = []

    def lookup(number: int) -> str:
        asked.append(number)
        return older()

    codec = Codec(lookup=lookup)
    for _ in range(3):
        codec.decode(written_by(older(), BAN))
    assert asked == [7]


FOREIGN = '{"type": "record", "name": "acme.Order", "fields": []}'
WHOLE = Codec().encode(BAN, TOPIC)
WHOLES = [
    Codec().encode(event, TOPIC)
    for full_name in schema.RECORDS
    for event in example_records(full_name).values()
]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b'{"action": "ban"}', "neither.*plain text"),
        (b"\xff\xd8", "neither.*2 bytes that begin with ff d8"),
        (b"\xc3\x01short", "neither"),
        (b"\x00\x00\x00", "neither"),
        (b"\xc3\x01" + bytes(8) + b"rest", "unknown fingerprint 0000000000000000"),
        (bytes([0, 0, 0, 0, 9]) + b"rest", "id 9, which is not pinned"),
        (WHOLE[:-3], "not a whole"),
        (WHOLE + b"more", "4 bytes follow"),
        (WHOLE[:10] + b"\xff" * 40, "not a whole"),
        (WHOLE[:10], "not a whole"),
    ],
)
def test_an_invalid_value_is_refused_and_described(
    value: bytes | None, reason: str
) -> None:
    with pytest.raises(InvalidRecord, match=reason):
        Codec().decode(value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (FOREIGN, "id 9, which is acme.Order and none of fastnetmon.HostEvent"),
        ("no schema at all", "id 9: not an Avro schema"),
        ('"string"', "id 9, which is no record"),
        ('["null", "string"]', "id 9, which is no record"),
        ("7", "id 9: not an Avro schema"),
        ("{}", "id 9: not an Avro schema"),
        ("[" * 100_000, "id 9: not an Avro schema"),
        (schema.text("fastnetmon.PacketSample"), "id 9, which is fastnetmon.Packet"),
    ],
)
def test_an_id_of_a_foreign_schema_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidRecord, match=reason):
        Codec(lookup=lambda _number: text).decode(bytes([0, 0, 0, 0, 9, 1]))


def differing(change: Mapping[str, object]) -> str:
    avro = json.loads(schema.text("fastnetmon.HostEvent"))
    fields = [
        {**field, **change} if field["name"] == "ip" else field
        for field in avro["fields"]
    ]
    return json.dumps({**avro, "fields": fields})


def test_an_incompatible_schema_is_refused() -> None:
    codec = Codec(lookup=lambda _number: differing({"type": "long", "default": 0}))
    with pytest.raises(InvalidRecord, match="not a whole"):
        codec.decode(bytes([0, 0, 0, 0, 9]) + WHOLE[10:])


def test_an_unreachable_registry_is_not_the_record_s_fault() -> None:
    def lookup(number: int) -> str:
        raise RegistryError(f"no answer for {number}")

    with pytest.raises(RegistryError, match="no answer for 9"):
        Codec(lookup=lookup).decode(bytes([0, 0, 0, 0, 9, 1]))


def test_an_unknown_id_is_the_record_s_fault() -> None:
    def lookup(number: int) -> str:
        raise SchemaError(f"{number} is unknown")

    with pytest.raises(InvalidRecord, match="id 9: 9 is unknown"):
        Codec(lookup=lookup).decode(bytes([0, 0, 0, 0, 9, 1]))


@given(st.binary(max_size=400))
def test_bytes_after_a_header_are_decoded_or_refused(body: bytes) -> None:
    for full_name in schema.RECORDS:
        value = b"\xc3\x01" + schema.fingerprint(full_name) + body
        with suppress(InvalidRecord):
            assert isinstance(Codec().decode(value), schema.STRUCTS[full_name])


@given(st.sampled_from(WHOLES), st.integers(0), st.binary(min_size=1, max_size=9))
def test_a_damaged_record_is_decoded_or_refused(
    whole: bytes, place: int, fault: bytes
) -> None:
    place = 10 + place % (len(whole) - 10)
    with suppress(InvalidRecord):
        again = Codec().decode(whole[:place] + fault + whole[place + len(fault) :])
        # A decoded value can be encoded.
        assert Codec().decode(Codec().encode(again, TOPIC)) == again


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (ban_with(ip="half a pair \ud800"), "surrogates not allowed"),
        (ban_with(ip=None), "on field ip"),
        (ban_with(receipt=Receipt(sequence=2**63)), "too large"),
        (
            ban_with(attack_details=AttackDetails(total_incoming_pps=2**63)),
            "incoming_pps",
        ),
        (
            ban_with(packet_dump_detailed=(PacketSample(source_port=2**31),)),
            "source_port",
        ),
        (ban_with(packet_dump=(1,)), "on field packet_dump"),
    ],
)
def test_a_value_outside_of_avro_is_refused_by_encode(
    event: HostEvent, reason: str
) -> None:
    with pytest.raises(InvalidRecord, match=f"does not fit its schema.*{reason}"):
        Codec().encode(event, TOPIC)


def test_a_sequence_above_javascript_s_limit_is_invalid() -> None:
    largest = ban_with(receipt=Receipt(sequence=2**53 - 1))
    assert Codec().decode(Codec().encode(largest, TOPIC)) == largest
    value = Codec().encode(ban_with(receipt=Receipt(sequence=2**53)), TOPIC)
    with pytest.raises(InvalidRecord, match="sequence"):
        Codec().decode(value)


@pytest.mark.parametrize("event", EXAMPLES)
def test_hints_change_no_byte(event: AnyRecord) -> None:
    full_name = f"fastnetmon.{type(event).__name__}"
    plain = BytesIO()
    datum = msgspec.to_builtins(event, builtin_types=(bytes, datetime))
    schemaless_writer(plain, schema.load()[full_name], datum)
    assert Codec().encode(event, TOPIC)[10:] == plain.getvalue()


@pytest.mark.parametrize(
    "error", [RecursionError, OverflowError, struct.error, KeyError]
)
def test_any_error_of_a_damaged_record_is_invalid_record(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def broken(*_: object) -> None:
        raise error("a timestamp")

    value = Codec().encode(BAN, TOPIC)
    monkeypatch.setattr(codec_module, "schemaless_reader", broken)
    with pytest.raises(InvalidRecord, match=rf"{error.__name__}.*a timestamp"):
        Codec().decode(value)
