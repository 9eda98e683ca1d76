"""The mitigator and what it decides by, built from the settings."""

from consumers.metrics import MitigatorMetrics
from consumers.mitigator.context import DecisionContext
from consumers.mitigator.service import Mitigator
from consumers.policy.file import load as policy_file
from consumers.serving import serve, settings
from consumers.settings import FullSettings
from fnm_bus import build

__all__ = ["context", "mitigator", "serve", "settings"]


def context(loaded: FullSettings) -> DecisionContext:
    """Return what the mitigator decides by.

    Raises:
        ConfigError: the policy is wrong; all problems at once.
    """
    table = loaded.consumers.mitigator
    return DecisionContext(
        policy_file.load(table.policy),
        dry_run=loaded.dry_run,
        fastnetmon_ban_time=table.fastnetmon_ban_time,
        ended_retention=table.ended_retention,
    )


def mitigator(loaded: FullSettings, metrics: MitigatorMetrics) -> Mitigator:
    """Return the mitigator.

    Raises:
        ConfigError: the policy is wrong, or a secret cannot be read.
    """
    return Mitigator(
        settings=build.kafka_settings(loaded),
        name=loaded.consumers.mitigator.transactional_id,
        topics=build.topic_names(loaded),
        codec=build.build_reading_codec(loaded, build.REGISTRY_PAUSE),
        context=context(loaded),
        metrics=metrics,
    )
