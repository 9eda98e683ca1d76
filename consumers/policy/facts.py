"""Facts: an event as the policy sees it.

Other programs can write to the events' topic. So `facts_of` checks every event: it is
the second boundary after the parser.
"""

from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Final, NamedTuple

from consumers.mitigation.attack_size import bits_of, direction_of, pps_of
from consumers.mitigation.flow_match import invalid
from consumers.mitigation.measure import Network
from consumers.mitigation.reason_key import ATTACK, MAX_KEY_BYTES, ReasonKey
from consumers.policy.event_check import validate_event
from consumers.policy.flow_rules import ParsedRules, missing_rules, parse_rules, part_of
from fnm_bus.event import (
    AttackDetails,
    Check,
    Event,
    FlowSpecRule,
    HostEvent,
    StatusEvent,
    TextMode,
)
from fnm_bus.kafka.addressing import scope_of, subject_of

__all__ = ["ATTACK", "CLOSES", "DEFAULT_HOSTGROUP", "OPENS", "AttackFacts", "facts_of"]

OPENS: Final = frozenset({"ban", "partial_block", "attack_status"})
"""Actions that report an attack in progress; a fresh status counts like its ban."""
CLOSES: Final = frozenset({"unban", "partial_unblock"})

_PARTIAL: Final = frozenset({"partial_block", "partial_unblock"})
DEFAULT_HOSTGROUP: Final = "global"
"""FastNetMon's word for hosts that are in no hostgroup."""
_THRESHOLD_PROTOCOLS: Final = frozenset({"tcp", "udp", "icmp"})
"""First words of thresholds that name a protocol."""


class AttackFacts(NamedTuple):
    """One event, or one Flow Spec rule of a partial block or unblock.

    Attributes:
        scope: host or hostgroup.
        target: address or hostgroup's name.
        part: ATTACK, or the name of a Flow Spec rule.
        networks: the host as a network of one, or the hostgroup's networks.
        hostgroup: the attacked hostgroup, or the host's; None for a host without a
            hostgroup, which FastNetMon reports as `global`.
        direction: FastNetMon's word, lower case, or "".
        protocol: FastNetMon's word, lower case, or "".
        threshold: the threshold that was exceeded, FastNetMon's words, or "".
        pps: packets/s in the direction of the attack; None when not in the event. If
            the direction is neither incoming nor outgoing, the larger of the two.
        bits: bit/s in the direction of the attack; the same rules.
        sequence: position among the calls about this target on this sensor.
        attack: the identifier that an unban repeats from its ban: the UUID, or
            direction and power of the text mode; "" without either.
        rules: the event's Flow Spec rules that were parsed completely.
        refused_rules: one check for each rule that was not parsed completely; a single
            one when there are too many rules.
        has_rules: whether the document had Flow Spec rules, valid or not.
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
        """The key of the reason; sequences compare within one key only."""
        return ReasonKey(self.sensor, self.scope, self.target, self.part)

    @property
    def outgoing(self) -> bool:
        """Whether the target is the source of the traffic."""
        return self.direction == "outgoing"


def facts_of(event: Event) -> tuple[AttackFacts, ...]:
    """Return the facts of an event: one, or one for each rule of a partial block.

    Rules of a ban belong to the attack. Each rule of a partial block is a separate part
    with a name. The part of an invalid rule is never the attack: such a rule neither
    replaces nor ends the measures of the ban.

    Raises:
        InvalidRecord: the parser cannot have made the event; the text names the field.
    """
    validate_event(event)
    closes = event.action in CLOSES
    parsed = parse_rules(event.flow_spec_rules, event.extra, unlimited=closes)
    whole = _facts_of_all(event, parsed)
    if event.action not in _PARTIAL:
        return (_check_key_size(whole),)
    return tuple(
        _check_key_size(
            whole._replace(
                part=part_of(rule),
                rules=() if rule.refusal else (rule.rule,),
                refused_rules=(rule.refusal,) if rule.refusal else (),
            )
        )
        for rule in parsed.rules or (missing_rules(),)
    )


def _check_key_size(facts: AttackFacts) -> AttackFacts:
    size = len(facts.reason_key.encode())
    if size > MAX_KEY_BYTES:
        raise invalid(
            "sensor, target, part",
            f"their key has {size} bytes, allowed are {MAX_KEY_BYTES}",
        )
    return facts


def _facts_of_all(event: Event, parsed: ParsedRules) -> AttackFacts:
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
        rules=parsed.valid,
        refused_rules=parsed.refusals,
        has_rules=parsed.present,
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
