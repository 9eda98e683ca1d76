"""Facts: an event as the policy sees it.

Events come from a topic that other programs can write to, so `facts_of` trusts none of
them: it is the second boundary after the parser.
"""

from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Final, NamedTuple

from consumers.mitigation.measure import Network
from consumers.mitigation.reason_key import ATTACK, MAX_KEY_BYTES, ReasonKey
from consumers.policy import event_check as check
from consumers.policy.flow_rules import (
    RuleReading,
    part_of,
    read_rules,
    without_rules,
)
from consumers.policy.size import bits_of, direction_of, pps_of
from fnm_bus.event import (
    AttackDetails,
    Check,
    Event,
    FlowSpecRule,
    HostEvent,
    StatusEvent,
    TextMode,
)
from fnm_bus.kafka.route import scope_of, subject_of

__all__ = ["ATTACK", "CLOSES", "DEFAULT_HOSTGROUP", "OPENS", "AttackFacts", "facts_of"]

OPENS: Final = frozenset({"ban", "partial_block", "attack_status"})
"""Actions that report an attack in progress; a fresh status counts like its ban."""
CLOSES: Final = frozenset({"unban", "partial_unblock"})

_PARTIAL: Final = frozenset({"partial_block", "partial_unblock"})
DEFAULT_HOSTGROUP: Final = "global"
"""FastNetMon's hostgroup of hosts that are in none."""
_THRESHOLD_PROTOCOLS: Final = frozenset({"tcp", "udp", "icmp"})
"""First words of thresholds that name a protocol."""


class AttackFacts(NamedTuple):
    """One event, or one Flow Spec rule of a partial block or unblock.

    Attributes:
        scope: host or hostgroup.
        action: FastNetMon's word.
        target: address or hostgroup's name.
        part: ATTACK, or what names a Flow Spec rule.
        networks: the host as a network of one, or the hostgroup's networks.
        hostgroup: the hostgroup that is attacked or that the host is in; None for a
            host in none, which FastNetMon reports as `global`.
        direction: FastNetMon's word, lower case, or "".
        protocol: FastNetMon's word, lower case, or "".
        threshold: the threshold that was exceeded, FastNetMon's words, or "".
        severity: FastNetMon's word, lower case, or "".
        pps: packets/s in the direction of the attack; None when not in the event. If
            the direction is neither incoming nor outgoing, the larger of the two.
        bits: bit/s in the direction of the attack; the same rules.
        sensor: the sensor that reported the event.
        sequence: position among the calls about this target on this sensor.
        received_at: when the sensor's spool received the event.
        event_id: names the event.
        attack_uuid: names the attack, or None.
        attack: what an unban repeats of its ban: the UUID, or direction and power of
            the text mode; "" when there is neither.
        rules: the event's Flow Spec rules that are wholly understood.
        refused_rules: one check for each rule that is not wholly understood; one for
            all of them when there are too many.
        has_rules: whether the document had Flow Spec rules, understood or not.
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
    rules: tuple[FlowSpecRule, ...] = ()
    refused_rules: tuple[Check, ...] = ()
    has_rules: bool = False

    @property
    def reason_key(self) -> ReasonKey:
        """Names the reason; sequences compare within one of them only."""
        return ReasonKey(self.sensor, self.scope, self.target, self.part)

    @property
    def outgoing(self) -> bool:
        """Whether the target is the source of the traffic."""
        return self.direction == "outgoing"


def facts_of(event: Event) -> tuple[AttackFacts, ...]:
    """Return the facts of an event: one, or one for each rule of a partial block.

    Rules that came with a ban belong to the attack. The rules of a partial block are
    parts of their own, each with a name of its own. If a rule of a partial block or
    unblock is not understood, its part is never the attack, so that it neither
    replaces nor ends the measures of the ban.

    Raises:
        InvalidRecord: the parser makes no such event; the text names the field.
    """
    check.validate_event(event)
    closes = event.action in CLOSES
    reading = read_rules(event.flow_spec_rules, event.extra, unlimited=closes)
    whole = _whole(event, reading)
    if event.action not in _PARTIAL:
        return (_checked(whole),)
    return tuple(
        _checked(
            whole._replace(
                part=part_of(rule),
                rules=() if rule.refusal else (rule.rule,),
                refused_rules=(rule.refusal,) if rule.refusal else (),
            )
        )
        for rule in reading.parts or (without_rules(),)
    )


def _checked(facts: AttackFacts) -> AttackFacts:
    size = len(facts.reason_key.encode())
    if size > MAX_KEY_BYTES:
        raise check.invalid(
            "sensor, target, part",
            f"their key has {size} bytes, allowed are {MAX_KEY_BYTES}",
        )
    return facts


def _whole(event: Event, reading: RuleReading) -> AttackFacts:
    details = event.attack_details or AttackDetails()
    direction = direction_of(event)
    mode = event.text_mode if isinstance(event, HostEvent) else None
    return AttackFacts(
        scope=scope_of(event),
        action=event.action,
        target=subject_of(event),
        part=ATTACK,
        networks=_networks(event),
        hostgroup=_hostgroup(event, details),
        direction=direction,
        protocol=_protocol(details),
        threshold=details.attack_detection_threshold or "",
        severity=(details.attack_severity or "").lower(),
        pps=pps_of(event, direction),
        bits=bits_of(event, direction),
        sensor=event.receipt.sensor,
        sequence=event.receipt.sequence,
        received_at=event.receipt.received_at,
        event_id=event.receipt.event_id,
        attack_uuid=details.attack_uuid,
        attack=details.attack_uuid
        or ("" if mode is None or mode.power_pps is None else _text_attack(mode)),
        rules=reading.understood,
        refused_rules=reading.refusals,
        has_rules=reading.present,
    )


def _text_attack(mode: TextMode) -> str:
    return f"{mode.direction} {mode.power_pps}"


def _hostgroup(event: Event, details: AttackDetails) -> str | None:
    if not isinstance(event, HostEvent) and event.hostgroup_name:
        return event.hostgroup_name
    name = details.host_group
    return None if name in {None, "", DEFAULT_HOSTGROUP} else name


def _networks(event: Event) -> tuple[Network, ...]:
    if isinstance(event, HostEvent) or (isinstance(event, StatusEvent) and event.ip):
        return (ip_network(ip_address(event.ip or "")),)
    networks = event.hostgroup_networks
    return tuple(
        dict.fromkeys(ip_network(item.network) for item in networks if item.network)
    )


def _protocol(details: AttackDetails) -> str:
    """Return the protocol, as sent or as the threshold names it ("udp bytes …")."""
    sent = (details.attack_protocol or "").lower()
    first = (details.attack_detection_threshold or "").lower().split(" ")[0]
    if sent in {"", "unknown"} and first in _THRESHOLD_PROTOCOLS:
        return first
    return sent
