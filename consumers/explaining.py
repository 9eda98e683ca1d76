"""The command that says why: what the policy makes of an event."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from fnm_bus.cli.options import ConfigFile, Json, complain, dump, end, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumers.mitigator.explain import Explained
    from consumers.mitigator.turn import Terms
    from consumers.settings import AllSettings
    from fnm_bus.event import Event


def explain(
    *,
    file: ConfigFile = None,
    event_id: Annotated[
        str, typer.Option("--event-id", help="Explain this event of the topics.")
    ] = "",
    since: Annotated[
        str, typer.Option(help="Replay so much of the topics: 30m, 12h, 7d.")
    ] = "",
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not look at what stands in Kafka.")
    ] = False,
    json: Json = False,
) -> None:
    """Say what the policy makes of a notification, and why. Nothing is published.

    Reads a notification from stdin unless told otherwise. Every rule and guardrail
    that was asked is shown with its answer.

    Examples:
        fnm-bus-consumer explain < ban.json

        fnm-bus-consumer explain --event-id 1c1b7e66-6d4b-5f04-8d4c-0b8d3b3c5a4e

        fnm-bus-consumer explain --since 7d
    """
    from consumers import wiring

    known = wiring.settings(file)
    terms = wiring.terms(known)
    if since:
        found = _replayed(known, terms, _duration(since))
    else:
        found = iter([_explained(known, terms, event_id, offline=offline)])
    _print(found, json=json)


def _explained(
    known: "AllSettings", terms: "Terms", event_id: str, *, offline: bool
) -> "Explained":
    from consumers import asking
    from consumers.mitigator.explain import explain as explained
    from consumers.mitigator.state import State, rebuilt

    event, own = _event(known, event_id), terms.policy.limits.own
    state = State(own) if offline else rebuilt(asking.wanted_state(known), own)
    return explained(event, state, terms, datetime.now(UTC))


def _replayed(
    known: "AllSettings", terms: "Terms", back: timedelta
) -> "Iterator[Explained]":
    from consumers.mitigator.explain import replay

    first = datetime.now(UTC) - back
    events = (it for it in _events(known) if it.receipt.received_at >= first)
    return replay(events, terms)


def _print(found: "Iterator[Explained]", *, json: bool) -> None:
    from consumers import asking
    from consumers.mitigator.explain import shown

    started = 0
    for it in found:
        started += sum(one.what in {"wanted", "proposed"} for one in it.audits)
        if json:
            dump(
                {
                    "event_id": it.event.receipt.event_id,
                    "decisions": [asking.as_json(one) for one in it.audits],
                    "changes": [asking.as_json(one) for one in it.changes],
                }
            )
            continue
        for line in shown(it):
            typer.echo(line)
    say(f"mitigations that would start: {started}. Nothing was published.")


def _event(known: "AllSettings", event_id: str) -> "Event":
    from fnm_bus import hook
    from fnm_bus.event import Receipt
    from fnm_bus.parse import parse

    if event_id:
        for it in _events(known):
            if it.receipt.event_id == event_id:
                return it
        complain(f"no event {event_id} on the topics")
        end(1)
    now = datetime.now(UTC)
    receipt = Receipt(
        event_id="explained",
        received_at=now,
        sequence=round(now.timestamp() * 1e6) << 10,
        sensor=known.sensor,
    )
    return parse(hook.read_stdin([]), (), receipt)[0]


def _events(known: "AllSettings") -> "Iterator[Event]":
    from consumers import asking
    from fnm_bus import wiring
    from fnm_bus.event import HostEvent, HostgroupEvent, StatusEvent

    names = wiring.topics(known)
    for it in asking.records(known, [names.host, names.hostgroup, names.status]):
        if isinstance(it.event, HostEvent | HostgroupEvent | StatusEvent):
            yield it.event


def _duration(text: str) -> timedelta:
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    if text[:-1].isdigit() and text[-1] in units:
        return timedelta(**{units[text[-1]]: int(text[:-1])})
    raise typer.BadParameter(f"{text}: wanted 30m, 12h or 7d", param_hint="--since")
