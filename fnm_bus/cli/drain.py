"""`fnm-bus drain`: publish the spool's entries once."""

import math
from typing import TYPE_CHECKING, Annotated

import typer

from fnm_bus.cli.options import ConfigFile, end, print_error, print_note, settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fnm_bus.config.settings import Settings
    from fnm_bus.relay.one_shot import DrainOutcome

NOT_DRAINED = 75


def drain(
    *,
    file: ConfigFile = None,
    timeout: Annotated[
        float, typer.Option(min=0, help="Seconds that the drain may take.")
    ] = 3600.0,
) -> None:
    """Publish the spool's entries to Kafka, then exit.

    Runs as the spool's owner; root gives up its rights first. If another process
    drains the spool, exits immediately with status 0. If entries are left, exits with
    status 75.

    Examples:
        fnm-bus drain

        fnm-bus drain --timeout 30
    """
    from fnm_bus.relay.one_shot import DrainOutcome
    from fnm_bus.spool.drain_backoff import Backoff

    configured = settings(file)
    outcome, _refused = drain_as_owner(configured, timeout)
    if outcome in {DrainOutcome.EMPTY, DrainOutcome.LOCKED}:
        print_note(f"fnm-bus: {outcome.value}")
        return
    pause = Backoff(configured.spool.directory).seconds_left()
    retry = f"; next attempt in {math.ceil(pause)} s at the earliest" if pause else ""
    print_error(f"{outcome.value}{retry}")
    end(NOT_DRAINED)


def drain_as_owner(
    configured: "Settings", timeout: float
) -> "tuple[DrainOutcome, Mapping[str, Mapping[str, str]]]":
    """Drain as the spool's owner, with a low CPU priority: see `build.drain_once`."""
    from fnm_bus import build
    from fnm_bus.ops import cpu_priority
    from fnm_bus.spool.spool import Spool

    Spool(configured.spool.directory).become_owner()
    cpu_priority.lower(configured.relay.cpu_nice)
    return build.drain_once(configured, timeout)
