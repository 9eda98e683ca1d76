"""`mitigations`: list mitigations, and send commands to the mitigator."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fnm_bus.cli.options import (
    ConfigFile,
    Json,
    dump,
    end,
    out,
    print_error,
    print_note,
)
from fnm_bus.ops.terminal import visible

if TYPE_CHECKING:
    from consumers.settings import FullSettings
    from fnm_bus.event import Mitigation

app = typer.Typer(
    help="List mitigations, and ask the mitigator to change them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

By = Annotated[str | None, typer.Option("--by", help="Your name. Default: your login.")]
Why = Annotated[str, typer.Option("--why", help="The reason, for the audit topic.")]
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

    stored = reading.read_wanted_state(build.settings(file))
    for key, error in stored.unreadable:
        print_error(f"left out: {key}: {error}")
    records = sorted(stored.records(), key=lambda record: record.created_at)
    shown = [
        record
        for record in records
        if everything or record.state != ENDED or record.kind == PAUSE
    ]
    if json:
        for record in shown:
            dump(reading.to_json(record))
        return
    pause = next((r for r in shown if r.kind == PAUSE and r.state != ENDED), None)
    if pause is not None:
        print_note(f"PAUSED, nothing is in force. {pause.cause}")
    rows = [record for record in shown if record.kind != PAUSE]
    if not rows:
        print_note("No active mitigations.")
        return
    out(_columns("STATE", "LEFT", "REASONS", "MITIGATION", "CAUSE"))
    for record in rows:
        count = record.live_reasons + record.pending_reasons + record.dry_reasons
        out(
            _columns(
                _state(record), _left(record), str(count), record.key, record.cause
            )
        )


@app.command()
def show(key: Key, *, file: ConfigFile = None, json: Json = False) -> None:
    """Show one mitigation with up to five of its reasons. Status 1 if there is none.

    Example:
        fnm-bus mitigations show 'blackhole|203.0.113.7/32'
    """
    from consumers import build, reading

    record = _find(build.settings(file), key)
    if json:
        dump(reading.to_json(record))
        return
    for name, value in reading.to_json(record).items():
        text = _text(value)
        if name != "reasons" and text:
            out(f"{name:<16} {text}")
    for number, reason in enumerate(record.reasons, start=1):
        who = f"sensor {reason.sensor}" if reason.sensor else f"by {reason.by}"
        size = f", {reason.pps} packets/s" if reason.pps is not None else ""
        size += f", {reason.bits} bit/s" if reason.bits is not None else ""
        dry = ", dry run" if reason.dry_run else ""
        text = (
            f"reason {number:<9} {reason.action} of {reason.target}, {who}, rule"
            f" {reason.rule or '-'}, attack {reason.attack or '-'}"
            f" {reason.direction}{size}{dry}"
        )
        out(text)
    count = record.live_reasons + record.pending_reasons + record.dry_reasons
    if count > len(record.reasons):
        out(f"… and {count - len(record.reasons)} further reasons")


@app.command()
def approve(
    keys: Keys, *, file: ConfigFile = None, why: Why = "", by: By = None
) -> None:
    """Start proposed mitigations, or lift suppressed ones.

    The approval names the revision that is stored now: if something changes before it
    arrives, the mitigator refuses it.

    Example:
        fnm-bus mitigations approve 'blackhole|203.0.113.7/32' --why 4711
    """
    from consumers import build

    settings = build.settings(file)
    records = [_find(settings, key) for key in keys]
    for record in records:
        effect = record.pending
        then = effect.then.action if effect and effect.then else record.kind
        text = f"{record.key}: {then}, revision {record.revision}: {record.cause}"
        print_note(text)
    why = _prompt(why)
    codes = [
        _send_one(settings, "approve", by, why, record.key, revision=record.revision)
        for record in records
    ]
    end(max(codes))


@app.command()
def reject(
    keys: Keys, *, file: ConfigFile = None, why: Why = "", by: By = None
) -> None:
    """Keep proposed mitigations from starting while their attacks continue.

    Example:
        fnm-bus mitigations reject 'blackhole|203.0.113.7/32' --why 'a backup'
    """
    _send_all(file, "reject", keys, by, why)


@app.command()
def withdraw(
    keys: Keys, *, file: ConfigFile = None, why: Why = "", by: By = None
) -> None:
    """End mitigations; they stay suppressed while their attacks continue.

    Example:
        fnm-bus mitigations withdraw 'blackhole|203.0.113.7/32' --why 'customer called'
    """
    _send_all(file, "withdraw", keys, by, why)


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
        float, typer.Option(min=5, max=86_400, help="Seconds until it ends by itself.")
    ] = 900.0,
    enforcer: Annotated[
        str | None,
        typer.Option(help="The enforcer that applies it. Default: all that can."),
    ] = None,
    file: ConfigFile = None,
    why: Why = "",
    by: By = None,
) -> None:
    """Start a measure by hand. The guardrails check it like any other.

    Examples:
        fnm-bus mitigations add 203.0.113.7/32 --lease 600 --why 'ticket 4711'

        fnm-bus mitigations add 203.0.113.7/32 --kind flowspec --protocol udp
        --source-port 123
    """
    from consumers import build

    about: dict[str, Any] = {"prefix": prefix}
    if kind == "flowspec":
        from fnm_bus.event import FlowMatch, FlowThen

        action = "discard" if rate is None else "rate-limit"
        flow = FlowMatch(
            destination_prefix=prefix,
            protocols=tuple(protocol or ()),
            source_ports=tuple(source_port or ()),
            destination_ports=tuple(destination_port or ()),
        )
        about = {"flow": flow, "then": FlowThen(action=action, rate=rate)}
    elif protocol or source_port or destination_port or rate is not None:
        raise typer.BadParameter(
            "protocols, ports and rates need --kind flowspec", param_hint="--kind"
        )
    _check_enforcer(enforcer)
    milliseconds = round(lease * 1000)
    about |= {"kind": kind, "lease_ms": milliseconds, "place": enforcer}
    end(_send(build.settings(file), "add", by, _prompt(why), **about))


@app.command()
def pause(*, file: ConfigFile = None, why: Why = "", by: By = None) -> None:
    """Withdraw every mitigation at once, and start none until `resume`.

    Leases run on; enforcers obey without waiting for the mitigator.

    Example:
        fnm-bus mitigations pause --why 'wrong policy'
    """
    from consumers import build

    end(_send(build.settings(file), "pause", by, _prompt(why)))


@app.command()
def resume(*, file: ConfigFile = None, why: Why = "", by: By = None) -> None:
    """End a pause: every mitigation that still has a reason is in force again.

    Example:
        fnm-bus mitigations resume --why 'policy corrected'
    """
    from consumers import build

    end(_send(build.settings(file), "resume", by, _prompt(why)))


def _send_all(file: Any, verb: str, keys: list[str], by: str | None, why: str) -> None:
    from consumers import build

    settings, text = build.settings(file), _prompt(why)
    end(max(_send_one(settings, verb, by, text, key) for key in keys))


def _send_one(  # noqa: PLR0913, PLR0917 - as `_send` has them
    settings: "FullSettings",
    verb: str,
    by: str | None,
    why: str,
    key: str,
    revision: int | None = None,
) -> int:
    """Send one of several commands: an error keeps no other from being sent."""
    from fnm_bus.errors import FnmBusError

    try:
        return _send(settings, verb, by, why, key=key, revision=revision)
    except FnmBusError as exc:
        print_error(f"{key}: {exc}")
        return exc.exit_code


def _send(
    settings: "FullSettings", verb: str, by: str | None, why: str, **about: Any
) -> int:
    """Send a command and print the answer; return the exit status."""
    from consumers.mitigation.command_client import new_command, send_command
    from fnm_bus import build
    from fnm_bus.errors import SchemaError

    try:
        codec = build.reading_codec(settings)
    except SchemaError:  # a command must not depend on pins
        codec = build.independent_codec(settings)
    command = new_command(verb, by, why, **about)
    kafka, topics = build.kafka(settings), build.topics(settings)
    answer = send_command(kafka, topics, codec, command)
    key = answer.key if answer.key and answer.key not in answer.text else ""
    print_note(" ".join(filter(None, (f"{answer.what}:", key, answer.text))))
    return 1 if answer.what == "refused" else 0


def _prompt(why: str) -> str:
    if not why and sys.stdin.isatty():
        text: str = typer.prompt("Why", default="", show_default=False)
        return text
    return why


def _find(settings: "FullSettings", key: str) -> "Mitigation":
    from consumers import reading

    stored = reading.read_wanted_state(settings)
    record = next((r for r in stored.records() if r.key == key), None)
    if record is None:
        print_error(
            f"there is no mitigation {key}; `mitigations list --all` lists them"
        )
        end(1)
    return record


def _check_enforcer(name: str | None) -> None:
    from consumers.mitigation.enforcer_names import known_enforcers

    if name is not None and name not in known_enforcers():
        raise typer.BadParameter(
            f"{name} is unknown; expected {', '.join(known_enforcers())}",
            param_hint="--enforcer",
        )


def _state(record: "Mitigation") -> str:
    return f"{record.state} (dry)" if record.dry_run else record.state


def _text(value: Any) -> str:
    """Return a field of a record for people; "" for one that is not set."""
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, dict):
        parts = ((name, _text(item)) for name, item in value.items())
        return " ".join(f"{name}={text}" for name, text in parts if text)
    if value is None or value is False or str(value).startswith("1970-01-01"):
        return ""
    return "yes" if value is True else str(value)


def _left(record: "Mitigation") -> str:
    seconds = (record.expires_at - datetime.now(UTC)).total_seconds()
    return f"{seconds:.0f} s" if seconds > 0 else "-"


def _columns(*cells: str) -> str:
    widths = (16, 8, 7, 34)
    shown = [visible(cell) for cell in cells]
    padded = (f"{cell:<{width}}" for cell, width in zip(shown, widths, strict=False))
    return "  ".join([*padded, shown[-1]])
