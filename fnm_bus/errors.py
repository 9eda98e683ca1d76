"""Every error fnm-bus raises on purpose, in one tree.

    FnmBusError                    70  a fault of fnm-bus, except in subclasses
    ├── InvalidNotification        65  the document can never become an event
    ├── PoisonEntry                65  reading the entry kills its reader
    ├── InvalidRecord              65  a record's bytes can never become an event
    ├── ConfigError                78  the configuration; all problems at once
    ├── CommandNotLoaded           70  a package's command cannot be imported
    ├── ArchiveError               73  an archive file cannot be written
    ├── SpoolError                 75  the spool cannot do the operation now
    │   └── SpoolFull              75  ... because a limit is reached
    ├── SchemaError                78  a schema or a schema id that must not be used
    ├── RegistryError              69  the registry did not answer, or refused
    └── PublishError               69  Kafka did not take a record
        ├── BrokerUnavailable      69  no broker reachable              (retryable)
        │   └── ConnectionRejected 78  TLS or SASL settings are wrong   (retryable)
        ├── TopicRefused           69  only this topic is refused       (retryable)
        │   └── AccessDenied       69  ... for a missing access right   (retryable)
        ├── RecordTooLarge         65  this record is too large for good
        └── RecordRefused          65  this record is refused for good

The number is the exit status of a command (sysexits.h).
"""

from typing import ClassVar


class FnmBusError(Exception):
    """Base of all errors that fnm-bus raises on purpose.

    Attributes:
        exit_code: exit status of a command with this error.
        retryable: whether the same call may succeed later.
    """

    exit_code: ClassVar[int] = 70
    retryable: ClassVar[bool] = False


class InvalidNotification(FnmBusError):
    """A notification that can never become an event.

    Attributes:
        field: JSON Pointer (RFC 6901) of the fault; "" for the whole document.
        expected: the type or range of a correct value.
        actual: the value, shortened; never the whole document.
        reason: the three as one sentence.
    """

    exit_code = 65

    def __init__(self, field: str, expected: str, actual: str) -> None:
        self.field = field
        self.expected = expected
        self.actual = actual
        self.reason = f"{field or 'document'}: wanted {expected}, got {actual}"
        super().__init__(self.reason)

    def as_dict(self) -> dict[str, str]:
        """Return the fields that `parse --json` prints."""
        return {
            "field": self.field,
            "expected": self.expected,
            "actual": self.actual,
            "reason": self.reason,
        }


class PoisonEntry(FnmBusError):
    """An entry whose reader is killed, or exceeds its limits."""

    exit_code = 65


class InvalidRecord(FnmBusError):
    """A record whose bytes can never become an event."""

    exit_code = 65


class ConfigError(FnmBusError):
    """The configuration is wrong; the text has one problem per line."""

    exit_code = 78


class CommandNotLoaded(FnmBusError):
    """The command of an installed package cannot be imported."""


class ArchiveError(FnmBusError):
    """An archive file that exists or cannot be written."""

    exit_code = 73


class SpoolError(FnmBusError):
    """The spool cannot do the operation now; the text has the path and a remedy."""

    exit_code = 75
    retryable = True


class SpoolFull(SpoolError):
    """A limit of the spool or of the quarantine is reached."""


class SchemaError(FnmBusError):
    """A schema or a schema id that must not be used."""

    exit_code = 78


class RegistryError(FnmBusError):
    """The schema registry did not answer, or refused a request."""

    exit_code = 69
    retryable = True


class PublishError(FnmBusError):
    """Kafka did not take a record."""

    exit_code = 69


class BrokerUnavailable(PublishError):
    """No broker is reachable; the same record may be accepted later."""

    retryable = True


class ConnectionRejected(BrokerUnavailable):
    """A broker rejects this client: [kafka] needs a correction."""

    exit_code = 78


class TopicRefused(PublishError):
    """This topic does not exist or is forbidden; other topics are not affected."""

    retryable = True


class AccessDenied(TopicRefused):
    """Kafka's access rules forbid an operation; the text has it and the resource."""


class RecordTooLarge(PublishError):
    """This record exceeds the limit of the broker or the client."""

    exit_code = 65


class RecordRefused(PublishError):
    """This record is refused for good, but not because of its size."""

    exit_code = 65
