"""`fnm-bus tail`: events as they arrive on the topics."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fnm_bus.cli.options import ConfigFile, Json, dump, out, print_note, settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from fnm_bus.avro.archive import Archive
    from fnm_bus.kafka.addressing import Topics
    from fnm_bus.kafka.reader import ConsumedRecord


def tail(  # noqa: PLR0913 - one parameter for each option
    topic: Annotated[
        list[str] | None,
        typer.Argument(help="Topics. Else the configured host, hostgroup and status."),
    ] = None,
    *,
    file: ConfigFile = None,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Start with the oldest records.")
    ] = False,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Exit at the end of the topics.")
    ] = False,
    count: Annotated[
        int, typer.Option("--count", "-n", min=0, help="Exit after N; 0 never exits.")
    ] = 0,
    json: Json = False,
    avro: Annotated[
        Path | None,
        typer.Option(
            "--avro",
            metavar="FILE",
            help="Write the events of one topic to a new Avro file. Skips tombstones.",
        ),
    ] = None,
) -> None:
    """Show decoded events, one line each; with --json one object each.

    Examples:
        fnm-bus tail

        fnm-bus tail --from-beginning --until-end --json | jq .event.action

        fnm-bus tail fastnetmon.deadletter.v1 --from-beginning --count 10

        fnm-bus tail fastnetmon.host.v1 --from-beginning --until-end --avro host.avro
    """
    from fnm_bus import build
    from fnm_bus.cli import render
    from fnm_bus.kafka.reader import TopicReader

    configured = settings(file)
    names = build.topic_names(configured)
    topics = topic or [names.host, names.hostgroup, names.status]
    show: Callable[[ConsumedRecord], None] = _show_json if json else _show_line
    archive = None if avro is None else _archive(avro, topics, names)
    reader = TopicReader(
        build.kafka_settings(configured),
        topics,
        build.build_reading_codec(configured, build.REGISTRY_PAUSE),
        from_beginning=from_beginning,
        headers=json,
    )
    with ExitStack() as stack:
        stack.enter_context(reader)
        if archive is not None:
            stack.enter_context(archive)  # after the reader has found the topic
            show = _adder(archive, names.of_all()[topics[0]])
        elif not json:
            print_note(render.heading())
        shown = 0
        while True:
            for record in reader.read(0.5):
                show(record)
                shown += 1
                if shown == count:
                    return
            if archive is not None:
                archive.flush()
            if until_end and reader.at_end:
                return
            if until_end:  # an unreachable broker must not block the command forever
                reader.check()


def _show_json(record: "ConsumedRecord") -> None:
    from fnm_bus.event import json_value

    event = record.event
    dump(
        {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": record.at.isoformat(),
            "key": json_value.bytes_as_text(record.key),
            "headers": json_value.headers_as_text(record.headers),
            "event": None if event is None else json_value.event_as_json(event),
            "error": record.error or None,
        }
    )


def _show_line(record: "ConsumedRecord") -> None:
    from fnm_bus.cli import render

    if record.event is None:
        out(f"{_position(record)}: cannot be decoded: {record.error}")
    else:
        line = render.event_line(record.topic, record.event)
        out(line, *render.color_of(record.event))


def _position(record: "ConsumedRecord") -> str:
    return f"{record.topic}[{record.partition}]@{record.offset}"


def _archive(path: Path, topics: list[str], names: "Topics") -> "Archive":
    from fnm_bus.avro.archive import Archive

    if len(topics) != 1 or topics[0] not in names.of_all():
        raise typer.BadParameter(
            f"--avro: wanted one topic of {', '.join(names.of_all())}"
        )
    return Archive(path, names.of_all()[topics[0]])


def _adder(archive: "Archive", full_name: str) -> "Callable[[ConsumedRecord], None]":
    from fnm_bus.avro import schema

    kind = schema.STRUCTS[full_name]

    def add(record: "ConsumedRecord") -> None:
        if record.event is not None and isinstance(record.event, kind):
            archive.add(record.event)
        elif record.value:
            reason = record.error or f"not a {full_name}"
            print_note(f"fnm-bus: {_position(record)}: not archived: {reason}")

    return add
