"""`fnm-bus simulate`: a made-up attack through the real path."""

import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from fnm_bus.cli.options import ConfigFile, complain, end, say, settings

UNSTORED = 75


def simulate(  # noqa: PLR0913 - one parameter for each option
    *,
    hosts: Annotated[
        int, typer.Option(min=1, max=10_000, help="Hosts that are attacked.")
    ] = 10,
    updates: Annotated[
        int, typer.Option(min=0, max=1_000, help="Rounds of status updates.")
    ] = 2,
    rate: Annotated[
        float, typer.Option(min=0, max=100, help="Calls in a second; 0: quickly.")
    ] = 20.0,
    seed: Annotated[int, typer.Option(help="The same seed makes the same attack.")] = 1,
    hook: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="An installed hook. Else one for [spool], for now."
        ),
    ] = None,
    print_: Annotated[
        bool, typer.Option("--print", help="Print the documents; store nothing.")
    ] = False,
    file: ConfigFile = None,
) -> None:
    """Play an attack that is made up, as FastNetMon would tell of it.

    Bans of hosts and of a hostgroup, Flow Spec rules, status updates, and then all of
    it taken back. Each call is a process of the real hook. Addresses are those set
    aside for documentation: but whoever acts on events will act on these.

    Examples:
        fnm-bus simulate --hosts 20

        fnm-bus simulate --hosts 500 --rate 0 --seed 7

        fnm-bus simulate --hosts 1 --print | head -1 | fnm-bus parse
    """
    from fnm_bus.demo.attack import Plan, attack, count
    from fnm_bus.demo.replay import play

    plan = Plan(hosts, updates, seed)
    if print_:
        for call in attack(plan):
            typer.echo(call.document, nl=False)
        return
    known = settings(file)
    from fnm_bus.spool import Spool

    directory, fallback = known.spool.directory, known.spool.fallback
    with tempfile.TemporaryDirectory(prefix="fnm-bus-") as here:
        path = hook or _hook(Path(here), directory, fallback)
        ended = Counter(_watched(play(path, attack(plan), rate), count(plan)))
    say(f"fnm-bus: {ended[0]} notifications are in the spool")
    if failed := ended.total() - ended[0]:
        complain(f"{failed} of {ended.total()} calls failed")
        end(UNSTORED)
    if not Spool(directory).locked():
        say("fnm-bus: no relay runs; `fnm-bus relay --once` publishes them")


def _hook(here: Path, spool: Path, fallback: Path) -> Path:
    from fnm_bus import install

    path = here / "hook"
    install.install(path, spool, fallback, install.best_python())
    return path


def _watched(statuses: Iterable[int], total: int) -> Iterator[int]:
    """Yield *statuses*, and show how far it is on a terminal."""
    shown = sys.stderr.isatty()
    for number, status in enumerate(statuses, 1):
        if shown:
            sys.stderr.write(f"\r{number}/{total}")
            sys.stderr.flush()
        yield status
    if shown:
        sys.stderr.write("\r\x1b[K")
