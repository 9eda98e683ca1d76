"""Kafka's names for operations and resources, as kafka-acls spells them."""

from typing import Final

READ: Final = "Read"
WRITE: Final = "Write"
CREATE: Final = "Create"
DESCRIBE: Final = "Describe"
DESCRIBE_CONFIGS: Final = "DescribeConfigs"
IDEMPOTENT_WRITE: Final = "IdempotentWrite"
TOPIC: Final = "Topic"
GROUP: Final = "Group"
TRANSACTIONAL_ID: Final = "TransactionalId"
CLUSTER: Final = "Cluster"

READER_GROUP: Final = "fnm-bus-reader"
"""Group id of consumers that join no group and commit nothing: librdkafka requires one,
and requests its coordinator."""
