"""`fnm-bus tail`: events as they arrive on the topics."""

from typing import Annotated

import typer

from fnm_bus.cli.options import ConfigFile, Json, dump, out, print_note, settings


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
) -> None:
    """Show decoded events, one line each; with --json one object each.

    Examples:
        fnm-bus tail

        fnm-bus tail --from-beginning --until-end --json | jq .event.action

        fnm-bus tail fastnetmon.deadletter.v1 --from-beginning --count 10
    """
    from fnm_bus import build
    from fnm_bus.cli import render
    from fnm_bus.event import json_value
    from fnm_bus.kafka.reader import ConsumedRecord, TopicReader

    configured = settings(file)
    names = build.topic_names(configured)
    topics = topic or [names.host, names.hostgroup, names.status]

    def show(record: ConsumedRecord) -> None:
        if json:
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
        elif record.event is None:
            position = f"{record.topic}[{record.partition}]@{record.offset}"
            out(f"{position}: cannot be decoded: {record.error}")
        else:
            line = render.event_line(record.topic, record.event)
            out(line, *render.color_of(record.event))

    shown = 0
    with TopicReader(
        build.kafka_settings(configured),
        topics,
        build.build_reading_codec(configured, build.REGISTRY_PAUSE),
        from_beginning=from_beginning,
        headers=json,
    ) as reader:
        if not json:
            print_note(render.heading())
        while True:
            for record in reader.read(0.5):
                show(record)
                shown += 1
                if shown == count:
                    return
            if until_end and reader.at_end:
                return
            if until_end:  # an unreachable broker must not block the command forever
                reader.check()
