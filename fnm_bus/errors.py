"""Every error fnm-bus raises on purpose, in one tree.

    FnmBusError                    70  our fault unless a subclass says otherwise
    ├── InvalidNotification        65  the document can never become an event
    ├── PoisonEntry                65  reading the entry kills the process that does it
    ├── InvalidRecord              65  a record's bytes can never become an event
    ├── ConfigError                78  the configuration; all problems at once
    ├── CommandNotLoaded           70  a package's command cannot be imported
    ├── SpoolError                 75  the spool cannot do what was asked, now
    │   └── SpoolFull              75  ... because a limit is reached
    ├── SchemaError                78  a schema, an id or a pin that must not be used
    ├── RegistryError              69  the registry did not answer, or refused
    └── PublishError               69  Kafka did not take a record
        ├── BrokerUnavailable      69  nobody answers                   (retryable)
        │   └── ConnectionRejected 78  TLS or SASL settings are wrong   (retryable)
        ├── TopicRefused           69  this topic is refused; others go on (retryable)
        │   └── AccessDenied       69  ... because a right is missing   (retryable)
        ├── RecordTooLarge         65  this record never fits
        └── RecordRefused          65  this record is refused for good

The number is the exit status (sysexits.h) with which a command ends.
"""

from typing import ClassVar


class FnmBusError(Exception):
    """Base of all errors that fnm-bus raises on purpose.

    Attributes:
        exit_code: status of a command that ends with this error.
        retryable: whether the same call may succeed later, unchanged.
    """

    exit_code: ClassVar[int] = 70
    retryable: ClassVar[bool] = False


class InvalidNotification(FnmBusError):
    """A notification that can never become an event.

    Attributes:
        field: where the fault is, as a JSON Pointer (RFC 6901); "" is the document.
        wanted: what would have been right, in words.
        got: what came, shortened; never the whole document.
        reason: one sentence that a person can act on.
    """

    exit_code = 65

    def __init__(self, field: str, wanted: str, got: str) -> None:
        self.field = field
        self.wanted = wanted
        self.got = got
        self.reason = f"{field or 'document'}: wanted {wanted}, got {got}"
        super().__init__(self.reason)

    def as_dict(self) -> dict[str, str]:
        """Return field, wanted, got and reason, as `parse --json` prints them."""
        return {
            "field": self.field,
            "wanted": self.wanted,
            "got": self.got,
            "reason": self.reason,
        }


class PoisonEntry(FnmBusError):
    """An entry that kills the process that reads it, or takes it past its limits."""

    exit_code = 65


class InvalidRecord(FnmBusError):
    """A record whose bytes can never become an event."""

    exit_code = 65


class ConfigError(FnmBusError):
    """The configuration is wrong; the text lists every problem, one a line."""

    exit_code = 78


class CommandNotLoaded(FnmBusError):
    """A command that an installed package declares cannot be imported."""


class SpoolError(FnmBusError):
    """The spool cannot do what was asked, now; the text names path and remedy."""

    exit_code = 75
    retryable = True


class SpoolFull(SpoolError):
    """A limit of the spool or of the quarantine is reached."""


class SchemaError(FnmBusError):
    """A schema, a schema id or a pin that must not be used."""

    exit_code = 78


class RegistryError(FnmBusError):
    """The schema registry did not answer, or refused; the text says which."""

    exit_code = 69
    retryable = True


class PublishError(FnmBusError):
    """Kafka did not take a record."""

    exit_code = 69


class BrokerUnavailable(PublishError):
    """No broker answers; the same record may be taken later."""

    retryable = True


class ConnectionRejected(BrokerUnavailable):
    """A broker answers and rejects this client: a person has to correct [kafka]."""

    exit_code = 78


class TopicRefused(PublishError):
    """This topic is unknown or forbidden; other topics are not affected."""

    retryable = True


class AccessDenied(TopicRefused):
    """Kafka's access rules forbid an operation; the text names it and the resource."""


class RecordTooLarge(PublishError):
    """This record exceeds what the broker or the client allows."""

    exit_code = 65


class RecordRefused(PublishError):
    """This record is refused for good, for another reason than its size."""

    exit_code = 65
