"""Audit records use exactly the words that the schema lists for `what`."""

import ast
import json
import re
from pathlib import Path

from support.mitigator_harness import KEY, banned, policy, rule

import consumers
from consumers.policy.model import Match

ROOT = Path(__file__).parents[3]
CONSUMERS = Path(consumers.__file__).parent
SCHEMA = ROOT / "schemas/avro/fastnetmon.Audit.avsc"


def declared(program: str) -> set[str]:
    """Return the words that the schema lists for a program."""
    fields = json.loads(SCHEMA.read_text())["fields"]
    [text] = [field["doc"] for field in fields if field["name"] == "action"]
    [words] = re.findall(rf"{program}: ([^.]*)\.", text)
    return set(words.split(", "))


def words_of_calls(folder: Path, method: str) -> set[str]:
    """Return the texts that the code of a folder passes to a method as first."""
    words = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            name = name or getattr(node.func, "id", "")
            if name == method and isinstance(node.args[0], ast.Constant):
                words.add(str(node.args[0].value))
    return words


def test_mitigator_reports_exactly_the_schemas_decisions() -> None:
    approved = rule("approved", Match(min_pps=10), approval=True)
    harness = banned(policy(approved, rule()))
    harness.send("attack_status")
    harness.command("pause")
    harness.command("resume")
    harness.send("unban")
    harness.send("ban", "8.8.8.8")
    harness.send("ban", "203.0.113.9", age=4000)
    harness.send("ban", "203.0.113.8", total_incoming_pps=20)
    harness.command("approve", KEY.replace(".7/", ".8/"))
    harness.send("ban", "203.0.113.6", total_incoming_pps=20)
    harness.command("reject", KEY.replace(".7/", ".6/"))
    harness.send("ban", "203.0.113.5")
    harness.send("ban", "203.0.113.5", sensor="fnm2")
    harness.send("unban", "203.0.113.5")
    reported = {audit.action for audit in harness.audits}
    reported |= words_of_calls(CONSUMERS / "mitigator", "add_audit")
    assert reported == declared("Mitigator")


def test_enforcers_report_exactly_the_schemas_actions() -> None:
    reported = words_of_calls(CONSUMERS / "enforcers", "publish")
    assert reported == declared("Enforcers")
