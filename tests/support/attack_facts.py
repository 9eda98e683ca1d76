"""Events and facts for tests of the policy."""

from typing import Any

import msgspec

from consumers.policy.facts import AttackFacts, facts_of
from fnm_bus.avro.examples import example_records
from fnm_bus.event import (
    AttackDetails,
    Event,
    FlowSpecRule,
    HostEvent,
    HostgroupEvent,
    HostgroupNetwork,
    Receipt,
    StatusEvent,
)

HOST = "203.0.113.7"
RECEIPT = Receipt(event_id="event-1", sensor="fra1", sequence=1)


def example_events() -> dict[str, Event]:
    events: dict[str, Any] = {}
    for name in ("HostEvent", "HostgroupEvent", "StatusEvent"):
        events |= example_records(f"fastnetmon.{name}")
    return {
        name: msgspec.structs.replace(
            event,
            receipt=msgspec.structs.replace(
                event.receipt, sequence=min(event.receipt.sequence, 2**53 - 1)
            ),
        )
        for name, event in events.items()
    }


def example_facts() -> list[AttackFacts]:
    return [facts for event in example_events().values() for facts in facts_of(event)]


def facts(name: str, **changes: Any) -> AttackFacts:
    """Return the first facts of an example."""
    return facts_of(example_events()[name])[0]._replace(**changes)


def host_event(action: str = "ban", **fields: Any) -> HostEvent:
    """Return an event of a host; `details` are fields of attack_details."""
    details = fields.pop("details", {})
    receipt = msgspec.structs.replace(RECEIPT, **fields.pop("receipt", {}))
    return HostEvent(
        **{
            "receipt": receipt,
            "action": action,
            "ip": HOST,
            "attack_details": AttackDetails(
                **{
                    "attack_uuid": "a1",
                    "attack_direction": "incoming",
                    "attack_protocol": "udp",
                    **details,
                }
            ),
            **fields,
        }
    )


def hostgroup_event(*networks: str, **fields: Any) -> HostgroupEvent:
    return HostgroupEvent(
        **{
            "receipt": RECEIPT,
            "action": "ban",
            "hostgroup_name": "web",
            "hostgroup_networks": tuple(
                HostgroupNetwork(sent=text, network=text) for text in networks
            ),
            **fields,
        }
    )


def status_event(**fields: Any) -> StatusEvent:
    return StatusEvent(
        **{"receipt": RECEIPT, "action": "attack_status", "ip": HOST, **fields}
    )


def flow_rule(**fields: Any) -> FlowSpecRule:
    return FlowSpecRule(
        **{
            "destination_prefix": f"{HOST}/32",
            "protocols": ("udp",),
            "source_ports": (53,),
            "action_type": "discard",
            **fields,
        }
    )
