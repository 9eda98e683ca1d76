"""A made-up attack: the calls that FastNetMon Advanced would make in one.

Carpet bombing of one network by DNS and NTP reflection: hosts are banned one after the
other, their status is repeated, the hostgroup is banned by its total, a Flow Spec rule
is announced, and everything is taken back. The same seed gives the same calls.
"""

import json
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import islice
from typing import Any, Final, NamedTuple

Network = IPv4Network | IPv6Network

_SOURCES: Final = ip_network("198.51.100.0/24")
_PORTS: Final = (53, 123)
_SAMPLES: Final = 5
_PROTOCOLS: Final = ("ip_fragmented", "tcp", "syn_tcp", "udp", "icmp", "dropped")


class Call(NamedTuple):
    """One call by FastNetMon: the arguments, and what is on stdin."""

    arguments: tuple[str, ...]
    document: bytes


@dataclass(frozen=True, slots=True)
class Attack:
    """What happens.

    Attributes:
        network: whose hosts are attacked.
        hosts: how many.
        updates: how many status updates each of them gets.
        hostgroup: name of the group that holds the network.
        seed: equal seeds give equal calls.
    """

    network: Network
    hosts: int = 10
    updates: int = 2
    hostgroup: str = "customers"
    seed: int = 1

    def calls(self) -> Iterator[Call]:
        """Yield the calls in the order in which FastNetMon would start them."""
        # Not for secrets: the point is that it can be repeated.
        dice = random.Random(self.seed)  # noqa: S311 - as said
        targets = [
            (str(address), _details(dice, self.network))
            for address in islice(self.network.hosts(), self.hosts)
        ]
        for ip, details in targets:
            packets = [_packet(dice, ip) for _ in range(_SAMPLES)]
            yield _host("ban", ip, details, packet_dump_detailed=packets)
        group = self._group(dice)
        yield Call((), _json({**group, "action": "ban"}))
        rule = _rule(dice, targets[0][0]) if targets else None
        if rule:
            yield _host("partial_block", *targets[0], flow_spec_rules=[rule])
        for _ in range(self.updates):
            for ip, details in targets:
                yield _host("attack_status", ip, details)
        if rule:
            yield _host("partial_unblock", *targets[0], flow_spec_rules=[rule])
        for ip, details in targets:
            yield _host("unban", ip, details)
        yield Call((), _json({**group, "action": "unban"}))

    def _group(self, dice: random.Random) -> dict[str, Any]:
        return {
            "alert_scope": "hostgroup",
            "hostgroup_name": self.hostgroup,
            "parent_hostgroup_name": "",
            "hostgroup_networks": [str(self.network)],
            "attack_details": {
                **_counters(dice, 20_000_000),
                "attack_uuid": _uuid(dice),
                "attack_severity": "middle",
                "attack_detection_source": "automatic",
                "protocol_version": f"IPv{self.network.version}",
            },
        }


def _host(action: str, ip: str, details: dict[str, Any], **more: Any) -> Call:
    body = {
        "action": action,
        "alert_scope": "host",
        "ip": ip,
        "attack_details": details,
        **more,
    }
    return Call((action, ip), _json(body))


def _details(dice: random.Random, network: Network) -> dict[str, Any]:
    return {
        **_counters(dice, dice.randint(80_000, 2_000_000)),
        "attack_uuid": _uuid(dice),
        "attack_severity": "middle",
        "attack_detection_source": "automatic",
        "attack_detection_threshold": "packets per second",
        "attack_detection_threshold_direction": "incoming",
        "host_group": "global",
        "parent_host_group": "",
        "host_network": str(network),
        "protocol_version": f"IPv{network.version}",
    }


def _counters(dice: random.Random, pps: int) -> dict[str, int]:
    """Return all counters: mostly incoming UDP, hardly anything going out."""
    found: dict[str, int] = {}
    for direction, share in (("incoming", 1.0), ("outgoing", 0.01)):
        packets = int(pps * share)
        octets = packets * dice.randint(400, 1_400)
        found |= _counter(f"total_{direction}", packets, octets)
        found[f"total_{direction}_flows"] = packets // 50
        for protocol in _PROTOCOLS:
            part = 0.97 if protocol == "udp" else 0.0
            name = f"{direction}_{protocol}"
            found |= _counter(name, int(packets * part), int(octets * part))
    return found


def _counter(name: str, packets: int, octets: int) -> dict[str, int]:
    return {
        f"{name}_pps": packets,
        f"{name}_traffic": octets,
        f"{name}_traffic_bits": octets * 8,
    }


def _packet(dice: random.Random, ip: str) -> dict[str, Any]:
    size = dice.randint(400, 1_400)
    return {
        "ip_version": "ipv6" if ":" in ip else "ipv4",
        "source_ip": str(_SOURCES[dice.randint(1, 254)]),
        "destination_ip": ip,
        "source_port": dice.choice(_PORTS),
        "destination_port": dice.randint(1_024, 65_535),
        "fragmentation": False,
        "packets": 1,
        "length": size + 14,
        "ip_length": size,
        "ttl": dice.randint(40, 120),
        "sample_ratio": 1_000,
        "protocol": "udp",
        "agent_address": "192.0.2.250",
    }


def _rule(dice: random.Random, ip: str) -> dict[str, Any]:
    return {
        "uuid": _uuid(dice),
        "destination_prefix": f"{ip}/{128 if ':' in ip else 32}",
        "source_ports": list(_PORTS),
        "protocols": ["udp"],
        "action_type": "discard",
        "action": {},
    }


def _uuid(dice: random.Random) -> str:
    return str(uuid.UUID(int=dice.getrandbits(128), version=4))


def _json(body: dict[str, Any]) -> bytes:
    # As Advanced writes since 2024: compact, keys sorted, a newline at the end.
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode() + b"\n"
