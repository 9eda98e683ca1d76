"""The commands for services: mitigator, enforcers and reporting consumers."""

from functools import partial
from typing import Annotated, Literal

import typer

from fnm_bus.cli.options import ConfigFile, Json, out


def mitigator(
    *,
    file: ConfigFile = None,
    once: Annotated[
        bool, typer.Option("--once", help="Process all records, then exit.")
    ] = False,
) -> None:
    """Decide about events by the policy, and write the wanted state.

    Only one mitigator is active; a second one is a standby. After SIGTERM, active
    mitigations continue until their leases expire.

    Example:
        fnm-bus-consumer mitigator --config /etc/fnm-bus/fnm-bus.toml
    """
    from consumers import build
    from consumers.metrics import MitigatorMetrics

    settings = build.load_settings(file)
    metrics = MitigatorMetrics()
    service = build.build_mitigator(settings, metrics)
    service.once = once
    build.serve(settings, service, metrics.registry())


def demo(*, file: ConfigFile = None) -> None:
    """Show the decisions of the demo's policy about the events of `fnm-bus demo`.

    `fnm-bus demo` runs this command at its end. It only reads the topics, and refuses
    any configuration except a demo's. For your own policy and topics use `explain`.

    Example:
        fnm-bus-consumer demo --config /tmp/fnm-bus-demo-x/fnm-bus.toml
    """
    from consumers import build
    from consumers.demo.policy_preview import preview

    for line in preview(build.load_settings(file)):
        out(line)


def demo_bgp() -> None:
    """Show how a route appears in a BGP neighbor's table, and is withdrawn.

    Starts a broker, a relay, the mitigator, ExaBGP and BIRD 2 (install BIRD first) on
    loopback, and stops them at the end. Needs no root. Ignores the configured spool,
    broker and neighbor.

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
        bool, typer.Option("--api", hidden=True, help="Run the enforcer.")
    ] = False,
    watchdog: Annotated[
        bool, typer.Option("--watchdog", hidden=True, help="Run the watchdog.")
    ] = False,
) -> None:
    """Announce blackholes and FlowSpec rules to a BGP neighbor.

    Starts ExaBGP, which starts the enforcer and a watchdog as its API processes. When
    ExaBGP ends, the neighbor withdraws all routes; the next start announces them again.

    Example:
        fnm-bus-consumer exabgp --config /etc/fnm-bus/fnm-bus.toml
    """
    from consumers import serving
    from consumers.enforcers import build
    from consumers.enforcers.exabgp import config
    from consumers.enforcers.exabgp import watchdog as watchdog_program
    from consumers.enforcers.exabgp.backend import ExabgpBackend
    from consumers.enforcers.exabgp.session import pipes
    from consumers.metrics import EnforcerMetrics

    if not (api or watchdog):
        settings = serving.load_settings(file)
        table = settings.consumers.exabgp
        check = partial(build.check_enforcer, settings, table)
        config.run(table, file, check_enforcer=check)
    with config.recorded_failure():
        settings = serving.load_settings(file)
        table = settings.consumers.exabgp
        if api:
            metrics = EnforcerMetrics()
            backend = ExabgpBackend(*pipes(), table)
            enforcer = build.build_enforcer(settings, table, backend, metrics)
    if watchdog:
        watchdog_program.run(table)
        return
    # ExaBGP blocks while an API process does not read.
    backend.open(on_exit=enforcer.stop)
    with config.recorded_failure():
        serving.serve(settings, enforcer, metrics.registry())


def nftables(*, file: ConfigFile = None) -> None:
    """Drop traffic in this machine's firewall; the kernel ends each lease.

    Needs CAP_NET_ADMIN.

    Example:
        fnm-bus-consumer nftables
    """
    from consumers import serving
    from consumers.enforcers import build
    from consumers.enforcers.nftables.backend import NftablesBackend
    from consumers.metrics import EnforcerMetrics

    settings = serving.load_settings(file)
    table = settings.consumers.nftables
    metrics = EnforcerMetrics()
    backend = NftablesBackend(table)
    enforcer = build.build_enforcer(settings, table, backend, metrics)
    serving.serve(settings, enforcer, metrics.registry())


def notifier(*, file: ConfigFile = None) -> None:
    """Send one notice for each storm: webhook, Alertmanager, chat, paging, mail.

    Example:
        fnm-bus-consumer notifier
    """
    from consumers import serving
    from consumers.notifier import service

    service.main(serving.load_settings(file))


def jsonlines(
    *,
    line_format: Annotated[
        Literal["json", "ecs", "cef"] | None,
        typer.Option(
            "--format",
            help="json: every field. ecs: Elastic Common Schema. cef: Common Event"
            " Format. Else [consumers.jsonlines] format.",
        ),
    ] = None,
    file: ConfigFile = None,
) -> None:
    """Append decoded events to a file or stdout, one line for each.

    Examples:
        fnm-bus-consumer jsonlines | jq .event.action
        fnm-bus-consumer jsonlines --format cef
    """
    from consumers import jsonlines as program
    from consumers import serving

    program.main(serving.load_settings(file), line_format)


def check(
    program: Annotated[
        str,
        typer.Argument(
            help="The program whose rights are checked: mitigator, exabgp, nftables,"
            " notifier, jsonlines or operator."
        ),
    ] = "mitigator",
    *,
    file: ConfigFile = None,
    json: Json = False,
) -> None:
    """Check Kafka, the topics, the rights of a program, the policy and the state.

    Prints one line for each check, with a remedy if it failed. Changes nothing, and
    needs only the rights of the program. Checks the policy and the active mitigations
    for the mitigator and the operator only. Exits with status 1 if a check failed.

    Examples:
        fnm-bus consumer check

        fnm-bus consumer check exabgp --config /etc/fnm-bus/exabgp.toml
    """
    from consumers import build
    from consumers.check_all import run_checks
    from fnm_bus.cli.check_results import end_with

    end_with(list(run_checks(build.load_settings(file), program)), json=json)
