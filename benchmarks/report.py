"""Results, as a table for people and as JSON for programs."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("confluent-kafka", "fastavro", "jiter", "msgspec")


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        subject: the measured operation.
        contender: the measured program.
        figure: with its unit.
        ratio: against the contender named in the text, in the same run.
        goal: the target, or "".
        met: whether that was reached; None without a goal.
    """

    subject: str
    contender: str
    figure: str
    ratio: str = ""
    goal: str = ""
    met: bool | None = None


def facts(broker: str) -> dict[str, str]:
    """Return the machine and the versions of the measurement."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cpu": f"{os.cpu_count()} x {cpu}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "broker": broker,
        **{name: version(name) for name in _PACKAGES},
    }


def table(rows: Sequence[Row]) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| operation | | figure | ratio | goal |", "|---|---|---|---|---|"]
    for row in rows:
        met = {True: ", met", False: ", **missed**", None: ""}[row.met]
        lines.append(
            f"| {row.subject} | {row.contender} | {row.figure} | {row.ratio}"
            f" | {row.goal}{met} |"
        )
    return "\n".join(lines)


def write(rows: Sequence[Row], machine: dict[str, str]) -> None:
    """Write results/latest.json and results/README.md."""
    RESULTS.mkdir(exist_ok=True)
    content = {"facts": machine, "rows": [asdict(row) for row in rows]}
    (RESULTS / "latest.json").write_text(json.dumps(content, indent=1) + "\n")
    text = ["# The last run of `make bench`", ""]
    text += [f"- {name}: {value}" for name, value in machine.items()]
    text += ["", table(rows), ""]
    (RESULTS / "README.md").write_text("\n".join(text))
