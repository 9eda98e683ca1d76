"""Findings of a check, a line each."""

from collections.abc import Iterable
from typing import Protocol

import typer

from fnm_bus.cli.options import colored


class Finding(Protocol):
    """Something that was looked at."""

    @property
    def ok(self) -> bool:
        """Whether it is as it should be."""

    @property
    def what(self) -> str:
        """What was looked at, and what was seen."""

    @property
    def remedy(self) -> str:
        """What to do when it is not well; "" when nothing."""


def show(findings: Iterable[Finding]) -> None:
    """Print what passed and what failed, with the remedy."""
    for finding in findings:
        mark = "passed" if finding.ok else "FAILED"
        if colored():
            mark = typer.style(mark, fg="green" if finding.ok else "red")
        typer.echo(f"{mark}  {finding.what}")
        if not finding.ok and finding.remedy:
            typer.echo(f"        {finding.remedy}")
