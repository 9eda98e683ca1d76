"""The commands for people: look at mitigations, and ask for changes."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fnm_bus.cli.options import ConfigFile, Json, complain, dump, end, say

if TYPE_CHECKING:
    from fnm_bus.event import Command, Mitigation

app = typer.Typer(
    help="Look at mitigations, and ask the mitigator to change them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

By = Annotated[str | None, typer.Option("--by", help="Who asks. Else your login.")]
Why = Annotated[str, typer.Option("--why", help="Why; it stands in the audit topic.")]
Key = Annotated[str, typer.Argument(help="The mitigation, as `list` shows it.")]


@app.command("list")
def list_(
    *,
    file: ConfigFile = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show also what has ended.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what stands: state, how long still, why.

    Examples:
        fnm-bus-consumer mitigations list

        fnm-bus-consumer mitigations list --all --json | jq .key
    """
    from consumers import asking, wiring
    from consumers.mitigator.state import ENDED, NONE

    latest = dict(asking.wanted_state(wiring.settings(file)))
    found = [it for it in latest.values() if it is not None and it.kind != NONE]
    found = [it for it in found if everything or it.state != ENDED]
    found.sort(key=lambda it: it.started_at)
    if json:
        for it in found:
            dump(asking.as_json(it))
        return
    if not found:
        say("nothing stands")
        return
    typer.echo(_columns("STATE", "LEFT", "MITIGATION", "CAUSE"))
    for it in found:
        typer.echo(_columns(_state(it), _left(it), it.key, it.cause))


@app.command()
def show(key: Key, *, file: ConfigFile = None, json: Json = False) -> None:
    """Show one mitigation with all its reasons. Status 1 when there is none.

    Example:
        fnm-bus-consumer mitigations show 'blackhole|203.0.113.7/32'
    """
    from consumers import asking, wiring

    it = dict(asking.wanted_state(wiring.settings(file))).get(key)
    if it is None:
        complain(f"there is no mitigation {key}; `mitigations list --all` shows all")
        end(1)
    if json:
        dump(asking.as_json(it))
        return
    for name, value in asking.as_json(it).items():
        if name != "reasons" and value not in (None, "", [], ()):
            typer.echo(f"{name:<16} {value}")
    for number, reason in enumerate(it.reasons):
        kept = "holds" if reason.holds else "does not hold any more"
        typer.echo(
            f"reason {number}: {kept}; {reason.action} of {reason.target} by"
            f" {reason.sensor or 'a person'}, rule {reason.rule or '-'}, attack"
            f" {reason.attack_uuid or '-'}, renewed {reason.renewals} times, last"
            f" {reason.renewed_at:%F %T} UTC"
        )


@app.command()
def approve(key: Key, *, file: ConfigFile = None, why: Why = "", by: By = None) -> None:
    """Let a proposed mitigation begin."""
    _ask(file, "approve", by, why, key=key)


@app.command()
def deny(key: Key, *, file: ConfigFile = None, why: Why = "", by: By = None) -> None:
    """Keep a proposed mitigation from beginning while its attack goes on."""
    _ask(file, "deny", by, why, key=key)


@app.command("end")
def end_(key: Key, *, file: ConfigFile = None, why: Why = "", by: By = None) -> None:
    """End a mitigation; it does not come back while its attack goes on."""
    _ask(file, "end", by, why, key=key)


@app.command()
def add(  # noqa: PLR0913 - one parameter for each option
    prefix: Annotated[str, typer.Argument(help="A network of ours, such as a /32.")],
    *,
    kind: Annotated[
        str, typer.Option(help="blackhole, firewall, flowspec or notify.")
    ] = "blackhole",
    protocol: Annotated[
        list[str] | None, typer.Option(help="With flowspec: udp, tcp, …")
    ] = None,
    source_port: Annotated[
        list[int] | None, typer.Option(min=0, max=65_535, help="With flowspec.")
    ] = None,
    destination_port: Annotated[
        list[int] | None, typer.Option(min=0, max=65_535, help="With flowspec.")
    ] = None,
    rate: Annotated[
        int | None, typer.Option(min=1, help="With flowspec: bytes/s; else discard.")
    ] = None,
    lease: Annotated[
        float, typer.Option(min=1, help="Seconds until it ends by itself.")
    ] = 900.0,
    enforcer: Annotated[
        list[str] | None, typer.Option(help="Who is to act; else all that can.")
    ] = None,
    file: ConfigFile = None,
    why: Why = "",
    by: By = None,
) -> None:
    """Start a measure by hand. The guardrails are asked as for any other.

    Examples:
        fnm-bus-consumer mitigations add 203.0.113.7/32 --lease 600 --why 'ticket 4711'

        fnm-bus-consumer mitigations add 203.0.113.7/32 --kind flowspec --protocol udp
        --source-port 123
    """
    measure: dict[str, Any] = {"prefix": prefix}
    if kind == "flowspec":
        from fnm_bus.event import FlowMatch, FlowThen

        action = "discard" if rate is None else "rate-limit"
        flow = FlowMatch(
            destination_prefix=prefix,
            protocols=tuple(protocol or ()),
            source_ports=tuple(source_port or ()),
            destination_ports=tuple(destination_port or ()),
        )
        measure = {"flow": flow, "then": FlowThen(action=action, rate=rate)}
    _ask(
        file,
        "add",
        by,
        why,
        kind=kind,
        **measure,
        lease_ms=round(lease * 1000),
        enforcers=tuple(enforcer or ()),
    )


@app.command()
def pause(*, file: ConfigFile = None, why: Why = "", by: By = None) -> None:
    """The red button: withdraw everything at once, start nothing until `resume`."""
    _ask(file, "pause", by, why)


@app.command()
def resume(*, file: ConfigFile = None, why: Why = "", by: By = None) -> None:
    """Let mitigations start again; attacks that go on count with their next status."""
    _ask(file, "resume", by, why)


def _ask(file: Any, verb: str, by: str | None, why: str, **about: Any) -> None:
    from consumers import asking, wiring

    if not why and sys.stdin.isatty():
        why = typer.prompt("Why", default="", show_default=False)
    it: Command = asking.command(verb, by, why, **about)
    answer = asking.ask(wiring.settings(file), it)
    say(f"{answer.what}: {answer.key or ''} {answer.text}")
    end(1 if answer.what == "refused" else 0)


def _state(it: "Mitigation") -> str:
    return f"{it.state} (dry)" if it.dry_run else it.state


def _left(it: "Mitigation") -> str:
    seconds = (it.expires_at - datetime.now(UTC)).total_seconds()
    return f"{seconds:.0f} s" if seconds > 0 else "-"


def _columns(*cells: str) -> str:
    widths = (16, 8, 34)
    return "  ".join(
        [*(f"{it:<{w}}" for it, w in zip(cells, widths, strict=False)), cells[-1]]
    )
