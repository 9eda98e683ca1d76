"""Everything put together from the settings; the only place that knows all of it."""

from consumers.metrics import MitigatorMetrics
from consumers.mitigator.service import Mitigator
from consumers.mitigator.turn import Terms
from consumers.policy.file import load as policy_file
from consumers.serving import serve, settings
from consumers.settings import AllSettings
from fnm_bus import wiring

__all__ = ["mitigator", "serve", "settings", "terms"]


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
