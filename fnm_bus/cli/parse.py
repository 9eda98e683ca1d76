"""`fnm-bus parse`: what a notification would become."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fnm_bus.cli.options import ConfigFile, Json, complain, dump, end, out, settings
from fnm_bus.errors import InvalidNotification
from fnm_bus.hook import python_hook


def parse(
    context: typer.Context,
    *,
    source: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="The document. Else stdin."),
    ] = None,
    file: ConfigFile = None,
    json: Json = False,
) -> None:
    """Show the record that a notification would become; publish nothing.

    Further arguments are those of FastNetMon's call. Ends with status 65 when the
    notification is invalid, and says which field, what was wanted and what came.

    Examples:
        fnm-bus parse < ban.json

        fnm-bus parse --json < ban.json | jq .value.attack_details

        fnm-bus parse 192.0.2.1 incoming 98765 ban < report.txt
    """
    known = settings(file)
    from fnm_bus import build
    from fnm_bus.avro.codec import Codec
    from fnm_bus.cli import render
    from fnm_bus.relay.pipeline import Pipeline
    from fnm_bus.spool.entry import Entry

    document = _document(source, context.args)
    entry = Entry(
        "parsed",
        tuple(context.args),
        document,
        datetime.now(UTC),
        len(document),
        "",
    )
    # Single-object: to look at a notification nobody should need pinned ids.
    line = Pipeline(known.sensor, build.topic_names(known), Codec())
    try:
        record, event, drift = line.prepare(entry, 0)
    except InvalidNotification as exc:
        if json:
            dump({"error": exc.as_dict()})
        else:
            complain(exc.reason)
        end(exc.exit_code)
    for mismatch in drift:
        complain(str(mismatch))
    if json:
        dump(
            {
                "topic": record.topic,
                "key": render.text(record.key),
                "headers": render.headers(record.headers),
                "value": render.value(event),
            }
        )
        return
    out(f"topic    {record.topic}")
    out(f"key      {render.text(record.key)}")
    for name, value in render.headers(record.headers).items():
        out(f"header   {name}: {value}")
    out(f"value    {len(record.value or b'')} bytes of Avro from {len(document)}")
    _show(render.value(event), "")


def _document(source: Path | None, arguments: list[str]) -> bytes:
    if source is None:
        return python_hook.read_stdin(arguments)
    try:
        return source.read_bytes()
    except OSError as exc:
        raise typer.BadParameter(
            f"{source}: {exc.strerror}", param_hint="--file"
        ) from exc


def _show(values: dict[str, object], above: str) -> None:
    """Print what is set, a line for each leaf."""
    for key, value in values.items():
        if isinstance(value, dict):
            _show(value, f"{above}{key}.")
        elif value not in (None, "", (), []):
            out(f"  {above}{key} = {value}")
