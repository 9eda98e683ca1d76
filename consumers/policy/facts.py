"""Facts: what a policy is asked about, drawn from an event of whichever topic."""

from collections.abc import Mapping
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Final, NamedTuple

from consumers.mitigation.measure import Network
from fnm_bus.event import (
    AttackDetails,
    Event,
    FlowSpecRule,
    HostEvent,
    HostgroupEvent,
    StatusEvent,
)
from fnm_bus.route import rule_identity, scope_of, subject_of

OPENS: Final = frozenset({"ban", "partial_block", "attack_status"})
"""Actions that say that an attack goes on; a fresh status counts like its ban."""
CLOSES: Final = frozenset({"unban", "partial_unblock"})
ATTACK: Final = "attack"
"""The part of a target that bans, unbans and status updates are about."""


_OF_THRESHOLDS: Final = frozenset({"tcp", "udp", "icmp"})
"""First words of thresholds that name a protocol."""


class Facts(NamedTuple):
    """One event, or one Flow Spec rule of it, as the policy sees it.

    Attributes:
        scope: host or hostgroup.
        action: FastNetMon's word.
        target: address or hostgroup's name.
        part: ATTACK, or the identity of a Flow Spec rule.
        networks: the host as a network of one, or the hostgroup's networks.
        hostgroup: the hostgroup that is attacked or that the host is in, or None.
        direction: FastNetMon's word, or "".
        protocol: FastNetMon's word, lower case, or "".
        threshold: what was exceeded, FastNetMon's words, or "".
        severity: FastNetMon's word, or "".
        pps: size of the attack in packets/s; None when nothing says it.
        bits: size of the attack in bit/s; likewise.
        sensor: who saw it.
        sequence: its place among the calls about this target on this sensor.
        received_at: when the sensor's spool had it.
        event_id: names the event.
        attack_uuid: names the attack, or None.
        attack: what an unban repeats of its ban: the UUID, or direction and power of
            the text mode; "" when there is neither.
        rules: the event's Flow Spec rules that are wholly understood.
        odd_rules: how many rules are not, and must not be acted on.
    """

    scope: str
    action: str
    target: str
    part: str
    networks: tuple[Network, ...]
    hostgroup: str | None
    direction: str
    protocol: str
    threshold: str
    severity: str
    pps: int | None
    bits: int | None
    sensor: str
    sequence: int
    received_at: datetime
    event_id: str
    attack_uuid: str | None
    attack: str
    rules: tuple[FlowSpecRule, ...]
    odd_rules: int

    @property
    def place(self) -> tuple[str, str, str]:
        """Sensor, target and part: within these sequences compare."""
        return self.sensor, self.target, self.part

    @property
    def outgoing(self) -> bool:
        """Whether the target is the source of the traffic."""
        return self.direction == "outgoing"


def facts_of(event: Event) -> tuple[Facts, ...]:
    """Return what *event* says: once, or once for each rule of a partial block.

    Rules that came with a ban belong to the attack. Those of a partial block live and
    end on their own, each named by its identity.
    """
    whole = _whole(event)
    if event.action not in {"partial_block", "partial_unblock"}:
        return (whole,)
    return tuple(
        whole._replace(part=rule_identity(rule), rules=(rule,), odd_rules=0)
        for rule in whole.rules
    ) or (whole,)


def _whole(event: Event) -> Facts:
    details = event.attack_details or AttackDetails()
    group = details.host_group
    if not isinstance(event, HostEvent):
        group = event.hostgroup_name or group
    rules = tuple(
        rule
        for number, rule in enumerate(event.flow_spec_rules)
        if _understood(event.extra, number)
    )
    # attack_direction is deprecated since 2022; what replaces it comes first.
    direction = (
        details.attack_detection_threshold_direction or details.attack_direction or ""
    ).lower()
    return Facts(
        scope=scope_of(event),
        action=event.action,
        target=subject_of(event),
        part=ATTACK,
        networks=_networks(event),
        hostgroup=group or None,
        direction=direction or _text_direction(event),
        protocol=_protocol(details),
        threshold=details.attack_detection_threshold or "",
        severity=(details.attack_severity or "").lower(),
        pps=_size(event, details, "pps"),
        bits=_bits(details),
        sensor=event.receipt.sensor,
        sequence=event.receipt.sequence,
        received_at=event.receipt.received_at,
        event_id=event.receipt.event_id,
        attack_uuid=details.attack_uuid,
        attack=details.attack_uuid or _text_attack(event),
        rules=rules,
        odd_rules=len(event.flow_spec_rules) - len(rules),
    )


def _understood(extra: Mapping[str, str], number: int) -> bool:
    """Return whether nothing of a rule is in extra: else it would match too much."""
    at = f"/flow_spec_rules/{number}"
    return not any(key == at or key.startswith(f"{at}/") for key in extra)


def _networks(event: Event) -> tuple[Network, ...]:
    match event:
        case HostEvent(ip=ip) | StatusEvent(ip=str(ip)) if ip:
            return (ip_network(ip_address(ip)),)
        case (
            HostgroupEvent(hostgroup_networks=all_)
            | StatusEvent(hostgroup_networks=all_)
        ):
            return tuple(ip_network(it.network) for it in all_ if it.network)
    return ()


def _protocol(details: AttackDetails) -> str:
    """Return the protocol, as sent or as the threshold names it ("udp bytes …")."""
    sent = (details.attack_protocol or "").lower()
    first = (details.attack_detection_threshold or "").lower().split(" ")[0]
    if sent in {"", "unknown"} and first in _OF_THRESHOLDS:
        return first
    return sent


def _text_attack(event: Event) -> str:
    mode = event.text_mode if isinstance(event, HostEvent) else None
    if mode is None or mode.power_pps is None:
        return ""
    return f"{mode.direction} {mode.power_pps}"


def _text_direction(event: Event) -> str:
    mode = event.text_mode if isinstance(event, HostEvent) else None
    return mode.direction.lower() if mode else ""


def _size(event: Event, details: AttackDetails, unit: str) -> int | None:
    mode = event.text_mode if isinstance(event, HostEvent) else None
    found = (
        getattr(details, f"total_incoming_{unit}"),
        getattr(details, f"total_outgoing_{unit}"),
        mode.power_pps if mode else None,
    )
    return max((it for it in found if it is not None), default=None)


def _bits(details: AttackDetails) -> int | None:
    found = [details.total_incoming_traffic_bits, details.total_outgoing_traffic_bits]
    if found == [None, None]:  # older versions send bytes/s only
        sent = (details.total_incoming_traffic, details.total_outgoing_traffic)
        found = [None if it is None else it * 8 for it in sent]
    return max((it for it in found if it is not None), default=None)
