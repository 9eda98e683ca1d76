"""What one writes first: a producer for each call, the document as it is."""

import json
import sys

from confluent_kafka import Producer

document = sys.stdin.buffer.read()
event = json.loads(document)
producer = Producer({"bootstrap.servers": sys.argv[1], "enable.idempotence": True})
producer.produce("bench.naive", key=event["ip"], value=document)
sys.exit(1 if producer.flush(60) else 0)
