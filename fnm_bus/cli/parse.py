"""`fnm-bus parse`: the record of a notification."""

from datetime import UTC, datetime

import typer

from fnm_bus.cli.options import (
    ConfigFile,
    Json,
    dump,
    end,
    out,
    print_error,
    settings,
)
from fnm_bus.errors import InvalidNotification
from fnm_bus.hook import python_hook


def parse(
    context: typer.Context,
    *,
    file: ConfigFile = None,
    json: Json = False,
) -> None:
    """Show the record that a notification would become; publish nothing.

    Further arguments are those of FastNetMon's call. If the notification is invalid,
    prints the field, the expected and the actual value, and exits with status 65.

    Examples:
        fnm-bus parse < ban.json

        fnm-bus parse --json < ban.json | jq .value.attack_details

        fnm-bus parse 192.0.2.1 incoming 98765 ban < report.txt
    """
    configured = settings(file)
    from fnm_bus import build
    from fnm_bus.avro.codec import Codec
    from fnm_bus.event import json_value
    from fnm_bus.relay.pipeline import Pipeline
    from fnm_bus.spool.entry import Entry

    document, arguments = python_hook.read_stdin(context.args), tuple(context.args)
    entry = Entry("", arguments, document, datetime.now(UTC), len(document), "")
    # Single-object encoding: this command works without schema ids.
    pipeline = Pipeline(configured.sensor, build.topic_names(configured), Codec())
    try:
        record, event, mismatches = pipeline.prepare(entry, 0)
    except InvalidNotification as exc:
        if json:
            dump({"error": exc.as_dict()})
        else:
            print_error(exc.reason)
        end(exc.exit_code)
    for mismatch in mismatches:
        print_error(str(mismatch))
    key, headers = (
        json_value.bytes_as_text(record.key),
        json_value.headers_as_text(record.headers),
    )
    value = json_value.event_as_json(event)
    if json:
        dump({"topic": record.topic, "key": key, "headers": headers, "value": value})
        return
    out(f"topic    {record.topic}")
    out(f"key      {key}")
    for name, text in headers.items():
        out(f"header   {name}: {text}")
    out(f"value    {len(record.value or b'')} bytes of Avro from {len(document)}")
    _print_fields(value, "")


def _print_fields(fields: dict[str, object], prefix: str) -> None:
    """Print each field with a value on one line, with dots for nested fields."""
    for name, value in fields.items():
        if isinstance(value, dict):
            _print_fields(value, f"{prefix}{name}.")
        elif value not in (None, "", (), []):
            out(f"  {prefix}{name} = {value}")
