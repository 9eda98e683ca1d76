"""Send commands to the mitigator, and print its answers."""

import sys
from typing import TYPE_CHECKING, Any

import typer

from fnm_bus.cli.options import print_error, print_note

if TYPE_CHECKING:
    from consumers.settings import FullSettings


def send_one(  # noqa: PLR0913, PLR0917 - as `send` has them
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
        return send(settings, verb, by, comment, key=key, revision=revision)
    except FnmBusError as exc:
        print_error(f"{key}: {exc}")
        return exc.exit_code


def send(
    settings: "FullSettings", verb: str, by: str | None, comment: str, **fields: Any
) -> int:
    """Send a command and print the answer; return the exit status."""
    from consumers.mitigation.command_client import new_command, send_command
    from fnm_bus import build
    from fnm_bus.errors import SchemaError

    try:
        codec = build.build_reading_codec(settings)
    except SchemaError:  # a command must not depend on the schema ids file
        codec = build.build_independent_codec(settings)
    command = new_command(verb, by, comment, **fields)
    kafka, topics = build.kafka_settings(settings), build.topic_names(settings)
    answer = send_command(kafka, topics, codec, command)
    key = answer.key if answer.key and answer.key not in answer.text else ""
    print_note(" ".join(filter(None, (f"{answer.action}:", key, answer.text))))
    return 1 if answer.action == "refused" else 0


def prompt(comment: str) -> str:
    """Return *comment*; if it is empty and stdin is a terminal, ask for it."""
    if not comment and sys.stdin.isatty():
        text: str = typer.prompt("Comment", default="", show_default=False)
        return text
    return comment
