"""`fnm-bus notify`: the notify script, as a command."""

from pathlib import Path
from typing import Annotated

import typer

from fnm_bus.cli.options import ConfigFile, end, print_error, print_errors, settings
from fnm_bus.config import spool_paths
from fnm_bus.errors import ConfigError, FnmBusError, SchemaError, SpoolError
from fnm_bus.hook import python_hook
from fnm_bus.spool import lock

INVALID = 65


def notify(
    context: typer.Context,
    *,
    file: ConfigFile = None,
    drain_timeout: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds that publishing may take. Else [notify] drain_timeout.",
        ),
    ] = None,
) -> None:
    """Store the notification on stdin; publish it if no relay runs.

    All further arguments are FastNetMon's and are kept. The installed hook
    (`fnm-bus hook install`) does the same and starts faster.

    Examples:
        fnm-bus notify < ban.json

        fnm-bus notify ban 192.0.2.1 < ban.json
    """
    spool, fallback = spool_paths.configured_spools(file)
    try:
        document = python_hook.read_stdin(context.args)
        path, trouble = python_hook.store_or_fallback(
            str(spool), str(fallback), context.args, document
        )
    except OSError as exc:
        print_error(f"this notification is lost: {exc}; is the spool set up?")
        end(python_hook.TRY_LATER)
    if trouble:
        print_error(f"{trouble}; kept in the fallback spool: {path}")
    reason, status = "", 0
    try:
        if _is_drained_elsewhere(spool):
            end(python_hook.TRY_LATER if trouble else 0)
        reason = _drain(path, file, drain_timeout)
    except (ConfigError, SchemaError) as exc:
        print_errors(exc)
        status = exc.exit_code
    except FnmBusError as exc:  # the next drain or a relay publishes the entry
        print_errors(exc)
    if trouble or status:
        end(python_hook.TRY_LATER if trouble else status)
    if reason:
        print_error(f"invalid, kept in the quarantine: {reason}")
        end(INVALID)


def _is_drained_elsewhere(spool: Path) -> bool:
    """Return whether another process drains the spool, or this one must not."""
    try:
        return lock.is_held(spool / "lock")
    except SpoolError:  # only the spool's owner may drain; or there is no spool
        return True


def _drain(path: str, file: ConfigFile, timeout: float | None) -> str:
    """Drain the spool, and return why this document is invalid, or ""."""
    configured = settings(file)
    from fnm_bus import build
    from fnm_bus.cli.drain import drain_as_owner

    if not build.may_drain(configured):
        return ""
    _outcome, refused = drain_as_owner(
        configured, configured.notify.drain_timeout if timeout is None else timeout
    )
    return refused.get(path.rpartition("/")[2], {}).get("reason", "")
