"""The commands that run: the mitigator, the enforcers, and what tells people."""

from functools import partial
from typing import Annotated

import typer

from fnm_bus.cli.options import ConfigFile, Json, dump, end, out


def mitigator(
    *,
    file: ConfigFile = None,
    once: Annotated[
        bool, typer.Option("--once", help="Process what is on the topics, then end.")
    ] = False,
) -> None:
    """Decide about events by the policy, and write the wanted state.

    One mitigator is active; start a second one to stand by. SIGTERM ends it; active
    mitigations continue until their leases expire.

    Example:
        fnm-bus-consumer mitigator --config /etc/fnm-bus/fnm-bus.toml
    """
    from consumers import build
    from consumers.metrics import MitigatorMetrics

    settings = build.settings(file)
    metrics = MitigatorMetrics()
    service = build.mitigator(settings, metrics)
    service.once = once
    registry = metrics.registry()
    build.serve(settings, service, registry, service.facts, service.healthy)


def demo(*, file: ConfigFile = None) -> None:
    """Show what the demo's policy would decide about the events of `fnm-bus demo`.

    `fnm-bus demo` ends with it. It only reads the topics, and refuses every
    configuration that no demo wrote. For your own policy and topics use `explain`.

    Example:
        fnm-bus-consumer demo --config /tmp/fnm-bus-demo-x/fnm-bus.toml
    """
    from consumers import build
    from consumers.demo.policy_preview import preview

    for line in preview(build.settings(file)):
        out(line)


def demo_bgp() -> None:
    """Show how a route appears in a BGP neighbor's table, and is withdrawn.

    Starts a broker, a relay, the mitigator, ExaBGP and BIRD 2 (install it first) on
    loopback, and stops them at the end. Needs no root. Uses no configured spool,
    broker or neighbor, whatever the environment sets.

    Example:
        fnm-bus demo-bgp
    """
    import signal
    import sys

    from consumers.demo.bgp import show

    # Without this, SIGTERM would leave the child processes behind.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    for line in show():
        out(line)


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
    from consumers import serving
    from consumers.webhook import service

    service.main(serving.settings(file))


def jsonlines(*, file: ConfigFile = None) -> None:
    """Append decoded events to a file or stdout, one JSON object a line.

    Example:
        fnm-bus-consumer jsonlines | jq .event.action
    """
    from consumers import jsonlines as program
    from consumers import serving

    program.main(serving.settings(file))


def check(
    program: Annotated[
        str,
        typer.Argument(
            help="The program whose rights are needed: mitigator, exabgp, nftables,"
            " webhook, jsonlines or operator."
        ),
    ] = "mitigator",
    *,
    file: ConfigFile = None,
    json: Json = False,
) -> None:
    """Check Kafka, the topics, the rights of a program, the policy and the state.

    Each line passed or failed, with what to do. Changes nothing, and needs no other
    rights than the program itself. The policy and the active mitigations are checked
    for the mitigator and the operator only. Ends with status 1 when something failed.

    Examples:
        fnm-bus consumer check

        fnm-bus consumer check exabgp --config /etc/fnm-bus/exabgp.toml
    """
    from consumers import build
    from consumers.check_all import examine
    from fnm_bus.cli.check_results import show

    findings = list(examine(build.settings(file), program))
    if json:
        dump([it._asdict() for it in findings])
    else:
        show(findings)
    end(0 if all(it.ok for it in findings) else 1)
