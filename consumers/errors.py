"""Errors of the consumers.

    FnmBusError                       (fnm_bus.errors)
    └── BrokerUnavailable
        ├── Fenced                69  another mitigator writes, or a transaction failed
        └── RecordsRefused        69  Kafka refused a record of a transaction for good
"""

from fnm_bus.errors import BrokerUnavailable


class Fenced(BrokerUnavailable):
    """Another mitigator writes now, or the transaction failed: start over."""


class RecordsRefused(BrokerUnavailable):
    """Kafka refused a record of a transaction, and would refuse it again."""
