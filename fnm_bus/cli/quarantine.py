"""`fnm-bus quarantine`: documents that cannot become events, with the reason."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from fnm_bus.cli.options import ConfigFile, Json, complain, dump, end, out, say
from fnm_bus.cli.spool import MISSING, open_spool, print_document
from fnm_bus.errors import FnmBusError

if TYPE_CHECKING:
    from fnm_bus.spool.quarantine import Quarantine

app = typer.Typer(help="Documents that cannot become events, with the reason.")

Names = Annotated[
    list[str] | None, typer.Argument(help="As `quarantine list` prints it.")
]


@app.command("list")
def list_(*, file: ConfigFile = None, json: Json = False) -> None:
    """List the documents in the quarantine, each with the reason.

    Examples:
        fnm-bus quarantine list

        fnm-bus quarantine list --json
    """
    _known, _spool, quarantine = open_spool(file)
    kept = [{"name": name, **_facts(quarantine, name)} for name in quarantine.names()]
    if json:
        dump(kept)
        return
    for facts in kept:
        out(f"{facts['name']}  {facts.get('at')}  {facts.get('reason')}")
    say(f"quarantine: {len(kept)}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="As `quarantine list` prints it.")],
    *,
    file: ConfigFile = None,
    json: Json = False,
) -> None:
    """Print the document of an entry, as FastNetMon wrote it; the reason on stderr.

    Example:
        fnm-bus quarantine show NAME > document.json
    """
    _known, _spool, quarantine = open_spool(file)
    try:
        letter = quarantine.read(name)
    except FileNotFoundError:
        complain(f"{name}: is not in the quarantine; the spool has its own `show`")
        end(MISSING)
    print_document(letter.entry, quarantine.details(name), json=json)


@app.command()
def release(
    name: Names = None,
    *,
    file: ConfigFile = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Release everything.")
    ] = False,
) -> None:
    """Put documents back into the spool, to be tried again with their old event_id.

    Examples:
        fnm-bus quarantine release NAME

        fnm-bus quarantine release --all
    """
    _known, spool, quarantine = open_spool(file)
    names = _selected(quarantine, name, everything=everything)
    _each(names, lambda one: quarantine.release(one, spool), "released")


@app.command()
def delete(
    name: Names = None,
    *,
    file: ConfigFile = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Delete everything.")
    ] = False,
) -> None:
    """Delete documents for good, and dead letters of theirs that are not published yet.

    Examples:
        fnm-bus quarantine delete NAME

        fnm-bus quarantine delete --all
    """
    _known, _spool, quarantine = open_spool(file)
    names = _selected(quarantine, name, everything=everything)
    _each(names, quarantine.delete, "deleted")


def _facts(quarantine: "Quarantine", name: str) -> dict[str, object]:
    """Return what is known of an entry; an unreadable reason does not end the list."""
    try:
        return quarantine.details(name)
    except FileNotFoundError:
        return {"reason": "the file with the reason is missing"}
    except FnmBusError as exc:
        return {"reason": str(exc)}


def _selected(
    quarantine: "Quarantine", names: Sequence[str] | None, *, everything: bool
) -> Sequence[str]:
    if everything:
        return quarantine.names()
    if not names:
        raise typer.BadParameter("name an entry, or use --all")
    return names


def _each(names: Sequence[str], act: Callable[[str], None], done: str) -> None:
    """Do *act* with each entry; one that fails is reported, and the others go on."""
    failed = 0
    for name in names:
        try:
            act(name)
        except FileNotFoundError:
            complain(f"{name}: is not in the quarantine")
            failed += 1
        except FnmBusError as exc:
            complain(f"{name}: {exc}")
            failed += 1
    say(f"fnm-bus: {len(names) - failed} {done}")
    end(MISSING if failed else 0)
