"""`fnm-bus relay`: the service."""

import math
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from fnm_bus.cli.options import ConfigFile, complain, end, say, settings
from fnm_bus.errors import ConfigError

if TYPE_CHECKING:
    from fnm_bus.relay.one_shot import DrainOutcome

LEFT = 75


def relay(
    *,
    file: ConfigFile = None,
    once: Annotated[
        bool, typer.Option("--once", help="Drain the spool, then end.")
    ] = False,
    deadline: Annotated[
        float, typer.Option(min=0, help="With --once: seconds that this may take.")
    ] = 3600.0,
) -> None:
    """Take what is in the spool to Kafka, for as long as it runs.

    Runs as the spool's owner; root gives its rights up first. A second relay stands by
    until the first one ends. SIGTERM ends it when the records in flight are
    acknowledged, after [relay] flush seconds at most.

    Examples:
        fnm-bus relay

        fnm-bus relay --once --deadline 30
    """
    from fnm_bus import build
    from fnm_bus.ops import cpu_priority
    from fnm_bus.relay.metrics import RelayMetrics
    from fnm_bus.spool.spool import Spool

    known = settings(file)
    Spool(known.spool.directory).become_owner()
    cpu_priority.lower(known.relay.nice)
    if once:
        ended, _refused = build.drain_once(known, deadline)
        _once(ended, build.drain_pause(known))
        return
    metrics = RelayMetrics()
    it = build.build_relay(known, metrics)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: it.stop())
    server = build.build_http_server(known, it, metrics)
    try:
        port = server.start()
    except ConfigError as exc:
        raise ConfigError(
            f"{exc}; a second relay on this machine needs a port of its own: set"
            " [relay] metrics_port or FNM_BUS_RELAY__METRICS_PORT, 0 takes a free one"
        ) from exc
    say(f"fnm-bus: metrics and health on {known.relay.metrics_host}:{port}")
    try:
        it.run()
    finally:
        server.stop()


def _once(ended: "DrainOutcome", pause: float) -> None:
    from fnm_bus.relay.one_shot import DrainOutcome

    if ended in {DrainOutcome.EMPTY, DrainOutcome.LOCKED}:
        say(f"fnm-bus: {ended.value}")
        return
    again = f"; next attempt in {math.ceil(pause)} s at the earliest" if pause else ""
    complain(f"{ended.value}{again}")
    end(LEFT)
