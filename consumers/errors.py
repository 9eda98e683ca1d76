"""Errors of the consumers.

FnmBusError                       (fnm_bus.errors)
├── MitigatorTimeout          75  the mitigator did not answer a command
└── BrokerUnavailable
├── Fenced                69  another mitigator is active, or a transaction failed
└── RecordsRefused        69  Kafka refused a record of a transaction permanently
"""

from fnm_bus.errors import BrokerUnavailable, FnmBusError


class MitigatorTimeout(FnmBusError):
    """The mitigator did not answer a command; the command is stored."""

    exit_code = 75
    retryable = True


class Fenced(BrokerUnavailable):
    """Another mitigator is active, or the transaction failed: reload the state."""


class RecordsRefused(BrokerUnavailable):
    """Kafka refused a record of a transaction permanently."""
