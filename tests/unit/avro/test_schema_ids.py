import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from fnm_bus.avro import schema, schema_ids
from fnm_bus.avro.codec import Codec
from fnm_bus.avro.schema_ids import SchemaIds
from fnm_bus.errors import SchemaError
from fnm_bus.event import HostEvent, Receipt
from fnm_bus.kafka.addressing import Topics

TOPIC = "fastnetmon.host.v1"
SUBJECT = f"{TOPIC}-value"
WANTED = Topics().of_events()
BAN = HostEvent(receipt=Receipt(event_id="id"), action="ban", ip="192.0.2.1")
HOST = json.loads(schema.text("fastnetmon.HostEvent"))
OLDER = {**HOST, "fields": HOST["fields"][:-1]}
FOREIGN = {"type": "record", "name": "acme.Order", "fields": []}


def pinned() -> SchemaIds:
    ids = {f"{topic}-value": 100 + n for n, topic in enumerate(WANTED)}
    texts = {100 + n: schema.text(name) for n, name in enumerate(WANTED.values())}
    texts[7] = json.dumps(OLDER)
    return SchemaIds("http://registry", ids, {SUBJECT: (7,)}, texts)


def test_ids_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "made" / "schema-ids.json"
    pinned().write(path)
    again = schema_ids.read(path)
    assert again.ids == pinned().ids
    assert again.older[SUBJECT] == (7,)
    assert again.registry == "http://registry"
    again.check(WANTED)
    assert Codec(again).decode(Codec(again).encode(BAN, TOPIC)) == BAN


def test_the_file_is_readable_for_all_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "schema-ids.json"
    pinned().write(path)
    pinned().write(path)
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_path_is_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SchemaError, match="file"):
        pinned().write(tmp_path / "file" / "schema-ids.json")


def test_a_schema_in_another_json_form_is_ours(tmp_path: Path) -> None:
    # Registries may drop docs and sort keys; the canonical form stays.
    plain = json.loads(json.dumps(HOST, sort_keys=True))
    plain["fields"] = [
        {key: value for key, value in part.items() if key != "doc"}
        for part in plain["fields"]
    ]
    path = tmp_path / "schema-ids.json"
    path.write_text(broken({"schemas": {"1": plain}}))
    schema_ids.read(path).check({TOPIC: "fastnetmon.HostEvent"})


def broken(change: Mapping[str, object]) -> str:
    good: dict[str, object] = {
        "version": 1,
        "registry": "http://registry",
        "subjects": {SUBJECT: {"id": 1, "older": []}},
        "schemas": {"1": HOST},
    }
    return json.dumps({**good, **change})


def with_older(*older: int, number: object = 1) -> dict[str, object]:
    return {"subjects": {SUBJECT: {"id": number, "older": older}}}


STATUS = json.loads(schema.text("fastnetmon.StatusEvent"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "truncated"),
        ("{", "truncated"),
        ("[]", "Expected `object`"),
        ("\xff", "malformed"),
        (broken({"version": 2}), "version 2, wanted 1"),
        (broken({"surprise": 1}), "surprise"),
        (broken({"subjects": {SUBJECT: {"id": 1, "surprise": 1}}}), "surprise"),
        (broken({"subjects": {SUBJECT: {}}}), "missing required field `id`"),
        (broken(with_older(number=0)), f"{SUBJECT}: id 0, wanted 1 to 2147483647"),
        (broken(with_older(number=-1)), "id -1, wanted 1 to"),
        (broken(with_older(number=2**31)), "id 2147483648, wanted 1 to"),
        (broken(with_older(number="1")), "Expected `int`"),
        (broken(with_older(number=True)), "Expected `int`"),
        (broken(with_older(number=1.5)), "Expected `int`"),
        (broken(with_older(0)), "id 0, wanted"),
        (broken(with_older(number=5)), "the schema of id 5 is missing"),
        (broken(with_older(5)), "the schema of id 5 is missing"),
        (broken({"schemas": {"one": HOST}}), "schemas"),
        (broken({"schemas": {"1": FOREIGN}}), "id 1 is of a foreign schema"),
        (broken({"schemas": {"1": "string"}}), "id 1 is of a foreign schema"),
        (broken({"schemas": {"1": {"type": "nonsense"}}}), "id 1: not an Avro schema"),
        (
            broken({**with_older(2), "schemas": {"1": HOST, "2": STATUS}}),
            r"id 2 is of fastnetmon.StatusEvent, id 1 of fastnetmon.HostEvent",
        ),
    ],
)
def test_a_damaged_file_is_refused_with_path_and_remedy(
    tmp_path: Path, text: str, reason: str
) -> None:
    path = tmp_path / "schema-ids.json"
    path.write_text(text, "latin-1")
    with pytest.raises(SchemaError, match=reason) as error:
        schema_ids.read(path)
    assert str(path) in str(error.value)
    assert "fnm-bus schemas register" in str(error.value)


def test_a_missing_file_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"none\.json: No such .*schemas register"):
        schema_ids.read(tmp_path / "none.json")


@pytest.mark.parametrize("avro", [STATUS, OLDER], ids=["other", "older"])
def test_an_id_of_another_schema_is_refused_by_check(avro: dict[str, object]) -> None:
    wrong = SchemaIds("", {SUBJECT: 100}, {}, {100: json.dumps(avro)})
    with pytest.raises(SchemaError, match=r"id 100 .* another schema"):
        wrong.check({TOPIC: "fastnetmon.HostEvent"})


def test_a_subject_without_an_id_is_refused_by_check() -> None:
    with pytest.raises(SchemaError, match="no schema id is pinned"):
        SchemaIds("", {}, {}, {}).check(WANTED)
