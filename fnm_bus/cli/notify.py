"""`fnm-bus notify`: the notify script, in one piece."""

from pathlib import Path
from typing import Annotated

import typer

from fnm_bus.cli.options import ConfigFile, complain, complain_of, end, settings
from fnm_bus.config import spool_paths
from fnm_bus.errors import ConfigError, FnmBusError, SchemaError, SpoolError
from fnm_bus.hook import python_hook
from fnm_bus.spool import lock

INVALID = 65


def notify(
    context: typer.Context,
    *,
    file: ConfigFile = None,
    deadline: Annotated[
        float | None,
        typer.Option(
            min=0, help="Seconds that publishing may take. Else [notify] drain_timeout."
        ),
    ] = None,
) -> None:
    """Store the notification on stdin; publish it if no relay runs.

    All further arguments are FastNetMon's and are kept. The installed hook
    (`fnm-bus hook install`) does the same and is quicker to start.

    Examples:
        fnm-bus notify < ban.json

        fnm-bus notify ban 192.0.2.1 < ban.json
    """
    spool, fallback = spool_paths.spools(file)
    try:
        document = python_hook.read_stdin(context.args)
        path, trouble = python_hook.keep(
            str(spool), str(fallback), context.args, document
        )
    except OSError as exc:
        complain(f"this notification is lost: {exc}; is the spool set up?")
        end(python_hook.TRY_LATER)
    if trouble:
        complain(f"{trouble}; kept in the fallback spool: {path}")
    reason, status = "", 0
    try:
        if _relayed(spool):
            end(python_hook.TRY_LATER if trouble else 0)
        reason = _drain(path, file, deadline)
    except (ConfigError, SchemaError) as exc:
        complain_of(exc)
        status = exc.exit_code
    except FnmBusError as exc:  # it is on disk: the next drain or a relay goes on
        complain_of(exc)
    if trouble or status:
        end(python_hook.TRY_LATER if trouble else status)
    if reason:
        complain(f"invalid, kept in the quarantine: {reason}")
        end(INVALID)


def _relayed(spool: Path) -> bool:
    """Return whether somebody drains already; then this call has nothing to add."""
    try:
        return lock.held(spool / "lock")
    except SpoolError:  # not the owner, who alone may drain, or no spool
        return True


def _drain(path: str, file: ConfigFile, deadline: float | None) -> str:
    """Drain if nobody else does; return why this document is invalid, or ""."""
    known = settings(file)
    from fnm_bus import build
    from fnm_bus.ops import cpu_priority
    from fnm_bus.spool.spool import Spool

    if not build.may_drain(known):
        return ""
    Spool(known.spool.directory).become_owner()
    cpu_priority.lower(known.relay.cpu_nice)
    within = known.notify.drain_timeout if deadline is None else deadline
    _ended, refused = build.drain_once(known, within)
    return refused.get(path.rpartition("/")[2], {}).get("reason", "")
