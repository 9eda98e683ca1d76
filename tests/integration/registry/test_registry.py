"""Our schemas on a real registry."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from support.registry import subjects

from fnm_bus.avro import schema, schema_ids
from fnm_bus.avro.codec import Codec
from fnm_bus.avro.registry import Registry
from fnm_bus.errors import SchemaError
from fnm_bus.event import HostEvent, Receipt
from fnm_bus.kafka.addressing import Topics

Names = Callable[[str], str]
BAN = HostEvent(receipt=Receipt(event_id="id"), action="ban", ip="192.0.2.1")
HOST: dict[str, Any] = json.loads(schema.text("fastnetmon.HostEvent"))
OLDER = {**HOST, "fields": HOST["fields"][:-1]}
CLASHING = {
    **HOST,
    "fields": [{"name": "ip", "type": "long", "default": 0}, *HOST["fields"][:3]],
}


def events(names: Names) -> dict[str, str]:
    topics = Topics(names("host"), names("hostgroup"), names("status"))
    return dict(topics.of_events())


def ask(url: str, path: str, method: str = "GET", body: object = None) -> Any:
    """Speak to the registry without our code."""
    data = None if body is None else json.dumps(body).encode()
    header = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
    with urlopen(
        Request(url + path, data, header, method=method), timeout=10
    ) as answer:
        return json.loads(answer.read())


def put(url: str, subject: str, avro: object) -> int:
    path = f"/subjects/{subject}/versions"
    return int(ask(url, path, "POST", {"schema": json.dumps(avro)})["id"])


def test_every_subject_is_registered_with_its_schema_id(
    registry: str, topic_names: Names, tmp_path: Path
) -> None:
    wanted = events(topic_names)
    made = Registry(registry).register(wanted)
    assert sorted(made.ids) == sorted(f"{topic}-value" for topic in wanted)
    path = tmp_path / "schema-ids.json"
    made.write(path)
    again = schema_ids.read(path)
    again.check(wanted)
    for topic, full_name in wanted.items():
        number = again.ids[f"{topic}-value"]
        theirs = json.loads(ask(registry, f"/schemas/ids/{number}")["schema"])
        assert schema.fingerprint_of(theirs) == schema.fingerprint(full_name)


def test_subjects_are_set_to_full_transitive(registry: str, topic_names: Names) -> None:
    made = Registry(registry).register(events(topic_names))
    for subject in made.ids:
        level = ask(registry, f"/config/{subject}")["compatibilityLevel"]
        assert level == "FULL_TRANSITIVE"


def test_registering_again_gives_the_same_ids(
    registry: str, topic_names: Names
) -> None:
    registered = Registry(registry).register(events(topic_names))
    assert Registry(registry).register(events(topic_names)) == registered


def test_ids_of_older_versions_are_pinned_and_read(
    registry: str, topic_names: Names, tmp_path: Path
) -> None:
    topic = topic_names("host")
    number = put(registry, f"{topic}-value", OLDER)
    made = Registry(registry).register({topic: "fastnetmon.HostEvent"})
    assert made.older == {f"{topic}-value": (number,)}
    made.write(tmp_path / "ids.json")
    codec = Codec(schema_ids.read(tmp_path / "ids.json"))
    # The last field is a map that is empty here: one byte less is its older form.
    value = codec.encode(BAN, topic)
    assert codec.decode(bytes([0]) + number.to_bytes(4) + value[5:-1]) == BAN


def test_an_incompatible_subject_is_refused_by_check_and_register(
    registry: str, topic_names: Names
) -> None:
    topic = topic_names("host")
    put(registry, f"{topic}-value", CLASHING)
    wanted = {topic: "fastnetmon.HostEvent"}
    (said,) = Registry(registry).check(wanted).values()
    assert "not compatible with version 1" in said
    with pytest.raises(SchemaError, match=f"{topic}-value"):
        Registry(registry).register(wanted)


def test_checking_accepts_new_and_registered_schemas(
    registry: str, topic_names: Names
) -> None:
    wanted = events(topic_names)
    nothing = {f"{topic}-value": [] for topic in wanted}
    assert Registry(registry).check(wanted) == nothing
    assert not set(nothing) & subjects(registry)
    Registry(registry).register(wanted)
    assert Registry(registry).check(wanted) == nothing
    assert set(nothing) <= subjects(registry)


def test_a_reader_without_pins_looks_ids_up(registry: str, topic_names: Names) -> None:
    wanted = events(topic_names)
    writer = Codec(Registry(registry).register(wanted))
    reader = Codec(lookup=Registry(registry).schema_of)
    assert reader.decode(writer.encode(BAN, topic_names("host"))) == BAN


def test_an_id_that_the_registry_does_not_know_is_final(registry: str) -> None:
    with pytest.raises(SchemaError, match=r"id 2000000000: .*404"):
        Registry(registry).schema_of(2_000_000_000)


def test_with_schema_ids_a_registry_is_not_needed(
    registry: str, topic_names: Names, tmp_path: Path
) -> None:
    topic = topic_names("host")
    path = tmp_path / "ids.json"
    Registry(registry).register({topic: "fastnetmon.HostEvent"}).write(path)
    unreachable = Registry("http://127.0.0.1:1")
    codec = Codec(schema_ids.read(path), unreachable.schema_of)
    assert codec.decode(codec.encode(BAN, topic)) == BAN
