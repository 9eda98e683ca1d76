"""The AsyncAPI document, by the parser that AsyncAPI's own tools share."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support import fetch

from fnm_bus.avro import schema

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "asyncapi.yaml"
PARSE = """\
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";
import avro from "@asyncapi/avro-schema-parser";

const parser = new Parser({ schemaParsers: [avro.AvroSchemaParser()] });
const text = readFileSync(process.argv[2], "utf8");
const { document, diagnostics } = await parser.parse(text);
const messages = document?.allMessages().all() ?? [];
console.log(JSON.stringify({
  faults: diagnostics.filter((fault) => fault.severity < 2),
  fields: Object.fromEntries(messages.map((message) => [
    message.name(), Object.keys(message.payload().json().schema.properties),
  ])),
  headers: messages.map((message) => Object.keys(message.headers().json().properties)),
}));
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program beside the parser's packages."""
    directory = tmp_path_factory.mktemp("asyncapi")
    fetched = fetch.node_modules(*fetch.ASYNCAPI)
    (directory / "node_modules").symlink_to(fetched / "node_modules")
    path = directory / "parse.mjs"
    path.write_text(PARSE)
    return path


def parsed(program: Path, path: Path) -> dict[str, Any]:
    done = subprocess.run(
        ["node", program, path], capture_output=True, text=True, check=True, timeout=120
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_document_is_valid_and_has_every_field(program: Path) -> None:
    result = parsed(program, PAGE)
    assert result["faults"] == []
    assert result["fields"] == {
        full_name: [field["name"] for field in schema.load()[full_name]["fields"]]
        for full_name in schema.RECORDS
    }
    assert all("ce_id" in names for names in result["headers"])


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("action: send", "action: sends"), ("'#/channels/host'", "'#/channels/hosts'")],
)
def test_planted_fault_is_reported(
    program: Path, right: str, wrong: str, tmp_path: Path
) -> None:
    text = PAGE.read_text("utf-8")
    assert right in text
    copy = tmp_path / "asyncapi.yaml"
    copy.write_text(text.replace(right, wrong, 1), "utf-8")
    assert parsed(program, copy)["faults"]
