"""Results of checks, one line each."""

from collections.abc import Iterable

from fnm_bus.cli.options import out
from fnm_bus.setup.check_result import CheckResult


def show(results: Iterable[CheckResult]) -> None:
    """Print each result, with the remedy if the check failed."""
    for result in results:
        word, color = ("passed", "green") if result.ok else ("FAILED", "red")
        out(f"{word}  {result.text}", word, color)
        if not result.ok and result.remedy:
            out(f"        {result.remedy}")
