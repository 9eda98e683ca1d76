"""Everything put together from the settings; the only place that knows all of it."""

from typing import Final

from consumers import serving
from consumers.enforcers.backend import Backend
from consumers.enforcers.enforce import Enforcement
from consumers.enforcers.report import Report
from consumers.enforcers.watching import Watching
from consumers.metrics import EnforcerMetrics, MitigatorMetrics
from consumers.mitigator.service import Mitigator
from consumers.mitigator.turn import Terms
from consumers.policy.file import load as policy_file
from consumers.settings import AllSettings, EnforcerSettings
from fnm_bus import wiring
from fnm_bus.codec import Codec

HUNG: Final = serving.HUNG
settings = serving.settings
serve = serving.serve


def terms(it: AllSettings) -> Terms:
    """Return what the mitigator decides by.

    Raises:
        ConfigError: the policy is wrong; all problems at once.
    """
    of = it.consumers.mitigator
    return Terms(
        policy_file.load(of.policy),
        dry_run=it.dry_run,
        ban_time=of.ban_time,
        memory=of.memory,
    )


def mitigator(it: AllSettings, metrics: MitigatorMetrics) -> Mitigator:
    """Return the mitigator.

    Raises:
        ConfigError: the policy is wrong, or a secret cannot be read.
    """
    return Mitigator(
        settings=wiring.kafka(it),
        name=it.consumers.mitigator.transactional_id,
        topics=wiring.topics(it),
        codec=wiring.reading_codec(it),
        terms=terms(it),
        metrics=metrics,
    )


def enforcement(
    it: AllSettings, of: EnforcerSettings, backend: Backend, metrics: EnforcerMetrics
) -> Enforcement:
    """Return an enforcer for *backend*.

    Raises:
        ConfigError: a secret cannot be read.
    """
    kafka, names = wiring.kafka(it), wiring.topics(it)
    # What ends a block depends on no registry.
    codec = Codec()
    return Enforcement(
        backend=backend,
        watching=Watching(kafka, names.mitigation, codec),
        report=Report(kafka, names.audit, codec, backend.name),
        path=of.snapshot,
        interval=of.interval,
        max_skew=of.max_skew,
        dry_run=it.dry_run,
        metrics=metrics,
    )
