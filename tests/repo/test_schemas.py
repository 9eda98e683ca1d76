"""The schemas as a contract: fresh, exemplified, compatible with every release."""

import copy
import hashlib
import io
import ipaddress
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any, cast, get_args

import msgspec
import pytest
from fastavro import schemaless_reader, schemaless_writer
from fastavro.schema import to_parsing_canonical_form

from fnm_bus import __version__
from fnm_bus.avro import schema
from fnm_bus.avro.examples import ExampleCall, example_calls, example_records
from fnm_bus.errors import InvalidNotification
from fnm_bus.event import AnyRecord, DeadLetter, Receipt
from fnm_bus.event.parse import parse

ROOT = Path(__file__).parents[2]
AVRO = ROOT / "schemas" / "avro"
EXAMPLES = [(name, title) for name in schema.RECORDS for title in example_records(name)]
DOCUMENTATION = [
    ipaddress.ip_network(text)
    for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]

Schema = dict[str, Any]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def datum(event: AnyRecord) -> Any:
    return msgspec.to_builtins(event, builtin_types=(bytes, datetime))


def encode(event: AnyRecord, avro: Schema) -> bytes:
    buffer = io.BytesIO()
    schemaless_writer(buffer, avro, datum(event))
    return buffer.getvalue()


def test_the_generated_files_are_fresh() -> None:
    done = run("schemas/generate.py", "--check")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["fnm_bus/event/types.py", "docs/reference/events.md"])
def test_a_stale_file_is_named(name: str, tmp_path: Path) -> None:
    for part in ("schemas/generate.py", "schemas/reference.py", name):
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
    for part in ("generate.py", "reference.py"):
        (tmp_path / "schemas" / part).write_text((ROOT / "schemas" / part).read_text())
    (tmp_path / "schemas" / "avro").symlink_to(AVRO)
    assert run(str(tmp_path / "schemas" / "generate.py")).returncode == 0
    with (tmp_path / name).open("a") as file:
        file.write("by hand\n")
    done = run(str(tmp_path / "schemas" / "generate.py"), "--check")
    assert done.returncode == 1
    assert done.stderr.startswith(f"{name} is stale")


def test_the_program_and_the_generator_name_the_same_records() -> None:
    names = {f"{schema.NAMESPACE}.{kind.__name__}" for kind in get_args(AnyRecord)}
    assert names == set(schema.RECORDS)


def test_every_schema_is_used_by_a_record_of_a_topic(compatibility: ModuleType) -> None:
    used = set[str]()
    for name in schema.RECORDS:
        used |= compatibility.records(json.loads(schema.text(name))).keys()
    assert {file.stem for file in AVRO.glob("*.avsc")} == used


def test_a_file_name_is_the_full_name() -> None:
    for file in AVRO.glob("*.avsc"):
        declared = json.loads(file.read_text())
        assert file.stem == f"{declared['namespace']}.{declared['name']}"


def test_the_reference_has_every_field() -> None:
    text = (ROOT / "docs" / "reference" / "events.md").read_text()
    for file in AVRO.glob("*.avsc"):
        declared = json.loads(file.read_text())
        chapter = text.split(f"\n## {declared['name']}\n")[1].split("\n## ")[0]
        fields = [field["name"] for field in declared["fields"]]
        assert re.findall(r"^\| `(\w+)` \|", chapter, re.MULTILINE) == fields


def test_every_counter_names_its_unit() -> None:
    details = json.loads((AVRO / "fastnetmon.AttackDetails.avsc").read_text())
    units = {
        "_traffic": "bytes/s",
        "_traffic_bits": "bits/s",
        "_pps": "packets/s",
        "_flows": "flows/s",
        "_power": "packets/s",
    }
    for field in details["fields"]:
        if field["type"] == ["null", "long"]:
            unit = next(units[end] for end in units if field["name"].endswith(end))
            assert f"in {unit}" in field["doc"], field["name"]


@pytest.mark.parametrize(("name", "what"), EXAMPLES)
def test_a_decoded_example_equals_its_source(name: str, what: str) -> None:
    event = example_records(name)[what]
    avro = schema.load()[name]
    got = schemaless_reader(io.BytesIO(encode(event, avro)), avro, None)
    assert msgspec.convert(got, type=schema.STRUCTS[name]) == event


@pytest.mark.parametrize(("name", "what"), EXAMPLES)
def test_an_example_holds_its_event_and_nothing_else(name: str, what: str) -> None:
    written = json.loads((AVRO / "examples" / name / f"{what}.json").read_text())
    whole = msgspec.to_builtins(example_records(name)[what])
    assert not list(unknown(written, whole))


def unknown(written: Any, whole: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of an example that its event does not have."""
    match written, whole:
        case dict(), dict():
            for key in written:
                if key in whole:
                    yield from unknown(written[key], whole[key], f"{path}/{key}")
                else:
                    yield f"{path}/{key}"
        case list(), list() | tuple():
            for index, pair in enumerate(zip(written, whole, strict=True)):
                yield from unknown(*pair, f"{path}/{index}")
        case _ if written != whole:
            yield path


def test_every_record_has_an_example() -> None:
    assert {name for name, _ in EXAMPLES} == set(schema.RECORDS)


def test_every_field_has_a_value_in_some_example() -> None:
    seen = set[tuple[str, str]]()

    def walk(value: object) -> None:
        if isinstance(value, msgspec.Struct):
            kind = type(value).__name__
            for field in msgspec.structs.fields(value):
                part = getattr(value, field.name)
                if part not in (None, (), {}, ""):
                    seen.add((kind, field.name))
                walk(part)
        elif isinstance(value, tuple):
            for part in value:
                walk(part)
        elif isinstance(value, dict):
            walk(tuple(value.values()))

    for name, example in EXAMPLES:
        walk(example_records(name)[example])
    fields = {
        (kind.__name__, field)
        for kind in schema.STRUCTS.values()
        for field in kind.__struct_fields__
    }

    # No FastNetMon is known that sends any of these.
    unsent = {
        (event, field)
        for event in ("HostgroupEvent", "StatusEvent")
        for field in ("packet_dump", "packet_dump_detailed", "flow_spec_rules", "extra")
    }
    assert fields - seen == unsent


@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("fastnetmon.HostEvent", "ban"),
        ("fastnetmon.HostEvent", "unban"),
        ("fastnetmon.HostEvent", "partial_block"),
        ("fastnetmon.HostEvent", "partial_unblock"),
        ("fastnetmon.HostEvent", "attack_details"),
        ("fastnetmon.HostgroupEvent", "ban"),
        ("fastnetmon.HostgroupEvent", "unban"),
        ("fastnetmon.StatusEvent", "attack_status"),
    ],
)
def test_every_kind_of_event_has_an_example(name: str, action: str) -> None:
    assert action in {
        event.action
        for event in example_records(name).values()
        if hasattr(event, "action")
    }


def test_every_notification_is_played_once() -> None:
    directory = AVRO / "examples" / "notifications"
    index = json.loads((directory / "index.json").read_text())
    played = [call["document"] for call in index if call["document"]]
    assert sorted(played) == sorted(
        file.name for file in directory.iterdir() if file.name != "index.json"
    )


def test_every_example_that_a_notification_can_make_is_played() -> None:
    played = {(call.full_name, call.name) for call in example_calls()}
    kinds = ("Mitigation", "Reason", "Command", "Audit")
    ours = {f"fastnetmon.{name}" for name in kinds}
    assert {example for example in EXAMPLES if example[0] not in ours} - played == {
        ("fastnetmon.HostEvent", "ban-truncated"),  # the document would be 1 MB
        ("fastnetmon.DeadLetter", "notification"),
        ("fastnetmon.DeadLetter", "record"),
    }


@pytest.mark.parametrize("call", example_calls(), ids=lambda call: call.name)
def test_a_receipt_describes_its_notification(call: ExampleCall) -> None:
    receipt = cast("Any", call.event).receipt
    digest = hashlib.sha256(call.document).hexdigest()
    assert receipt.raw_digest == f"sha256:{digest}"
    assert receipt.raw_size == len(call.document)
    assert receipt.arguments == call.arguments


@pytest.mark.parametrize("call", example_calls(), ids=lambda call: call.name)
def test_a_notification_becomes_its_event(call: ExampleCall) -> None:
    receipt = cast("Any", call.event).receipt
    assert parse(call.document, call.arguments, receipt).event == call.event


def test_a_dead_letter_gives_the_parsers_reason() -> None:
    letter = cast(
        "DeadLetter", example_records("fastnetmon.DeadLetter")["notification"]
    )
    with pytest.raises(InvalidNotification) as caught:
        parse(letter.head, letter.arguments, Receipt())
    assert caught.value.as_dict() == {
        "field": letter.field,
        "expected": letter.expected,
        "actual": letter.actual,
        "reason": letter.reason,
    }


def test_the_notifications_are_in_the_order_of_their_sequence() -> None:
    events = [cast("Any", call.event).receipt for call in example_calls()]
    assert [e.sequence for e in events] == sorted({e.sequence for e in events})
    assert len({e.event_id for e in events}) == len(events)


def test_examples_name_no_address_of_anybody() -> None:
    seen = 0
    for file in (AVRO / "examples").rglob("*.[jt]*"):
        text = file.read_text().replace("\\/", "/")
        addresses = re.findall(r"\b\d{1,3}(?:\.\d{1,3}){3}\b", text)
        addresses += re.findall(r"\b(?:[0-9a-fA-F]{1,4}:+){2,}[0-9a-fA-F]{0,4}", text)
        for address in addresses:
            if re.fullmatch(r"\d\d(:\d\d){2}", address):  # a time of day
                continue
            value = ipaddress.ip_address(address)
            seen += 1
            assert value.is_unspecified or any(
                value in net for net in DOCUMENTATION if net.version == value.version
            ), f"{file.name}: {address}"
    assert seen > len(EXAMPLES)


@pytest.fixture
def compatibility(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "schemas"))
    import compatibility as module  # noqa: PLC0415 - a script beside the schemas

    return module


def test_the_schemas_are_compatible_with_every_release() -> None:
    done = run("schemas/compatibility.py")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_version_has_a_single_set_of_schemas(compatibility: ModuleType) -> None:
    kept = compatibility.read(ROOT / "schemas" / "released" / __version__)
    assert kept == {name: json.loads(schema.text(name)) for name in schema.RECORDS}


@pytest.mark.parametrize(("name", "what"), EXAMPLES)
def test_every_release_reads_todays_examples_and_is_read(
    name: str, what: str, compatibility: ModuleType
) -> None:
    event = example_records(name)[what]
    today = json.loads(schema.text(name))
    for directory in (ROOT / "schemas" / "released").iterdir():
        old = compatibility.read(directory).get(name)
        if old is None:
            continue
        then = compatibility.transcode(datum(event), today, old)
        again = compatibility.transcode(then, old, today)
        assert isinstance(
            msgspec.convert(again, type=schema.STRUCTS[name]), schema.STRUCTS[name]
        )


BASE: Schema = {
    "type": "record",
    "namespace": "fastnetmon",
    "name": "Base",
    "doc": "A record.",
    "fields": [
        {"name": "word", "type": "string", "default": "", "doc": "d"},
        {"name": "rate", "type": ["null", "long"], "default": None, "doc": "d"},
        {"name": "port", "type": "int", "default": 0, "maximum": 65535, "doc": "d"},
        {
            "name": "parts",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "Part",
                    "doc": "A part.",
                    "fields": [
                        {"name": "id", "type": "string", "default": "", "doc": "d"}
                    ],
                },
            },
            "default": [],
            "doc": "d",
        },
    ],
}


def changed(path: str, **values: Any) -> Schema:
    """Return BASE with a field changed; a value of None removes the key."""
    result = copy.deepcopy(BASE)
    fields = result["fields"]
    if path == "id":
        fields = fields[3]["type"]["items"]["fields"]
    field = next(f for f in fields if f["name"] == path)
    for key, value in values.items():
        field[key] = value
    return result


def with_field(**field: Any) -> Schema:
    result = copy.deepcopy(BASE)
    result["fields"].append({"doc": "d", **field})
    return result


def without(path: str) -> Schema:
    result = copy.deepcopy(BASE)
    result["fields"] = [f for f in result["fields"] if f["name"] != path]
    return result


TIME = {"type": "long", "logicalType": "timestamp-micros"}


@pytest.mark.parametrize(
    ("new", "problem"),
    [
        (without("word"), "Base.word: removed or renamed"),
        (changed("word", name="term"), "Base.word: removed or renamed"),
        (changed("id", name="key"), "Part.id: removed or renamed"),
        (changed("word", type="bytes"), 'Base.word: type "string" became "bytes"'),
        (changed("port", type="long"), 'Base.port: type "int" became "long"'),
        (changed("word", type=["null", "string"], default=None), "Base.word: type"),
        (changed("rate", type=["null", TIME]), "Base.rate: type"),
        (changed("rate", type="long", default=0), "Base.rate: type"),
        (changed("word", default="x"), "Base.word: default '' became 'x'"),
        (changed("port", maximum=255), "Base.port: maximum 65535 became 255"),
        (changed("port", maximum=None), "Base.port: maximum 65535 became None"),
        (with_field(name="new", type="bytes", default=""), "Base.new: new and not"),
        (with_field(name="new", type=TIME, default=0), "Base.new: new and not"),
    ],
)
def test_a_change_that_readers_would_feel_is_refused(
    new: Schema, problem: str, compatibility: ModuleType
) -> None:
    problems = list(
        compatibility.broken({"fastnetmon.Base": BASE}, {"fastnetmon.Base": new})
    )
    assert any(problem in line for line in problems), problems


def test_a_renamed_type_is_refused(compatibility: ModuleType) -> None:
    new = copy.deepcopy(BASE)
    new["fields"][3]["type"]["items"]["name"] = "Piece"
    problems = list(compatibility.differences(BASE, new))
    assert "fastnetmon.Part: removed or renamed" in problems


def test_a_removed_record_is_refused(compatibility: ModuleType) -> None:
    problems = list(compatibility.broken({"fastnetmon.Base": BASE}, {}))
    assert problems == ["fastnetmon.Base: removed; its readers would wait for ever"]


def test_a_changed_default_is_refused_though_the_fingerprint_stays(
    compatibility: ModuleType,
) -> None:
    new = changed("word", default="x")
    assert schema.fingerprint_of(new) == schema.fingerprint_of(BASE)
    assert list(compatibility.differences(BASE, new))


@pytest.mark.parametrize(
    "new",
    [
        BASE,
        with_field(name="new", type=["null", "string"], default=None),
        with_field(name="new", type=["null", TIME], default=None),
        with_field(name="new", type="long", default=0),
        with_field(name="new", type={"type": "map", "values": "string"}, default={}),
        changed("word", doc="said better"),
    ],
)
def test_a_change_that_every_reader_bears_is_allowed(
    new: Schema, compatibility: ModuleType
) -> None:
    assert not list(compatibility.flaws(new))
    assert not list(
        compatibility.broken({"fastnetmon.Base": BASE}, {"fastnetmon.Base": new})
    )


@pytest.mark.parametrize(
    ("new", "way"),
    [
        (changed("word", type="long", default=0), "backwards"),
        (changed("word", type=["null", "string"], default=None), "forwards"),
        (with_field(name="new", type="string"), "backwards"),
    ],
)
def test_decoding_detects_a_difference_that_the_rules_miss(
    new: Schema, way: str, compatibility: ModuleType
) -> None:
    problems = list(compatibility.unreadable(BASE, new))
    assert any(f"Base: {way}: " in line for line in problems), problems


@pytest.mark.parametrize(
    ("new", "flaw"),
    [
        (with_field(name="new", type="string"), "Base.new: no default"),
        (changed("word", doc=""), "Base.word: no doc"),
        ({**BASE, "doc": ""}, "fastnetmon.Base: no doc"),
        (changed("word", aliases=["term"]), "Base.word: an alias"),
        (
            with_field(
                name="new",
                type=["null", {"type": "array", "items": "string"}],
                default=None,
            ),
            "Base.new: a union is null and one primitive or record",
        ),
        (
            with_field(name="new", type=["string", "long"], default=""),
            "Base.new: a union is null and one primitive or record",
        ),
        (
            with_field(name="new", type=["null", "string"], default="x"),
            "Base.new: a nullable field's default is null",
        ),
    ],
)
def test_a_schema_with_a_flaw_is_refused(
    new: Schema, flaw: str, compatibility: ModuleType
) -> None:
    assert any(flaw in line for line in compatibility.flaws(new))


PART = {
    "type": "record",
    "name": "Part",
    "doc": "A part.",
    "fields": [
        {"name": "a", "type": "string", "default": "", "doc": "a"},
        {"name": "b", "type": "long", "default": 0, "doc": "b"},
    ],
}
WHOLE_PART = {"name": "part", "type": PART, "default": {"a": "", "b": 0}, "doc": "x"}
OUTER = {**PART, "name": "Outer", "fields": [WHOLE_PART]}


@pytest.mark.parametrize(
    ("avro", "default", "lacking"),
    [
        (PART, {}, ["a", "b"]),
        (PART, {"b": 0}, ["a"]),
        (PART, {"a": "", "b": 0}, []),
        (OUTER, {"part": {"a": ""}}, ["part.b"]),
        ({"type": "array", "items": PART}, [{"a": ""}], ["b"]),
        ({"type": "map", "values": PART}, {"x": {"a": ""}}, ["b"]),
        ({"type": "array", "items": PART}, [], []),
        ([PART, "null"], {"a": ""}, ["b"]),
        (["null", PART], None, []),
        ("Part", {"a": ""}, ["b"]),  # by its name, declared in another field
    ],
)
def test_a_records_default_names_all_of_its_fields(
    avro: Any, default: Any, lacking: list[str], compatibility: ModuleType
) -> None:
    """Avro's C++ library, so ClickHouse, reads no schema with another default."""
    field = {"name": "new", "type": avro, "default": default, "doc": "x"}
    whole = {**BASE, "fields": [WHOLE_PART, field]}
    problems = [line for line in compatibility.flaws(whole) if "lacks" in line]
    assert problems == (
        [f"fastnetmon.Base.new: its default lacks {', '.join(lacking)}"]
        if lacking
        else []
    )


@pytest.mark.parametrize("name", schema.RECORDS)
def test_defaults_in_full_change_neither_canonical_form_nor_fingerprint(
    name: str,
) -> None:
    whole = json.loads(schema.text(name))
    short = copy.deepcopy(whole)
    for field in short["fields"]:
        if isinstance(field["default"], dict):
            field["default"] = {}
    assert to_parsing_canonical_form(short) == to_parsing_canonical_form(whole)
    assert schema.fingerprint_of(short) == schema.fingerprint(name)


def test_the_check_ends_with_1_and_names_the_release(
    compatibility: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = {**BASE, "name": "HostEvent"}
    compatibility.keep(tmp_path / "0.0.1", {"fastnetmon.HostEvent": old})
    monkeypatch.setattr(compatibility, "RELEASED", tmp_path)
    assert compatibility.main([]) == 1
    assert "0.0.1: fastnetmon.HostEvent.word: removed" in capsys.readouterr().err
