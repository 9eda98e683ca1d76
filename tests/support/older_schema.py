"""A record as an older version of fnm-bus would have written it."""

import json
from datetime import datetime
from io import BytesIO

import msgspec
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from fastavro import schemaless_writer

from fnm_bus.avro import schema
from fnm_bus.avro.schema_ids import registry_subject
from fnm_bus.event import HostEvent


def older_value(registry: str, topic: str, event: HostEvent) -> bytes:
    """Return the framed value of an event under a schema that lacks two fields.

    The last field of the record and the last of its attack_details are missing. The
    schema is registered as a version of the topic's schema.
    """
    avro = json.loads(schema.text("fastnetmon.HostEvent"))
    avro["fields"].pop()
    (details,) = (
        field["type"][1]
        for field in avro["fields"]
        if field["name"] == "attack_details"
    )
    details["fields"].pop()
    text = json.dumps(avro)
    with SchemaRegistryClient({"url": registry, "timeout": 10}) as client:
        number = client.register_schema(registry_subject(topic), Schema(text, "AVRO"))
    out = BytesIO(b"\0" + number.to_bytes(4, "big"))
    out.seek(5)
    datum = msgspec.to_builtins(event, builtin_types=(bytes, datetime))
    schemaless_writer(out, schema.parse(text), datum)
    return out.getvalue()
