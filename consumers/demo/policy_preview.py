"""The mitigator's part of the demo: what it would do about what was just published."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from consumers import asking, wiring
from consumers.metrics import MitigatorMetrics
from consumers.settings import AllSettings
from fnm_bus import wiring as publishing
from fnm_bus.event import Audit

POLICY: Final = Path(__file__).with_name("policy.toml")
_SHOWN: Final = 12


def rehearse(settings: AllSettings) -> Iterator[str]:
    """Run a mitigator over what stands on the topics; yield lines for a terminal.

    The policy is the demo's, and it is a dry run.

    Raises:
        BrokerUnavailable, TopicRefused, ConfigError: the topics cannot be read.
    """
    logging.getLogger("consumers").setLevel(logging.WARNING)
    of = settings.consumers
    known = settings.model_copy(
        update={
            "dry_run": True,
            "consumers": of.model_copy(
                update={"mitigator": of.mitigator.model_copy(update={"policy": POLICY})}
            ),
        }
    )
    it = wiring.mitigator(known, MitigatorMetrics())
    it.once = True
    it.run()
    topic = publishing.topics(known).audit
    found = [it.event for it in asking.records(known, [topic])]
    audits = [it for it in found if isinstance(it, Audit)]
    yield from _told(audits)


def _told(audits: list[Audit]) -> Iterator[str]:
    shown = sorted((it for it in audits if it.what != "ignored"), key=lambda it: it.at)
    for it in shown[:_SHOWN]:
        yield f"  {it.what:<9} {it.key or it.target or ''}"
        yield f"            {it.text}"
    if len(shown) > _SHOWN:
        yield f"  … and {len(shown) - _SHOWN} more"
    refused = next((it for it in shown if it.what == "refused"), None)
    started = next((it for it in shown if _touches(it)), None)
    for it in filter(None, (started, refused)):
        yield ""
        yield f"Why {it.key} was {it.what}:"
        for check in it.checks:
            yield f"  {check.verdict:<9} {check.stage} {check.name:<12} {check.text}"
    ended = sum(it.what == "ended" for it in audits)
    began = sum(it.what == "wanted" for it in audits)
    yield ""
    yield f"{began} mitigations would have begun, {ended} ended. Dry run: none did."


def _touches(audit: Audit) -> bool:
    return audit.what == "wanted" and not (audit.key or "").startswith("notify")
