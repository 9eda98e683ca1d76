"""`explain`: the policy's decision about an event, with its checks."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumers.mitigator.context import DecisionContext
    from consumers.mitigator.explain import Explanation
    from consumers.settings import FullSettings
    from fnm_bus.event import Event


def explain(  # noqa: PLR0913 - one parameter for each option
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            help="FastNetMon's arguments of the call; text mode needs them."
        ),
    ] = None,
    *,
    file: ConfigFile = None,
    event_id: Annotated[
        str, typer.Option("--event-id", help="Explain this event of the topics.")
    ] = "",
    since: Annotated[
        str, typer.Option(help="Replay the topics' last part: 30m, 12h, 7d.")
    ] = "",
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not read the wanted state from Kafka.")
    ] = False,
    json: Json = False,
) -> None:
    """Show the policy's decision about a notification; publish nothing.

    Reads a notification from stdin unless an option selects another event. Lists every
    rule, guardrail and limit that was checked.

    Examples:
        fnm-bus explain < ban.json

        fnm-bus explain 203.0.113.7 incoming 90000 ban < report.txt

        fnm-bus explain --event-id 1c1b7e66-6d4b-5f04-8d4c-0b8d3b3c5a4e

        fnm-bus explain --since 7d
    """
    from consumers import build

    settings = build.load_settings(file)
    context = build.decision_context(settings)
    if since:
        explanations = _replay_events(settings, context, _parse_duration(since))
    else:
        event = _read_event(settings, event_id, arguments or [])
        explanations = iter([_explain_event(settings, context, event, offline=offline)])
    _print_explanations(explanations, json=json)


def _explain_event(
    settings: "FullSettings",
    context: "DecisionContext",
    event: "Event",
    *,
    offline: bool,
) -> "Explanation":
    from consumers import reading
    from consumers.mitigator.explain import explain_event
    from consumers.mitigator.kafka.stored_state import StoredState

    stored = StoredState() if offline else reading.read_wanted_state(settings)
    moment = reading.moment_of(stored)
    return explain_event(event, stored.restore(context, moment), context, moment)


def _replay_events(
    settings: "FullSettings", context: "DecisionContext", duration: timedelta
) -> "Iterator[Explanation]":
    from consumers import reading
    from consumers.mitigator.explain import replay_events

    first = datetime.now(UTC) - duration
    events = (
        event
        for event in reading.read_events(settings)
        if event.receipt.received_at >= first
    )
    return replay_events(events, context)


def _print_explanations(explanations: "Iterator[Explanation]", *, json: bool) -> None:
    from consumers import reading
    from consumers.mitigator.explain import explanation_lines

    started = reported = 0
    for explanation in explanations:
        started += explanation.started
        reported += explanation.reported
        if json:
            dump(
                {
                    "event_id": explanation.event.receipt.event_id,
                    "error": explanation.error,
                    "decisions": [
                        reading.to_json(audit) for audit in explanation.audits
                    ],
                    "mitigations": [
                        reading.to_json(record) for record in explanation.mitigations
                    ],
                }
            )
            continue
        for line in explanation_lines(explanation):
            out(line)
    print_note(
        f"Mitigations that would start: {started}; attacks that would only be"
        f" reported: {reported}. Nothing was published."
    )


def _read_event(
    settings: "FullSettings", event_id: str, arguments: list[str]
) -> "Event":
    from consumers import reading
    from fnm_bus.event import Receipt
    from fnm_bus.event.parse import parse
    from fnm_bus.hook import python_hook
    from fnm_bus.spool.sequence import sequence_at

    if event_id:
        for event in reading.read_events(settings):
            if event.receipt.event_id == event_id:
                return event
        print_error(f"event {event_id} is not on the topics")
        end(1)
    now = datetime.now(UTC)
    receipt = Receipt(
        event_id="explained",
        received_at=now,
        sequence=sequence_at(now),
        sensor=settings.sensor,
    )
    document = python_hook.read_stdin(arguments)
    return parse(document, tuple(arguments), receipt)[0]


def _parse_duration(text: str) -> timedelta:
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    number, unit = text[:-1], text[-1:]
    if number.isascii() and number.isdigit() and len(number) < 6 and unit in units:  # noqa: PLR2004 - a bound
        return timedelta(**{units[unit]: int(number)})
    raise typer.BadParameter(f"{text}: expected 30m, 12h or 7d", param_hint="--since")
