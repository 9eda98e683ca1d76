"""Results of checks, one line each."""

from collections.abc import Iterable, Sequence
from typing import NoReturn

from fnm_bus.cli.options import dump, end, out
from fnm_bus.setup.check_result import CheckResult


def show(results: Iterable[CheckResult]) -> None:
    """Print each result, with the remedy if the check failed."""
    for result in results:
        word, color = ("passed", "green") if result.ok else ("FAILED", "red")
        out(f"{word}  {result.text}", word, color)
        if not result.ok and result.remedy:
            out(f"        {result.remedy}")


def end_with(results: Sequence[CheckResult], *, json: bool) -> NoReturn:
    """Print the results, and exit with status 1 if a check failed."""
    if json:
        dump([result._asdict() for result in results])
    else:
        show(results)
    end(0 if all(result.ok for result in results) else 1)
