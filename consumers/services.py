"""The commands that run: the mitigator, the enforcers, and what tells people."""

from functools import partial
from typing import Annotated

import typer

from fnm_bus.cli.options import ConfigFile, Json, dump, end


def mitigator(
    *,
    file: ConfigFile = None,
    once: Annotated[
        bool, typer.Option("--once", help="Deal with what is there, then end.")
    ] = False,
) -> None:
    """Turn events into the wanted state, by the policy.

    One mitigator is active; start a second one to stand by. SIGTERM ends it; what is
    mitigated goes on until its leases end.

    Examples:
        python -m consumers mitigator

        fnm-bus-consumer mitigator --config /etc/fnm-bus/fnm-bus.toml
    """
    from consumers import wiring
    from consumers.metrics import MitigatorMetrics

    known = wiring.settings(file)
    metrics = MitigatorMetrics()
    it = wiring.mitigator(known, metrics)
    it.once = once
    wiring.serve(known, it, metrics.registry(), lambda: {"active": it.leading})


def demo(*, file: ConfigFile = None) -> None:
    """Show what the mitigator would do about what stands on the topics, and why.

    A dry run with a policy that comes with it; `fnm-bus demo` ends with it.

    Example:
        fnm-bus-consumer demo --config /tmp/fnm-bus-demo-x/fnm-bus.toml
    """
    from consumers import wiring
    from consumers.demo import rehearse

    for line in rehearse(wiring.settings(file)):
        typer.echo(line)


def demo_bgp() -> None:
    """Show a real route appear in a real neighbor's table, and go.

    Starts everything on loopback, and stops it: a broker, a relay, the mitigator,
    ExaBGP, and BIRD 2 as the neighbor, which has to be installed. Needs no root.

    Example:
        fnm-bus-consumer demo-bgp
    """
    from consumers.demo_bgp import show

    for line in show():
        typer.echo(line)


def exabgp(
    *,
    file: ConfigFile = None,
    api: Annotated[
        bool, typer.Option("--api", help="Be the enforcer that ExaBGP starts.")
    ] = False,
    watchdog: Annotated[
        bool, typer.Option("--watchdog", help="Be the watchdog that ExaBGP starts.")
    ] = False,
) -> None:
    """Announce blackholes and FlowSpec rules to a BGP neighbor.

    Starts ExaBGP, which starts the enforcer and a watchdog as its API processes. When
    ExaBGP ends, the neighbor withdraws everything; start it again and it is back.

    Example:
        fnm-bus-consumer exabgp --config /etc/fnm-bus/fnm-bus.toml
    """
    from consumers import serving
    from consumers.enforcers import build
    from consumers.enforcers.exabgp import config
    from consumers.enforcers.exabgp import watchdog as dog
    from consumers.enforcers.exabgp.backend import ExabgpBackend
    from consumers.enforcers.exabgp.session import pipes
    from consumers.metrics import EnforcerMetrics

    if not (api or watchdog):
        known = serving.settings(file)
        of = known.consumers.exabgp
        ready = partial(build.check_enforcer, known, of)
        config.run(of, file, check_enforcer=ready)
    with config.recorded_failure():
        known = serving.settings(file)
        of = known.consumers.exabgp
        if api:
            metrics = EnforcerMetrics()
            backend = ExabgpBackend(*pipes(), of)
            it = build.build_enforcer(known, of, backend, metrics)
    if watchdog:
        dog.run(of)
        return
    # ExaBGP waits for a process that does not read.
    backend.open(when_gone=it.stop)
    with config.recorded_failure():
        serving.serve(known, it, metrics.registry(), it.facts, it.healthy)


def nftables(*, file: ConfigFile = None) -> None:
    """Drop traffic in this machine's firewall; the kernel ends each lease itself.

    Needs CAP_NET_ADMIN.

    Example:
        fnm-bus-consumer nftables
    """
    from consumers import serving
    from consumers.enforcers import build
    from consumers.enforcers.nftables.backend import NftablesBackend
    from consumers.metrics import EnforcerMetrics

    known = serving.settings(file)
    of = known.consumers.nftables
    metrics = EnforcerMetrics()
    it = build.build_enforcer(known, of, NftablesBackend(of), metrics)
    serving.serve(known, it, metrics.registry(), it.facts, it.healthy)


def webhook(*, file: ConfigFile = None) -> None:
    """Tell people by HTTP: one notice for each storm.

    Example:
        fnm-bus-consumer webhook
    """
    from consumers import wiring
    from consumers.webhook import service as it

    it.main(wiring.settings(file))


def jsonlines(*, file: ConfigFile = None) -> None:
    """Append decoded events to a file or stdout, one JSON object a line.

    Example:
        fnm-bus-consumer jsonlines | jq .event.action
    """
    from consumers import jsonlines as it
    from consumers import wiring

    it.main(wiring.settings(file))


def check(*, file: ConfigFile = None, json: Json = False) -> None:
    """Look at the policy, the topics, what stands, and the programs that enforce.

    Each line passed or failed, with what to do. Changes nothing. Ends with status 1
    when something failed.

    Example:
        fnm-bus-consumer check
    """
    from consumers import wiring
    from consumers.examine import examine
    from fnm_bus.cli.findings import show

    findings = list(examine(wiring.settings(file)))
    if json:
        dump([it._asdict() for it in findings])
    else:
        show(findings)
    end(0 if all(it.ok for it in findings) else 1)
