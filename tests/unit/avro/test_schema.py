"""The schemas: self-contained, with fingerprints, without fastavro at import."""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fastavro.schema import parse_schema

from fnm_bus.avro import schema
from fnm_bus.errors import SchemaError
from fnm_bus.event import AttackDetails, HostEvent, PacketSample, Receipt


def declared(avro: Any) -> Iterator[str]:
    """Yield the name of each record that is declared inside a type."""
    match avro:
        case {"type": "record"}:
            yield avro["name"]
            for field in avro["fields"]:
                yield from declared(field["type"])
        case list():
            for part in avro:
                yield from declared(part)
        case {"items": inner} | {"values": inner}:
            yield from declared(inner)


@pytest.mark.parametrize("name", schema.RECORDS)
def test_a_text_is_self_contained(name: str) -> None:
    parse_schema(json.loads(schema.text(name)))


@pytest.mark.parametrize("name", schema.RECORDS)
def test_a_text_declares_each_type_once(name: str) -> None:
    names = list(declared(json.loads(schema.text(name))))

    assert len(names) == len(set(names))


def texts(avro: Any) -> Iterator[str]:
    """Yield each key and each text of a parsed schema."""
    match avro:
        case str():
            yield avro
        case list():
            for part in avro:
                yield from texts(part)
        case dict():
            for key, value in avro.items():
                yield key
                yield from texts(value)


@pytest.mark.parametrize("name", schema.RECORDS)
def test_a_parsed_schema_has_interned_texts_only(name: str) -> None:
    assert all(text is sys.intern(text) for text in texts(schema.load()[name]))


def test_a_text_keeps_the_docs() -> None:
    whole = json.loads(schema.text("fastnetmon.HostEvent"))

    assert all(field["doc"] for field in whole["fields"])


@pytest.mark.parametrize("name", ["fastnetmon.Nothing", "HostEvent", "", "../x"])
def test_an_unknown_schema_is_a_schema_error(name: str) -> None:
    with pytest.raises(SchemaError, match="no schema"):
        schema.text(name)


@pytest.mark.parametrize("bad", ["{", '{"type": "record"}', '"nonsense"', '{"a": 1}'])
def test_an_invalid_schema_is_a_schema_error(bad: str) -> None:
    with pytest.raises(SchemaError, match="not an Avro schema"):
        schema.parse(bad)


def test_a_fingerprint_is_little_endian_crc_64_avro() -> None:
    # The specification gives the fingerprint of "int" as 7275d51a3f395c8f.
    assert schema.fingerprint_of("int") == bytes.fromhex("8f5c393f1ad57572")


def test_every_record_has_a_fingerprint_of_its_own() -> None:
    prints = {schema.fingerprint(name) for name in schema.RECORDS}

    assert len(prints) == len(schema.RECORDS)
    assert {len(value) for value in prints} == {8}


def test_load_has_exactly_the_records_of_the_topics() -> None:
    assert tuple(schema.load()) == schema.RECORDS


def test_released_schemas_have_their_fingerprint_as_key() -> None:
    for fingerprint, released in schema.released().items():
        assert schema.fingerprint_of(released) == fingerprint


def test_missing_released_schemas_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "data_directory", tmp_path.joinpath)
    schema.released.cache_clear()

    with pytest.raises(SchemaError, match="no schemas of the releases"):
        schema.released()


def test_every_schema_file_has_a_type() -> None:
    files = Path(__file__).parents[3].glob("schemas/avro/*.avsc")

    assert {file.stem for file in files} == set(schema.STRUCTS)


def test_an_installed_package_reads_its_own_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "schemas" / "avro"
    copy.mkdir(parents=True)
    (copy / "fastnetmon.Own.avsc").write_text('{"name": "Own", "fields": []}')
    monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path)

    assert json.loads(schema.text("fastnetmon.Own")) == {"name": "Own", "fields": []}


def test_an_event_cannot_be_changed() -> None:
    event = HostEvent(receipt=Receipt(), packet_dump=("a",))

    with pytest.raises(AttributeError):
        event.action = "unban"  # type: ignore[misc]


def test_an_event_needs_a_receipt() -> None:
    with pytest.raises(msgspec.ValidationError, match="receipt"):
        msgspec.convert({"action": "ban"}, type=HostEvent)


def test_absent_is_not_zero() -> None:
    details = msgspec.convert({"total_incoming_pps": 0}, type=AttackDetails)

    assert details.total_incoming_pps == 0
    assert details.total_outgoing_pps is None


@pytest.mark.parametrize("bad", [-1, 2**63, 2**70, True, 1.0, "1", [1]])
def test_a_counter_accepts_rates_only(bad: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"total_incoming_pps": bad}, type=AttackDetails)


@pytest.mark.parametrize(
    ("field", "bad"),
    [("source_port", 65536), ("ttl", 256), ("ttl", None), ("fragmentation", 0)],
)
def test_a_packet_sample_refuses_impossible_values(field: str, bad: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({field: bad}, type=PacketSample)


def test_a_time_has_a_zone() -> None:
    assert Receipt().received_at == datetime(1970, 1, 1, tzinfo=UTC)
