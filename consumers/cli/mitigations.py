"""`mitigations`: list mitigations, and send commands to the mitigator."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from consumers.cli.command_sender import prompt, send, send_one
from fnm_bus.cli.options import (
    ConfigFile,
    Json,
    dump,
    end,
    out,
    print_error,
    print_note,
)

if TYPE_CHECKING:
    from consumers.settings import FullSettings
    from fnm_bus.event import Mitigation

app = typer.Typer(
    help="List mitigations, and send commands to the mitigator.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

By = Annotated[str | None, typer.Option("--by", help="Your name. Default: your login.")]
Comment = Annotated[
    str, typer.Option("--comment", help="The reason, for the audit topic.")
]
Key = Annotated[str, typer.Argument(help="The mitigation, as `list` shows it.")]
Keys = Annotated[list[str], typer.Argument(help="Mitigations, as `list` shows them.")]


@app.command("list")
def list_(
    *,
    file: ConfigFile = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Include ended mitigations.")
    ] = False,
    json: Json = False,
) -> None:
    """List active mitigations: state, time left, reasons, cause.

    Examples:
        fnm-bus mitigations list

        fnm-bus mitigations list --all --json | jq .key
    """
    from consumers import build, reading
    from consumers.cli import mitigation_text
    from consumers.mitigation.states import ENDED, PAUSE

    stored = reading.read_wanted_state(build.load_settings(file))
    for key, error in stored.unreadable:
        print_error(f"left out: {key}: {error}")
    records = sorted(stored.records(), key=lambda record: record.created_at)
    listed = [
        record
        for record in records
        if everything or record.state != ENDED or record.kind == PAUSE
    ]
    if json:
        for record in listed:
            dump(reading.to_json(record))
        return
    for record in listed:
        if record.kind == PAUSE and record.state != ENDED:
            print_note(f"PAUSED, no mitigation is in force. {record.cause}")
    mitigations = [record for record in listed if record.kind != PAUSE]
    if not mitigations:
        print_note("No active mitigations.")
        return
    for line in mitigation_text.table(mitigations):
        out(line)


@app.command()
def show(key: Key, *, file: ConfigFile = None, json: Json = False) -> None:
    """Show one mitigation with up to five of its reasons.

    Exits with status 1 if the mitigation does not exist.

    Example:
        fnm-bus mitigations show 'blackhole|203.0.113.7/32'
    """
    from consumers import build, reading
    from consumers.cli import mitigation_text

    record = _find_mitigation(build.load_settings(file), key)
    if json:
        dump(reading.to_json(record))
        return
    for line in mitigation_text.details(record, reading.to_json(record)):
        out(line)


@app.command()
def approve(
    keys: Keys, *, file: ConfigFile = None, comment: Comment = "", by: By = None
) -> None:
    """Start proposed mitigations, or lift suppressed ones.

    The approval names the stored revision. If the mitigation changes before the
    approval arrives, the mitigator refuses the approval.

    Example:
        fnm-bus mitigations approve 'blackhole|203.0.113.7/32' --comment 4711
    """
    from consumers import build

    settings = build.load_settings(file)
    records = [_find_mitigation(settings, key) for key in keys]
    for record in records:
        effect = record.pending
        then = effect.then.action if effect and effect.then else record.kind
        text = f"{record.key}: {then}, revision {record.revision}: {record.cause}"
        print_note(text)
    comment = prompt(comment)
    codes = [
        send_one(settings, "approve", by, comment, record.key, revision=record.revision)
        for record in records
    ]
    end(max(codes))


@app.command()
def reject(
    keys: Keys, *, file: ConfigFile = None, comment: Comment = "", by: By = None
) -> None:
    """Keep proposed mitigations from starting while their attacks continue.

    Example:
        fnm-bus mitigations reject 'blackhole|203.0.113.7/32' --comment backup
    """
    _send_all(file, "reject", keys, by, comment)


@app.command()
def withdraw(
    keys: Keys, *, file: ConfigFile = None, comment: Comment = "", by: By = None
) -> None:
    """End mitigations, and suppress them while their attacks continue.

    Example:
        fnm-bus mitigations withdraw 'blackhole|203.0.113.7/32' --comment 4711
    """
    _send_all(file, "withdraw", keys, by, comment)


@app.command()
def add(  # noqa: PLR0913 - one parameter for each option
    prefix: Annotated[str, typer.Argument(help="A network of yours, such as a /32.")],
    *,
    kind: Annotated[
        str, typer.Option(help="blackhole, firewall, flowspec or notify.")
    ] = "blackhole",
    protocol: Annotated[
        list[str] | None, typer.Option(help="With flowspec: a protocol, such as udp.")
    ] = None,
    source_port: Annotated[
        list[int] | None, typer.Option(min=0, max=65_535, help="With flowspec.")
    ] = None,
    destination_port: Annotated[
        list[int] | None, typer.Option(min=0, max=65_535, help="With flowspec.")
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(min=1, help="With flowspec: limit in bytes/s. Default: discard."),
    ] = None,
    lease: Annotated[
        float, typer.Option(min=5, max=86_400, help="Seconds until the measure ends.")
    ] = 900.0,
    enforcer: Annotated[
        str | None,
        typer.Option(help="The enforcer that applies it. Default: each suitable one."),
    ] = None,
    file: ConfigFile = None,
    comment: Comment = "",
    by: By = None,
) -> None:
    """Start a measure by hand. The guardrails check it like any measure.

    Examples:
        fnm-bus mitigations add 203.0.113.7/32 --lease 600 --comment 'ticket 4711'

        fnm-bus mitigations add 203.0.113.7/32 --kind flowspec --protocol udp
        --source-port 123
    """
    from consumers import build

    fields: dict[str, Any] = {"prefix": prefix}
    if kind == "flowspec":
        from fnm_bus.event import FlowMatch, FlowThen

        action = "discard" if rate is None else "rate-limit"
        flow = FlowMatch(
            destination_prefix=prefix,
            protocols=tuple(protocol or ()),
            source_ports=tuple(source_port or ()),
            destination_ports=tuple(destination_port or ()),
        )
        fields = {"flow": flow, "then": FlowThen(action=action, rate=rate)}
    elif protocol or source_port or destination_port or rate is not None:
        raise typer.BadParameter(
            "protocols, ports and rates need --kind flowspec", param_hint="--kind"
        )
    _validate_enforcer(enforcer)
    fields |= {"kind": kind, "lease_ms": round(lease * 1000), "place": enforcer}
    end(send(build.load_settings(file), "add", by, prompt(comment), **fields))


@app.command()
def pause(*, file: ConfigFile = None, comment: Comment = "", by: By = None) -> None:
    """Withdraw every mitigation at once, and start none until `resume`.

    Leases continue to expire; enforcers obey without waiting for the mitigator.

    Example:
        fnm-bus mitigations pause --comment 'wrong policy'
    """
    from consumers import build

    end(send(build.load_settings(file), "pause", by, prompt(comment)))


@app.command()
def resume(*, file: ConfigFile = None, comment: Comment = "", by: By = None) -> None:
    """End a pause: every mitigation that still has a reason is in force again.

    Example:
        fnm-bus mitigations resume --comment 'policy corrected'
    """
    from consumers import build

    end(send(build.load_settings(file), "resume", by, prompt(comment)))


def _send_all(
    file: Any, verb: str, keys: list[str], by: str | None, comment: str
) -> None:
    from consumers import build

    settings, text = build.load_settings(file), prompt(comment)
    end(max(send_one(settings, verb, by, text, key) for key in keys))


def _find_mitigation(settings: "FullSettings", key: str) -> "Mitigation":
    from consumers import reading

    stored = reading.read_wanted_state(settings)
    matches = (record for record in stored.records() if record.key == key)
    record = next(matches, None)
    if record is None:
        print_error(
            f"mitigation {key} does not exist; `mitigations list --all` lists all"
        )
        end(1)
    return record


def _validate_enforcer(name: str | None) -> None:
    from consumers.mitigation.enforcer_names import ENFORCERS

    if name is not None and name not in ENFORCERS:
        raise typer.BadParameter(
            f"{name} is unknown; expected {', '.join(ENFORCERS)}",
            param_hint="--enforcer",
        )
