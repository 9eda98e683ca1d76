"""`fnm-bus tail`: look at the events as they come."""

from typing import Annotated

import typer

from fnm_bus.cli.options import ConfigFile, Json, dump, out, say, settings


def tail(  # noqa: PLR0913 - one parameter for each option
    topic: Annotated[
        list[str] | None,
        typer.Argument(help="Topics. Else host, hostgroup and status as configured."),
    ] = None,
    *,
    file: ConfigFile = None,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Show what is there already, too.")
    ] = False,
    leave: Annotated[
        bool, typer.Option("--exit", help="End when everything is shown.")
    ] = False,
    number: Annotated[
        int, typer.Option("-n", min=0, help="End after so many; 0 goes on.")
    ] = 0,
    json: Json = False,
) -> None:
    """Show decoded events, one line each; with --json one object each.

    Examples:
        fnm-bus tail

        fnm-bus tail --from-beginning --exit --json | jq .event.action

        fnm-bus tail fastnetmon.deadletter.v1 --from-beginning -n 10
    """
    from fnm_bus import build
    from fnm_bus.cli import render
    from fnm_bus.kafka.reader import ConsumedRecord, TopicReader

    known = settings(file)
    names = build.topic_names(known)
    topics = topic or [names.host, names.hostgroup, names.status]

    def show(it: ConsumedRecord) -> None:
        if json:
            dump(
                {
                    "topic": it.topic,
                    "partition": it.partition,
                    "offset": it.offset,
                    "timestamp": it.at.isoformat(),
                    "key": render.text(it.key),
                    "headers": render.headers(it.headers),
                    "event": None if it.event is None else render.value(it.event),
                    "error": it.error or None,
                }
            )
        elif it.event is None:
            where = f"{it.topic}[{it.partition}]@{it.offset}"
            out(f"{where}: cannot be decoded: {it.error}")
        else:
            out(render.line(it.topic, it.event), *render.color_of(it.event))

    shown = 0
    with TopicReader(
        build.kafka_settings(known),
        topics,
        build.build_reading_codec(known, build.REGISTRY_PAUSE),
        from_beginning=from_beginning,
        headers=json,
    ) as reader:
        if not json:
            say(render.heading())
        while True:
            for it in reader.read(0.5):
                show(it)
                shown += 1
                if shown == number:
                    return
            if leave and reader.at_end:
                return
            if leave:  # who waits for the end must not wait for ever
                reader.check()
