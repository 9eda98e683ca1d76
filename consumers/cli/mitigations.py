"""`mitigations`: list mitigations, and send commands to the mitigator."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fnm_bus.cli.options import ConfigFile, Json, complain, dump, end, out, say
from fnm_bus.ops.terminal import visible

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
    from consumers.mitigation.states import ENDED, PAUSE

    stored = reading.read_wanted_state(build.load_settings(file))
    for key, error in stored.unreadable:
        complain(f"left out: {key}: {error}")
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
            say(f"PAUSED, no mitigation is in force. {record.cause}")
    mitigations = [record for record in listed if record.kind != PAUSE]
    if not mitigations:
        say("No active mitigations.")
        return
    out(_columns("STATE", "LEFT", "REASONS", "MITIGATION", "CAUSE"))
    for record in mitigations:
        count = str(_count_reasons(record))
        cells = _state(record), _time_left(record), count, record.key, record.cause
        out(_columns(*cells))


@app.command()
def show(key: Key, *, file: ConfigFile = None, json: Json = False) -> None:
    """Show one mitigation with up to five of its reasons.

    Exits with status 1 if the mitigation does not exist.

    Example:
        fnm-bus mitigations show 'blackhole|203.0.113.7/32'
    """
    from consumers import build, reading

    record = _find(build.load_settings(file), key)
    if json:
        dump(reading.to_json(record))
        return
    for name, value in reading.to_json(record).items():
        text = _text(value)
        if name != "reasons" and text:
            out(f"{name:<16} {text}")
    for number, reason in enumerate(record.reasons, start=1):
        source = f"sensor {reason.sensor}" if reason.sensor else f"by {reason.by}"
        size = f", {reason.pps} packets/s" if reason.pps is not None else ""
        size += f", {reason.bits} bit/s" if reason.bits is not None else ""
        dry = ", dry run" if reason.dry_run else ""
        text = (
            f"reason {number:<9} {reason.action} of {reason.target}, {source}, rule"
            f" {reason.rule or '-'}, attack {reason.attack or '-'}"
            f" {reason.direction}{size}{dry}"
        )
        out(text)
    further = _count_reasons(record) - len(record.reasons)
    if further > 0:
        out(f"… and {further} further reasons")


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
    records = [_find(settings, key) for key in keys]
    for record in records:
        effect = record.pending
        then = effect.then.action if effect and effect.then else record.kind
        text = f"{record.key}: {then}, revision {record.revision}: {record.cause}"
        say(text)
    comment = _prompt(comment)
    codes = [
        _send_one(
            settings, "approve", by, comment, record.key, revision=record.revision
        )
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
    _check_enforcer(enforcer)
    fields |= {"kind": kind, "lease_ms": round(lease * 1000), "place": enforcer}
    end(_send(build.load_settings(file), "add", by, _prompt(comment), **fields))


@app.command()
def pause(*, file: ConfigFile = None, comment: Comment = "", by: By = None) -> None:
    """Withdraw every mitigation at once, and start none until `resume`.

    Leases continue to expire; enforcers obey without waiting for the mitigator.

    Example:
        fnm-bus mitigations pause --comment 'wrong policy'
    """
    from consumers import build

    end(_send(build.load_settings(file), "pause", by, _prompt(comment)))


@app.command()
def resume(*, file: ConfigFile = None, comment: Comment = "", by: By = None) -> None:
    """End a pause: every mitigation that still has a reason is in force again.

    Example:
        fnm-bus mitigations resume --comment 'policy corrected'
    """
    from consumers import build

    end(_send(build.load_settings(file), "resume", by, _prompt(comment)))


def _send_all(
    file: Any, verb: str, keys: list[str], by: str | None, comment: str
) -> None:
    from consumers import build

    settings, text = build.load_settings(file), _prompt(comment)
    end(max(_send_one(settings, verb, by, text, key) for key in keys))


def _send_one(  # noqa: PLR0913, PLR0917 - as `_send` has them
    settings: "FullSettings",
    verb: str,
    by: str | None,
    comment: str,
    key: str,
    revision: int | None = None,
) -> int:
    """Send one of several commands; an error does not prevent the others."""
    from fnm_bus.errors import FnmBusError

    try:
        return _send(settings, verb, by, comment, key=key, revision=revision)
    except FnmBusError as exc:
        complain(f"{key}: {exc}")
        return exc.exit_code


def _send(
    settings: "FullSettings", verb: str, by: str | None, comment: str, **fields: Any
) -> int:
    """Send a command and print the answer; return the exit status."""
    from consumers.mitigation.command_client import new_command, send_command
    from fnm_bus import build
    from fnm_bus.errors import SchemaError

    try:
        codec = build.reading_codec(settings)
    except SchemaError:  # a command must not depend on the schema ids file
        codec = build.independent_codec(settings)
    command = new_command(verb, by, comment, **fields)
    kafka, topics = build.kafka(settings), build.topics(settings)
    answer = send_command(kafka, topics, codec, command)
    key = answer.key if answer.key and answer.key not in answer.text else ""
    say(" ".join(filter(None, (f"{answer.action}:", key, answer.text))))
    return 1 if answer.action == "refused" else 0


def _prompt(comment: str) -> str:
    if not comment and sys.stdin.isatty():
        text: str = typer.prompt("Comment", default="", show_default=False)
        return text
    return comment


def _find(settings: "FullSettings", key: str) -> "Mitigation":
    from consumers import reading

    stored = reading.read_wanted_state(settings)
    matches = (record for record in stored.records() if record.key == key)
    record = next(matches, None)
    if record is None:
        complain(f"mitigation {key} does not exist; `mitigations list --all` lists all")
        end(1)
    return record


def _check_enforcer(name: str | None) -> None:
    from consumers.mitigation.enforcer_names import ENFORCERS

    if name is not None and name not in ENFORCERS:
        raise typer.BadParameter(
            f"{name} is unknown; expected {', '.join(ENFORCERS)}",
            param_hint="--enforcer",
        )


def _count_reasons(record: "Mitigation") -> int:
    return record.live_reasons + record.pending_reasons + record.dry_reasons


def _state(record: "Mitigation") -> str:
    return f"{record.state} (dry)" if record.dry_run else record.state


def _text(value: Any) -> str:
    """Return a field of a record for people; "" for an unset field."""
    if isinstance(value, list | tuple):
        return ", ".join(_text(element) for element in value)
    if isinstance(value, dict):
        parts = ((name, _text(element)) for name, element in value.items())
        return " ".join(f"{name}={text}" for name, text in parts if text)
    if value is None or value is False or str(value).startswith("1970-01-01"):
        return ""
    return "yes" if value is True else str(value)


def _time_left(record: "Mitigation") -> str:
    seconds = (record.expires_at - datetime.now(UTC)).total_seconds()
    return f"{seconds:.0f} s" if seconds > 0 else "-"


def _columns(*cells: str) -> str:
    widths = (16, 8, 7, 34)
    texts = [visible(cell) for cell in cells]
    padded = (f"{text:<{width}}" for text, width in zip(texts, widths, strict=False))
    return "  ".join([*padded, texts[-1]])
