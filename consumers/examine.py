"""Examine: look at everything the consumers stand on; change nothing."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from consumers import asking
from consumers.mitigator.state import rebuilt
from consumers.policy.file import load as policy_file
from consumers.settings import AllSettings
from fnm_bus import wiring
from fnm_bus.errors import FnmBusError
from fnm_bus.finding import Finding
from fnm_bus.topics import Admin, differences, wanted


def examine(settings: AllSettings) -> Iterator[Finding]:
    """Yield what was found, one thing after the other."""
    looks: tuple[tuple[Callable[[AllSettings], Iterator[Finding]], str], ...] = (
        (_policy, "mend the file; docs/reference/policy.md says what may stand there"),
        (_topics, "start Kafka; then run `fnm-bus topics create`"),
        (_state, "start Kafka; then run `fnm-bus topics create`"),
        (_programs, ""),
    )
    for look, remedy in looks:
        try:
            yield from look(settings)
        except FnmBusError as exc:
            yield Finding(ok=False, what=str(exc), remedy=remedy)


def _policy(settings: AllSettings) -> Iterator[Finding]:
    path = settings.consumers.policy.model
    found = policy_file.load(path)
    what = f"policy {path}: {len(found.rules)} rules, {len(found.limits.own)} networks"
    yield Finding(ok=True, what=what)
    mode = "dry run: nothing is touched" if settings.dry_run else "live"
    yield Finding(ok=True, what=f"mode: {mode}")


def _topics(settings: AllSettings) -> Iterator[Finding]:
    names, it = wiring.topics(settings), settings.topics
    ours = {names.mitigation, names.command, names.audit}
    plan = [
        one for one in wanted(names, it.partitions, it.replication) if one.name in ours
    ]
    found = Admin(wiring.kafka(settings)).find(plan)
    for one in plan:
        faults = "; ".join(differences(one, found.get(one.name)))
        yield Finding(
            ok=not faults,
            what=f"topic {one.name}: {faults or 'as it should be'}",
            remedy="`fnm-bus topics create` makes it; settings are changed by"
            " kafka-configs",
        )


def _state(settings: AllSettings) -> Iterator[Finding]:
    state = rebuilt(asking.wanted_state(settings), ())
    standing = state.standing()
    yield Finding(
        ok=not state.paused,
        what=f"{len(standing)} mitigations stand{', paused' * state.paused}",
        remedy="`fnm-bus-consumer mitigations resume` ends the pause",
    )
    sensors = {r.sensor for it in state.mitigations.values() for r in it.reasons}
    for sensor in sorted(sensors - {""}):
        yield Finding(
            ok=sensor in state.renewing,
            what=f"sensor {sensor}: "
            + (
                "sends status updates"
                if sensor in state.renewing
                else "no attack_status was seen; its leases last FastNetMon's ban time"
            ),
            remedy="on that FastNetMon: sudo fcli set main"
            " notify_script_attack_status_updates enable && sudo fcli commit",
        )


def _programs(settings: AllSettings) -> Iterator[Finding]:
    exabgp = Path(sys.executable).with_name("exabgp")
    yield Finding(
        ok=True, what=f"exabgp: {exabgp if exabgp.exists() else 'not installed'}"
    )
    nft = shutil.which(settings.consumers.nftables.command.split()[0])
    yield Finding(ok=True, what=f"nft: {nft or 'not installed'}")
