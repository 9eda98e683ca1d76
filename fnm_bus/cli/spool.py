"""`fnm-bus spool`: the notifications that wait for Kafka."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fnm_bus.cli.options import (
    ConfigFile,
    Json,
    complain,
    dump,
    end,
    out,
    out_raw,
    say,
    settings,
)
from fnm_bus.errors import SpoolError

if TYPE_CHECKING:
    from fnm_bus.config.settings import Settings
    from fnm_bus.spool.entry import Entry
    from fnm_bus.spool.quarantine import Quarantine
    from fnm_bus.spool.spool import Spool

app = typer.Typer(help="Look at the notifications that wait for Kafka.")

MISSING = 1


def open_spool(file: Path | None) -> "tuple[Settings, Spool, Quarantine]":
    """Return the settings, the spool and its quarantine; root becomes their owner.

    The owner of the spool may put a link in the place of any of its files, and root
    would follow it.

    Raises:
        ConfigError: the configuration is wrong.
        SpoolError: the spool is not set up, or root's rights cannot be given up.
    """
    # Before root's rights are given up: the owner may not be able to read this program.
    from fnm_bus import build
    from fnm_bus.spool.spool import Spool

    known = settings(file)
    spool = Spool(known.spool.directory)
    spool.become_owner()
    return known, spool, build.build_quarantine(known)


@app.command()
def status(
    *,
    file: ConfigFile = None,
    entries: Annotated[
        bool, typer.Option("--entries", help="List the names of the entries, too.")
    ] = False,
    json: Json = False,
) -> None:
    """Print how many notifications wait, and how many are in the quarantine.

    Examples:
        fnm-bus spool status

        fnm-bus spool status --entries --json
    """
    from fnm_bus.spool.spool import Spool

    known, spool, quarantine = open_spool(file)
    spools = {
        str(it.root): {**it.usage()._asdict(), "refuses": str(it.refusal())}
        for it in (spool, Spool(known.spool.fallback))
        if _is_there(it.root)
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


def _is_there(root: Path) -> bool:
    """Return whether there is a spool.

    Raises:
        SpoolError: this user may not see that.
    """
    try:
        return root.exists()
    except OSError as exc:
        raise SpoolError(f"{root}: {exc.strerror}") from exc


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="As `spool status --entries` prints it.")],
    *,
    file: ConfigFile = None,
    json: Json = False,
) -> None:
    """Print the document of a waiting entry, as FastNetMon wrote it.

    Into a pipe or a file byte for byte; on a terminal with escapes.

    Example:
        fnm-bus spool show NAME > document.json
    """
    from fnm_bus.spool.entry_name import is_entry_name

    _known, spool, _quarantine = open_spool(file)
    try:
        # Another name may lead out of the directory.
        entry = spool.read(name) if is_entry_name(name) else None
    except FileNotFoundError:
        entry = None
    if entry is None:
        complain(f"{name}: is not in the spool; the quarantine has its own `show`")
        end(MISSING)
    print_document(entry, {}, json=json)


def print_document(entry: "Entry", facts: dict[str, object], *, json: bool) -> None:
    """Print an entry's document on stdout, and *facts* about the entry on stderr.

    A terminal gets escapes for unprintable characters; a pipe or a file gets the bytes.
    """
    facts = {**facts, "arguments": entry.arguments, "stored_at": entry.stored_at}
    text = entry.document.decode("utf-8", "backslashreplace")
    if json:
        dump({**facts, "document": text})
        return
    for key, value in facts.items():
        say(f"{key}: {value}")
    out_raw(entry.document)
