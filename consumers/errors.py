"""Errors of the consumers.

FnmBusError                       (fnm_bus.errors)
├── MitigatorTimeout          75  the mitigator did not answer a command
└── BrokerUnavailable
├── Fenced                69  another mitigator writes, or a transaction failed
└── RecordsRefused        69  Kafka refused a record of a transaction for good
"""

from fnm_bus.errors import BrokerUnavailable, FnmBusError


class MitigatorTimeout(FnmBusError):
    """The mitigator did not answer a command; the command is stored."""

    exit_code = 75
    retryable = True


class Fenced(BrokerUnavailable):
    """Another mitigator writes now, or the transaction failed: start over."""


class RecordsRefused(BrokerUnavailable):
    """Kafka refused a record of a transaction, and would refuse it again."""
