"""Checks of all that the consumers depend on; they change nothing."""

import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from consumers import reading
from consumers.mitigation.states import PAUSE, WANTED
from consumers.mitigator.kafka.stored_state import StoredState
from consumers.policy.file import load as policy_file
from consumers.policy.file.sensor_reach import text_mode_warnings
from consumers.settings import FullSettings
from fnm_bus import build
from fnm_bus.errors import FnmBusError
from fnm_bus.kafka.access import Resources, rights_of
from fnm_bus.setup.check_all import check_access
from fnm_bus.setup.check_result import CheckResult

_DECIDING: Final = frozenset({"mitigator", "operator"})
"""Programs that read the policy, and the reason and mitigation topics."""

_REMEDY: Final = "run `fnm-bus topics create`; docs/security.md has the rights"


def run_checks(
    settings: FullSettings, program: str = "mitigator"
) -> Iterator[CheckResult]:
    """Yield the result of each check.

    Raises:
        ConfigError: *program* is unknown.
    """
    checks: list[tuple[Callable[[FullSettings], Iterator[CheckResult]], str]] = [
        (partial(_check_rights, program=program), _REMEDY)
    ]
    if program in _DECIDING:
        policy = "correct the file; docs/reference/policy.md lists every key"
        checks.insert(0, (_check_policy, policy))
        checks.append((_check_state, _REMEDY))
    checks.append((_check_programs, ""))
    for check, remedy in checks:
        try:
            yield from check(settings)
        except FnmBusError as exc:
            yield CheckResult(ok=False, text=str(exc), remedy=remedy)


def _check_policy(settings: FullSettings) -> Iterator[CheckResult]:
    path = settings.consumers.mitigator.policy
    policy = policy_file.load(path)
    networks = len(policy.limits.own_networks)
    text = f"policy {path}: {len(policy.rules)} rules, {networks} networks"
    yield CheckResult(ok=True, text=text)
    mode = "dry run" if settings.dry_run else "live"
    yield CheckResult(ok=True, text=f"mode: {mode}")


def _check_rights(settings: FullSettings, program: str) -> Iterator[CheckResult]:
    plan = build.topic_plan(settings)
    rights = rights_of(program, resources_of(settings))
    yield from check_access(build.kafka_settings(settings), plan, rights)


def resources_of(settings: FullSettings) -> Resources:
    """Return the configured names in the rights of programs."""
    tables = settings.consumers
    return Resources(
        build.topic_names(settings),
        tables.mitigator.transactional_id,
        tables.notifier.group,
        tables.jsonlines.group,
        tables.jsonlines.topics,
    )


def _check_state(settings: FullSettings) -> Iterator[CheckResult]:
    stored = reading.read_wanted_state(settings)
    for key, error in stored.unreadable:
        yield CheckResult(
            ok=False,
            text=f"a record cannot be read and is left out: {key}: {error}",
            remedy="its mitigation expires with its lease; check who may write to"
            " the reason and mitigation topics",
        )
    wanted_kinds = [
        record.kind for record in stored.records() if record.state == WANTED
    ]
    paused = PAUSE in wanted_kinds
    active = sum(kind != PAUSE for kind in wanted_kinds)
    yield CheckResult(
        ok=not paused,
        text=f"{active} active mitigations{', all paused' * paused}",
        remedy="`fnm-bus mitigations resume` ends the pause",
    )
    yield from _check_sensors(settings, stored)


def _check_sensors(
    settings: FullSettings, stored: StoredState
) -> Iterator[CheckResult]:
    reasons = [reason for reason in stored.all_reasons() if reason.sensor]
    for sensor in sorted({reason.sensor for reason in reasons}):
        reported = [reason for reason in reasons if reason.sensor == sensor]
        text_mode = any(" " in reason.attack for reason in reported)
        if text_mode:
            yield CheckResult(
                ok=True, text=f"sensor {sensor}: text mode, no status updates"
            )
            policy = policy_file.load(settings.consumers.mitigator.policy)
            yield from text_mode_warnings(policy, [sensor])
            continue
        renews = any(reason.renewals for reason in reported)
        text = "sends status updates" if renews else "no attack_status was received"
        yield CheckResult(
            ok=renews,
            text=f"sensor {sensor}: {text}",
            remedy="on that FastNetMon: sudo fcli set main"
            " notify_script_attack_status_updates enable && sudo fcli commit; without"
            " it every lease lasts FastNetMon's ban time",
        )


def _check_programs(settings: FullSettings) -> Iterator[CheckResult]:
    exabgp = Path(sys.executable).with_name("exabgp")
    location = exabgp if exabgp.exists() else "not installed"
    yield CheckResult(ok=True, text=f"exabgp: {location}")
    nft = shutil.which(settings.consumers.nftables.command.split()[0])
    yield CheckResult(ok=True, text=f"nft: {nft or 'not installed'}")
