"""`fnm-bus simulate`: a made-up attack through the real notify path."""

import time
from ipaddress import ip_network
from typing import Annotated

import typer

from fnm_bus import hook
from fnm_bus.cli.options import ConfigFile, end, say, settings


def simulate(  # noqa: PLR0913 - one parameter for each option
    *,
    file: ConfigFile = None,
    network: Annotated[
        str, typer.Option(help="Whose hosts are attacked.")
    ] = "203.0.113.0/24",
    hosts: Annotated[int, typer.Option(min=1, help="How many of them.")] = 10,
    updates: Annotated[
        int, typer.Option(min=0, help="Status updates for each host.")
    ] = 2,
    hostgroup: Annotated[
        str, typer.Option(help="The group they are in.")
    ] = "customers",
    rate: Annotated[
        float, typer.Option(min=0, help="Calls in a second; 0 is all at once.")
    ] = 20.0,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal documents.")] = 1,
) -> None:
    """Play a made-up attack: bans, a hostgroup, Flow Spec, status updates, unbans.

    Each document is stored in the spool as the hook does it, with a name of its own. A
    relay, or `fnm-bus relay --once`, takes them to Kafka. Consumers cannot tell them
    from real ones but by the network: choose one that is yours to try things on.

    Examples:
        fnm-bus simulate

        fnm-bus simulate --hosts 1000 --rate 0 --seed 7
    """
    from fnm_bus.simulate import Attack

    known = settings(file)
    try:
        target = ip_network(network)
    except ValueError as exc:
        raise typer.BadParameter(f"{exc}", param_hint="--network") from exc
    calls = list(Attack(target, hosts, updates, hostgroup, seed).calls())
    spool, fallback = str(known.spool.directory), str(known.spool.fallback)
    began, refused = time.monotonic(), 0
    for number, call in enumerate(calls, 1):
        try:
            _path, trouble = hook.keep(spool, fallback, call.arguments, call.document)
        except OSError as exc:
            say(f"fnm-bus: {exc}; is the spool set up? `fnm-bus hook install` makes it")
            end(hook.TRY_LATER)
        refused += bool(trouble)
        if number % 100 == 0 or number == len(calls):
            say(f"fnm-bus: {number} of {len(calls)} calls stored")
        if rate:
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
    if refused:
        say(f"fnm-bus: {refused} of them in the fallback spool")
        end(hook.TRY_LATER)
