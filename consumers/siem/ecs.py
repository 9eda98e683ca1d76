"""A summary as Elastic Common Schema: one JSON object on one line."""

from typing import Any, Final

from consumers.siem.effect import effect_of
from consumers.siem.summary import Summary, summarize
from fnm_bus.event.json_value import bytes_as_text
from fnm_bus.kafka.reader import ConsumedRecord
from fnm_bus.ops.terminal import json_line

_VERSION: Final = "8.11.0"
_ALERTS: Final = frozenset({"ban", "partial_block", "attack_status"})
_NETWORK_DIRECTIONS: Final = {"incoming": "inbound", "outgoing": "outbound"}


def ecs_line(record: ConsumedRecord) -> bytes:
    """Return a record as one line, with its end.

    Fields of ECS have its names. `fastnetmon` has the attack's own fields, `kafka` the
    record's position, which identifies a line that is written twice.
    """
    summary = summarize(record)
    effect = effect_of(summary.action)
    address = {"ip": summary.address, "address": summary.address}
    document = {
        "@timestamp": summary.at.isoformat(timespec="microseconds").replace(
            "+00:00", "Z"
        ),
        "ecs": {"version": _VERSION},
        "message": summary.text,
        "event": {
            "id": summary.record_id,
            "kind": _kind(summary),
            "category": ["network"],
            "type": list(effect.types),
            "action": summary.action,
            "outcome": effect.outcome,
            "reason": summary.code,
            "severity": effect.severity,
            "module": "fastnetmon",
            "dataset": f"fastnetmon.{summary.kind}",
            "provider": summary.actor or "fastnetmon",
        },
        "observer": {"name": summary.sensor},
        "source" if summary.direction == "outgoing" else "destination": address,
        "related": {"ip": [summary.address] if summary.address else []},
        "network": {
            "direction": _NETWORK_DIRECTIONS.get(summary.direction),
            "transport": summary.protocol,
        },
        "rule": {"name": summary.rule},
        "trace": {"id": summary.trace},
        "fastnetmon": {
            "attack_uuid": summary.attack,
            "hostgroup": summary.hostgroup,
            "pps": summary.pps,
            "bits": summary.bits,
            "mitigation": summary.mitigation,
        },
        "kafka": {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "key": bytes_as_text(record.key),
        },
    }
    return json_line(_present(document)).encode() + b"\n"


def _kind(summary: Summary) -> str:
    if summary.kind == "deadletter":
        return "pipeline_error"
    return "alert" if summary.action in _ALERTS else "event"


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that have a value; 0 is a value."""
    pruned = {
        name: _present(value) if isinstance(value, dict) else value
        for name, value in fields.items()
    }
    return {
        name: value for name, value in pruned.items() if value not in (None, "", [], {})
    }
