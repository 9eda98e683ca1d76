"""The mitigator and its decision context, built from the settings."""

from consumers.metrics import MitigatorMetrics
from consumers.mitigator.context import DecisionContext
from consumers.mitigator.service import Mitigator
from consumers.policy.file import load as policy_file
from consumers.serving import load_settings, serve
from consumers.settings import FullSettings
from fnm_bus import build

__all__ = ["build_mitigator", "decision_context", "load_settings", "serve"]


def decision_context(loaded: FullSettings) -> DecisionContext:
    """Return the mitigator's decision context.

    Raises:
        ConfigError: the policy is invalid; the text lists all problems.
    """
    table = loaded.consumers.mitigator
    return DecisionContext(
        policy_file.load(table.policy),
        dry_run=loaded.dry_run,
        fastnetmon_ban_time=table.fastnetmon_ban_time,
        ended_retention=table.ended_retention,
    )


def build_mitigator(loaded: FullSettings, metrics: MitigatorMetrics) -> Mitigator:
    """Return the mitigator.

    Raises:
        ConfigError: the policy is invalid, or a secret cannot be read.
    """
    return Mitigator(
        settings=build.kafka_settings(loaded),
        name=loaded.consumers.mitigator.transactional_id,
        topics=build.topic_names(loaded),
        codec=build.build_reading_codec(loaded, build.REGISTRY_PAUSE),
        context=decision_context(loaded),
        metrics=metrics,
    )
