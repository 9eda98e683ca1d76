"""docs/extending.md: a field of FastNetMon's JSON is added by editing one schema."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "extending.md").read_text()
BAN = ROOT / "schemas" / "avro" / "examples" / "notifications" / "01-ban.json"
ROUND_TRIP = """
import json, sys
import msgspec
from fnm_bus.avro.codec import Codec
from fnm_bus.event import Receipt
from fnm_bus.event.parse import parse
receipt = Receipt(event_id="id", sequence=1, sensor="fra1")
parsed = parse(sys.stdin.buffer.read(), [], receipt)
codec = Codec()
decoded = codec.decode(codec.encode(parsed.event, "fastnetmon.host.v1"))
json.dump(msgspec.to_builtins(decoded), sys.stdout)
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package and its schemas, free to change."""
    for name in ("fnm_bus", "schemas"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "docs" / "reference").mkdir(parents=True)
    return tmp_path


def add_field(copy: Path, record: str, field: dict[str, Any]) -> None:
    """Add a field to a schema, before `extra` if it has one; generate the types."""
    path = copy / "schemas" / "avro" / f"fastnetmon.{record}.avsc"
    schema = json.loads(path.read_text())
    names = [existing["name"] for existing in schema["fields"]]
    place = names.index("truncated") if "truncated" in names else len(names)
    schema["fields"].insert(place, field)
    path.write_text(json.dumps(schema))
    subprocess.run([sys.executable, "schemas/generate.py"], cwd=copy, check=True)


def round_trip(copy: Path, document: dict[str, Any]) -> dict[str, Any]:
    """Return the event of a document after Avro, by the changed package."""
    done = subprocess.run(
        [sys.executable, "-c", ROUND_TRIP],
        input=json.dumps(document).encode(),
        cwd=copy,
        env={"PYTHONPATH": str(copy)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)  # type: ignore[no-any-return]


COUNTER = {"name": "planted", "type": ["null", "long"], "default": None, "doc": "New."}
TEXT = {"name": "planted", "type": ["null", "string"], "default": None, "doc": "New."}


def test_a_planted_counter_arrives(copy: Path) -> None:
    add_field(copy, "AttackDetails", COUNTER)
    document = json.loads(BAN.read_text())
    document["attack_details"]["planted"] = 7
    event = round_trip(copy, document)
    assert event["attack_details"]["planted"] == 7
    assert "/attack_details/planted" not in event["extra"]


def test_a_planted_sample_field_arrives(copy: Path) -> None:
    add_field(copy, "FlowDetails", COUNTER)
    document = json.loads(BAN.read_text())
    for sample in document["packet_dump_detailed"]:
        sample["planted"] = 7
    event = round_trip(copy, document)
    flows = [sample["flow"]["planted"] for sample in event["packet_dump_detailed"]]
    assert flows == [7] * len(document["packet_dump_detailed"]) != []


def test_a_planted_field_of_the_document_arrives(copy: Path) -> None:
    for record in ("HostEvent", "HostgroupEvent", "StatusEvent"):
        add_field(copy, record, TEXT)
    document = {**json.loads(BAN.read_text()), "planted": "text"}
    event = round_trip(copy, document)
    assert event["planted"] == "text"
    assert "/planted" not in event["extra"]


def test_a_planted_field_of_another_type_is_kept_in_extra(copy: Path) -> None:
    for record in ("HostEvent", "HostgroupEvent", "StatusEvent"):
        add_field(copy, record, COUNTER)
    event = round_trip(copy, {**json.loads(BAN.read_text()), "planted": "text"})
    assert event["planted"] is None
    assert event["extra"]["/planted"] == '"text"'


PLACES = re.findall(r"^\d+\. `([\w./-]+)`(?:: `(\w+)`)?", GUIDE, re.MULTILINE)


@pytest.mark.parametrize(("path", "symbol"), PLACES)
def test_a_place_in_the_guide_exists(path: str, symbol: str) -> None:
    assert (ROOT / path).exists()
    if symbol:
        assert re.search(rf"\b{symbol}\b", (ROOT / path).read_text())


def test_the_guide_lists_places() -> None:
    assert len(PLACES) >= 12
