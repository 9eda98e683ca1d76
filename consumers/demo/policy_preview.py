"""The demo's preview: what its policy would decide about the events on the topics.

It only reads: no consumer group, no producer, no mitigator. The decisions come from the
same pure functions as a mitigator's.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from consumers import build, reading
from consumers.mitigator.explain import replay_events
from consumers.settings import FullSettings
from fnm_bus import build as publishing
from fnm_bus.demo import marker
from fnm_bus.event import Audit, Event, HostEvent, HostgroupEvent, StatusEvent

POLICY: Final = Path(__file__).with_name("policy.toml")
_LISTED: Final = 12
_INFORMING: Final = "notify"
"""The kind of a measure that informs people and blocks nothing."""
_WORDS: Final = {
    "wanted": "start",
    "proposed": "propose",
    "refused": "refuse",
    "ended": "end",
}


class Decision(NamedTuple):
    """One decision that the policy would take.

    Attributes:
        word: start, propose, inform, refuse or end.
        audit: the audit record that would be published.
    """

    word: str
    audit: Audit


def preview(settings: FullSettings) -> Iterator[str]:
    """Yield the decisions of the demo's policy as lines for a terminal.

    Args:
        settings: the configuration of a running `fnm-bus demo`.

    Raises:
        ConfigError: this is not the configuration of a demo.
        BrokerUnavailable, TopicRefused: the topics cannot be read.
    """
    spool, bootstrap = settings.spool.directory, settings.kafka.get("bootstrap.servers")
    marker.require_broker(spool, bootstrap)
    decisions = list(_decide(_read_events(settings), settings))
    yield "What the demo's policy would decide about these events:"
    yield ""
    yield from _list(decisions)
    yield from _explain_first(decisions, "start")
    yield from _explain_first(decisions, "refuse")
    yield ""
    yield from _sum_up(Counter(decision.word for decision in decisions))


def _read_events(settings: FullSettings) -> Iterator[Event]:
    names = publishing.topic_names(settings)
    topics = [names.host, names.hostgroup, names.status]
    for record in reading.read_records(settings, topics):
        if isinstance(record.event, HostEvent | HostgroupEvent | StatusEvent):
            yield record.event


def _decide(events: Iterable[Event], settings: FullSettings) -> Iterator[Decision]:
    consumers = settings.consumers
    mitigator = consumers.mitigator.model_copy(update={"policy": POLICY})
    with_policy = settings.model_copy(
        update={
            "dry_run": True,
            "consumers": consumers.model_copy(update={"mitigator": mitigator}),
        }
    )
    kinds: dict[str, str] = {}
    for explained in replay_events(events, build.context(with_policy)):
        kinds |= {change.key: change.kind for change in explained.mitigations}
        for audit in explained.audits:
            word = _WORDS.get(audit.action)
            if kinds.get(audit.key or "") == _INFORMING:
                word = "inform" if audit.action == "wanted" else None
            if word is not None:
                yield Decision(word, audit)


def _list(decisions: list[Decision]) -> Iterator[str]:
    for word, audit in decisions[:_LISTED]:
        yield f"  {word:<8} {audit.key or audit.target or ''}"
        yield f"           {audit.text}"
    if len(decisions) > _LISTED:
        yield f"  … and {len(decisions) - _LISTED} more"


def _explain_first(decisions: list[Decision], word: str) -> Iterator[str]:
    """Yield every check of the first decision of one kind."""
    audit = next((d.audit for d in decisions if d.word == word), None)
    if audit is None:
        return
    yield ""
    yield f"The checks behind “{word} {audit.key or audit.target}”:"
    for check in audit.checks:
        yield f"  {check.verdict:<9} {check.stage:<9} {check.name:<12} {check.text}"


def _sum_up(count: Counter[str]) -> Iterator[str]:
    yield (
        f"{_plural(count['start'], 'mitigation')} would start,"
        f" {count['end']} would end, {count['refuse']} would be refused;"
        f" {_plural(count['inform'], 'decision')} would only inform people."
    )
    yield "This is a preview: nothing was blocked, and nothing was published."


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
