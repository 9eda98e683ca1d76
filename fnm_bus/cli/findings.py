"""Findings of a check, a line each."""

from collections.abc import Iterable

from fnm_bus.cli.options import out
from fnm_bus.setup.check_result import CheckResult


def show(findings: Iterable[CheckResult]) -> None:
    """Print what passed and what failed, with the remedy."""
    for finding in findings:
        mark, color = ("passed", "green") if finding.ok else ("FAILED", "red")
        out(f"{mark}  {finding.what}", mark, color)
        if not finding.ok and finding.remedy:
            out(f"        {finding.remedy}")
