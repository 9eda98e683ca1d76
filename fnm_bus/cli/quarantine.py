"""`fnm-bus quarantine`: documents that cannot become events, with the reason."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from fnm_bus.cli.options import (
    ConfigFile,
    Json,
    dump,
    end,
    out,
    print_error,
    print_note,
)
from fnm_bus.cli.spool import MISSING, open_spool, print_document
from fnm_bus.errors import FnmBusError

if TYPE_CHECKING:
    from fnm_bus.spool.quarantine import Quarantine

app = typer.Typer(help="Documents that cannot become events, with the reason.")

Names = Annotated[
    list[str] | None, typer.Argument(help="The name from `quarantine list`.")
]
Everything = Annotated[bool, typer.Option("--all", help="Take every document.")]


@app.command("list")
def list_(*, file: ConfigFile = None, json: Json = False) -> None:
    """List the documents in the quarantine, each with the reason.

    Examples:
        fnm-bus quarantine list

        fnm-bus quarantine list --json
    """
    _settings, _spool, quarantine = open_spool(file)
    rows = [{"name": name, **_facts(quarantine, name)} for name in quarantine.names()]
    if json:
        dump(rows)
        return
    for row in rows:
        out(f"{row['name']}  {row.get('at')}  {row.get('reason')}")
    print_note(f"quarantine: {len(rows)}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The name from `quarantine list`.")],
    *,
    file: ConfigFile = None,
    json: Json = False,
) -> None:
    """Print the document of an entry, as FastNetMon wrote it; the reason on stderr.

    Example:
        fnm-bus quarantine show NAME > document.json
    """
    _settings, _spool, quarantine = open_spool(file)
    try:
        quarantined = quarantine.read(name)
    except FileNotFoundError:
        print_error(f"{name}: is not in the quarantine; try `spool show`")
        end(MISSING)
    print_document(quarantined.entry, quarantine.details(name), json=json)


@app.command()
def release(
    name: Names = None, *, file: ConfigFile = None, everything: Everything = False
) -> None:
    """Move documents back into the spool; they keep their event_id.

    Examples:
        fnm-bus quarantine release NAME

        fnm-bus quarantine release --all
    """
    _settings, spool, quarantine = open_spool(file)
    names = quarantine.names() if everything else name
    _each(names, lambda name: quarantine.release(name, spool), "released")


@app.command()
def delete(
    name: Names = None, *, file: ConfigFile = None, everything: Everything = False
) -> None:
    """Delete documents, and their unpublished dead letters, for good.

    Examples:
        fnm-bus quarantine delete NAME

        fnm-bus quarantine delete --all
    """
    _settings, _spool, quarantine = open_spool(file)
    _each(quarantine.names() if everything else name, quarantine.delete, "deleted")


def _facts(quarantine: "Quarantine", name: str) -> dict[str, object]:
    """Return an entry's reason and time, or why they cannot be read."""
    try:
        return quarantine.details(name)
    except FileNotFoundError:
        return {"reason": "the file with the reason is missing"}
    except FnmBusError as exc:
        return {"reason": str(exc)}


def _each(names: Sequence[str] | None, act: Callable[[str], None], done: str) -> None:
    """Apply *act* to each entry; report failures and continue."""
    if names is None:
        raise typer.BadParameter("give the name of an entry, or use --all")
    failed = 0
    for name in names:
        try:
            act(name)
        except (FileNotFoundError, FnmBusError) as exc:
            is_missing = isinstance(exc, FileNotFoundError)
            print_error(f"{name}: {'is not in the quarantine' if is_missing else exc}")
            failed += 1
    print_note(f"fnm-bus: {len(names) - failed} {done}")
    end(MISSING if failed else 0)
