"""The demo's preview: its policy's decisions about the events on the topics.

It only reads: no consumer group, no producer, no mitigator. A mitigator decides by the
same pure functions.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from consumers import build, reading
from consumers.mitigator.explain import check_line, replay_events
from consumers.settings import FullSettings
from fnm_bus.demo import marker
from fnm_bus.event import Audit, Event

POLICY: Final = Path(__file__).with_name("policy.toml")
_LISTED: Final = 12
_INFORMING: Final = "notify"
"""The kind of a measure that only informs people."""
_WORDS: Final = {
    "wanted": "start",
    "proposed": "propose",
    "refused": "refuse",
    "ended": "end",
}


Decision = tuple[str, Audit]
"""Start, propose, inform, refuse or end; the audit record that would be published."""


def preview(settings: FullSettings) -> Iterator[str]:
    """Yield the decisions of the demo's policy as lines for a terminal.

    Raises:
        ConfigError: the configuration is not a demo's.
        BrokerUnavailable, TopicRefused: the topics cannot be read.
    """
    spool, bootstrap = settings.spool.directory, settings.kafka.get("bootstrap.servers")
    marker.require_broker(spool, bootstrap)
    decisions = list(_decide_all(reading.read_events(settings), settings))
    yield "The demo's policy would decide about these events:"
    yield ""
    yield from _list_decisions(decisions)
    yield from _explain_first(decisions, "start")
    yield from _explain_first(decisions, "refuse")
    yield ""
    yield from _sum_up(Counter(word for word, _audit in decisions))


def _decide_all(events: Iterable[Event], settings: FullSettings) -> Iterator[Decision]:
    consumers = settings.consumers
    mitigator = consumers.mitigator.model_copy(update={"policy": POLICY})
    with_policy = settings.model_copy(
        update={
            "dry_run": True,
            "consumers": consumers.model_copy(update={"mitigator": mitigator}),
        }
    )
    kinds: dict[str, str] = {}
    for explanation in replay_events(events, build.decision_context(with_policy)):
        kinds |= {record.key: record.kind for record in explanation.mitigations}
        for audit in explanation.audits:
            word = _WORDS.get(audit.action)
            if kinds.get(audit.key or "") == _INFORMING:
                word = "inform" if audit.action == "wanted" else None
            if word is not None:
                yield word, audit


def _list_decisions(decisions: list[Decision]) -> Iterator[str]:
    for word, audit in decisions[:_LISTED]:
        yield f"  {word:<8} {audit.key or audit.target or ''}"
        yield f"           {audit.text}"
    if len(decisions) > _LISTED:
        yield f"  … and {len(decisions) - _LISTED} more"


def _explain_first(decisions: list[Decision], word: str) -> Iterator[str]:
    """Yield every check of the first decision of one kind."""
    audit = next((audit for kind, audit in decisions if kind == word), None)
    if audit is None:
        return
    yield ""
    yield f"The checks behind “{word} {audit.key or audit.target}”:"
    yield from map(check_line, audit.checks)


def _sum_up(count: Counter[str]) -> Iterator[str]:
    yield (
        f"{_plural(count['start'], 'mitigation')} would start,"
        f" {count['end']} would end, {count['refuse']} would be refused;"
        f" {_plural(count['inform'], 'decision')} would only inform people."
    )
    yield "This is a preview: no traffic was blocked, and no record was published."


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
