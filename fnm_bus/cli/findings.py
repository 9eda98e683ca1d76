"""Findings of a check, a line each."""

from collections.abc import Iterable

import typer

from fnm_bus.cli.options import colored, plain
from fnm_bus.finding import Finding


def show(findings: Iterable[Finding]) -> None:
    """Print what passed and what failed, with the remedy."""
    for finding in findings:
        mark = "passed" if finding.ok else "FAILED"
        if colored():
            mark = typer.style(mark, fg="green" if finding.ok else "red")
        typer.echo(f"{mark}  {plain(finding.what)}")
        if not finding.ok and finding.remedy:
            typer.echo(f"        {finding.remedy}")
