"""`fnm-bus spool`: what waits, and what could not be understood."""

from typing import Annotated

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
from fnm_bus.errors import FnmBusError

app = typer.Typer(help="What waits on disk, and what could not be understood.")

MISSING = 1


@app.command("list")
def list_(
    *,
    file: ConfigFile = None,
    waiting: Annotated[
        bool, typer.Option("--waiting", help="List what waits for Kafka, too.")
    ] = False,
    json: Json = False,
) -> None:
    """List the quarantine: each document with the reason.

    Examples:
        fnm-bus spool list

        fnm-bus spool list --waiting --json
    """
    from fnm_bus import wiring
    from fnm_bus.spool import Spool

    known = settings(file)
    quarantine = wiring.quarantine(known)
    kept = [{"name": it, **quarantine.show(it)} for it in quarantine.list()]
    depths = {
        str(root): Spool(root).size()
        for root in (known.spool.directory, known.spool.fallback)
        if root.exists()
    }
    names = Spool(known.spool.directory).scan() if waiting else []
    if json:
        dump(
            {
                "waiting": {root: depth._asdict() for root, depth in depths.items()},
                **({"entries": names} if waiting else {}),
                "quarantine": kept,
            }
        )
        return
    for root, depth in depths.items():
        since = (
            f", the oldest of {depth.oldest:%Y-%m-%d %H:%M:%S} UTC"
            if depth.oldest
            else ""
        )
        say(f"{root}: {depth.files} waiting, {depth.bytes} bytes{since}")
    for name in names:
        out(f"{name}  waiting")
    say(f"quarantine: {len(kept)}")
    for facts in kept:
        out(f"{facts['name']}  {facts.get('at')}  {facts.get('reason')}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="As `spool list` prints it.")],
    *,
    file: ConfigFile = None,
    json: Json = False,
) -> None:
    """Print the document of an entry; the rest on stderr.

    Into a pipe or a file as FastNetMon wrote it; on a terminal with escapes.

    Example:
        fnm-bus spool show NAME > document.json
    """
    from fnm_bus import wiring
    from fnm_bus.spool import Spool

    known = settings(file)
    quarantine = wiring.quarantine(known)
    try:
        letter = quarantine.read(name)
        entry, facts = letter.entry, quarantine.show(name)
    except FileNotFoundError:
        try:
            entry, facts = Spool(known.spool.directory).read(name), {}
        except FileNotFoundError:
            complain(f"{name}: neither in the quarantine nor in the spool")
            end(MISSING)
    facts = {**facts, "arguments": entry.arguments, "stored_at": entry.stored_at}
    if json:
        dump({**facts, "document": entry.document.decode("utf-8", "backslashreplace")})
        return
    for key, value in facts.items():
        say(f"{key}: {value}")
    out_raw(entry.document)


@app.command()
def release(
    name: Annotated[
        list[str] | None, typer.Argument(help="As `spool list` prints it.")
    ] = None,
    *,
    file: ConfigFile = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Release everything.")
    ] = False,
) -> None:
    """Put documents back into the spool, to be tried again with their old event_id.

    Examples:
        fnm-bus spool release NAME

        fnm-bus spool release --all
    """
    from fnm_bus import wiring
    from fnm_bus.spool import Spool

    known = settings(file)
    quarantine, spool = wiring.quarantine(known), Spool(known.spool.directory)
    names = list(quarantine.list()) if everything else list(name or ())
    if not names and not everything:
        raise typer.BadParameter("name an entry, or say --all")
    failed = 0
    for one in names:
        try:
            quarantine.release(one, spool)
        except (FileNotFoundError, FnmBusError) as exc:
            complain(f"{one}: {exc}")
            failed += 1
    say(f"fnm-bus: {len(names) - failed} released")
    end(MISSING if failed else 0)
