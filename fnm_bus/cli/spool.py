"""`fnm-bus spool`: notifications that wait for Kafka."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fnm_bus.cli.options import (
    ConfigFile,
    Json,
    dump,
    end,
    out,
    out_raw,
    print_error,
    print_note,
    settings,
)
from fnm_bus.errors import SpoolError

if TYPE_CHECKING:
    from fnm_bus.config.settings import Settings
    from fnm_bus.spool.entry import Entry
    from fnm_bus.spool.quarantine import Quarantine
    from fnm_bus.spool.spool import Spool

app = typer.Typer(help="Show notifications that wait for Kafka.")

MISSING = 1


def open_spool(file: Path | None) -> "tuple[Settings, Spool, Quarantine]":
    """Return the settings, the spool and its quarantine; root becomes their owner.

    The spool's owner can replace any file in it by a link, which root would follow.

    Raises:
        ConfigError: the configuration is wrong.
        SpoolError: the spool is not set up, or root cannot give up its rights.
    """
    # Before root gives up its rights: the owner may not be able to read this program.
    from fnm_bus import build
    from fnm_bus.spool.spool import Spool

    configured = settings(file)
    spool = Spool(configured.spool.directory)
    spool.become_owner()
    return configured, spool, build.build_quarantine(configured)


@app.command()
def status(
    *,
    file: ConfigFile = None,
    entries: Annotated[
        bool, typer.Option("--entries", help="Also list the names of the entries.")
    ] = False,
    json: Json = False,
) -> None:
    """Print the number of waiting notifications, and of those in the quarantine.

    Examples:
        fnm-bus spool status

        fnm-bus spool status --entries --json
    """
    from fnm_bus.spool.spool import Spool

    configured, spool, quarantine = open_spool(file)
    spools = {
        str(each.root): {**each.usage()._asdict(), "refuses": str(each.refusal())}
        for each in (spool, Spool(configured.spool.fallback))
        if _exists(each.root)
    }
    names = spool.scan() if entries else []
    if json:
        dump(
            {
                "spools": spools,
                "quarantine": quarantine.count(),
                **({"entries": names} if entries else {}),
            }
        )
        return
    for root, usage in spools.items():
        since = usage["oldest"]
        oldest = f", the oldest of {since:%Y-%m-%d %H:%M:%S} UTC" if since else ""
        refuses = usage["refuses"]
        refusal = f", refuses {refuses}" if refuses else ""
        waiting = f"{usage['files']} waiting, {usage['bytes']} bytes"
        out(f"{root}: {waiting}{oldest}{refusal}")
    out(f"quarantine: {quarantine.count()}")
    for name in names:
        out(name)


def _exists(root: Path) -> bool:
    """Return whether a spool exists.

    Raises:
        SpoolError: this user has no access to it.
    """
    try:
        return root.exists()
    except OSError as exc:
        raise SpoolError(f"{root}: {exc.strerror}") from exc


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(help="The name from `spool status --entries`.")
    ],
    *,
    file: ConfigFile = None,
    json: Json = False,
) -> None:
    """Print the document of a waiting entry, as FastNetMon wrote it.

    A pipe or a file gets the bytes; a terminal gets escapes for unprintable characters.

    Example:
        fnm-bus spool show NAME > document.json
    """
    from fnm_bus.spool.entry_name import is_entry_name

    _settings, spool, _quarantine = open_spool(file)
    try:
        # Any other name could be a path out of the directory.
        entry = spool.read(name) if is_entry_name(name) else None
    except FileNotFoundError:
        entry = None
    if entry is None:
        print_error(f"{name}: is not in the spool; try `quarantine show`")
        end(MISSING)
    print_document(entry, {}, json=json)


def print_document(entry: "Entry", facts: dict[str, object], *, json: bool) -> None:
    """Print an entry's document on stdout, and the *facts* about it on stderr.

    A terminal gets escapes for unprintable characters; a pipe or a file gets the bytes.
    """
    facts = {**facts, "arguments": entry.arguments, "stored_at": entry.stored_at}
    text = entry.document.decode("utf-8", "backslashreplace")
    if json:
        dump({**facts, "document": text})
        return
    for key, value in facts.items():
        print_note(f"{key}: {value}")
    out_raw(entry.document)
