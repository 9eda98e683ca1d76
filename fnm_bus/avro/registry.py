"""The schema registry: register the schemas, and get their ids.

Uses Confluent's client, which works with every registry that has Confluent's API. Its
import takes a quarter of a second, so it is imported at its first use.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from fnm_bus.avro import schema
from fnm_bus.avro.schema_ids import MAX_ID, SchemaIds, registry_subject
from fnm_bus.config.secrets import without_secrets
from fnm_bus.errors import ConfigError, FnmBusError, RegistryError, SchemaError

LEVEL: Final = "FULL_TRANSITIVE"
"""Readers and writers of all versions are compatible."""
_NUMBERS: Final = frozenset(
    {
        "cache.capacity",
        "cache.latest.ttl.sec",
        "max.retries",
        "retries.max.wait.ms",
        "retries.wait.ms",
        "timeout",
    }
)
"""Numeric settings of Confluent's client."""
_UNKNOWN: Final = frozenset({40401, 40402, 40403, 40408})
"""Confluent's codes for an unknown subject, version, schema, or level of a subject. A
404 without one of these is from a server that is not a registry."""
_REMEDIES: Final[Mapping[int, str]] = {
    401: "check user and password in [registry.client]",
    403: "the registry's administrator has to grant access",
    404: "check the registry's address; Apicurio's ends with /apis/ccompat/v7",
}
_MALFORMED: Final = (ValueError, LookupError, TypeError, AttributeError)
"""Errors of the client for a malformed answer."""
_REFUSED: Final = frozenset({409, 422})


@dataclass(frozen=True)
class Registry:
    """A schema registry.

    Attributes:
        url: its base address; Apicurio's ends with /apis/ccompat/v7. Several addresses
            of the same registry are separated by commas.
        timeout: timeout of a request in seconds.
        settings: further settings of Confluent's client, under their own names.
    """

    url: str = field(repr=False)
    timeout: float = 5.0
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)

    def register(self, records: Mapping[str, str]) -> SchemaIds:
        """Register every schema; return the ids, each verified by a read.

        Args:
            records: topic → full name of its records.

        Raises:
            ConfigError: the settings are wrong.
            RegistryError: the registry does not answer, or refuses.
            SchemaError: a schema is not compatible, or an id is of another schema.
        """
        ids: dict[str, int] = {}
        older: dict[str, tuple[int, ...]] = {}
        schemas: dict[int, str] = {}
        with self._client() as client:
            for topic, full_name in records.items():
                subject, avro = registry_subject(topic), _avro(schema.text(full_name))
                self._request(subject, client.set_compatibility, subject, LEVEL)
                number = self._request(subject, client.register_schema, subject, avro)
                ids[subject] = _check_id(f"{self.display_url}: {subject}", number)
        # A new client: the first one answers from its cache.
        with self._client() as client:
            for topic, full_name in records.items():
                subject = registry_subject(topic)
                number = ids[subject]
                text = self._request(subject, client.get_schema, number).schema_str
                _check_schema(
                    f"{self.display_url}: {subject}: id {number}", text, full_name
                )
                versions = self._schemas_of(client, subject)
                older[subject] = tuple(sorted(set(versions) - {number}))
                schemas |= versions | {number: text}
        return SchemaIds(self.display_url, ids, older, schemas)

    def check(self, records: Mapping[str, str]) -> dict[str, list[str]]:
        """Return, for each subject, the objections to registering; [] for none.

        Does not change the registry. A subject that does not exist yet accepts any
        schema.

        Args:
            records: topic → full name of its records.

        Raises:
            ConfigError: the settings are wrong.
            RegistryError: the registry does not answer.
        """
        with self._client() as client:
            return {
                registry_subject(topic): list(
                    self._objections(
                        client, registry_subject(topic), schema.text(full_name)
                    )
                )
                for topic, full_name in records.items()
            }

    def schema_of(self, number: int) -> str:
        """Return the schema of an id as JSON text.

        Raises:
            ConfigError: the settings are wrong.
            RegistryError: the registry does not answer.
            SchemaError: the registry does not have the id.
        """
        with self._client() as client:
            try:
                return str(
                    self._request(f"id {number}", client.get_schema, number).schema_str
                )
            except _UnknownError as exc:
                raise SchemaError(str(exc)) from exc

    @property
    def display_url(self) -> str:
        """The address without user and password."""
        return ",".join(_without_user(url) for url in self.url.split(","))

    def _objections(self, client: Any, subject: str, text: str) -> Iterator[str]:
        versions = self._versions(client, subject)
        if versions and (level := self._level(client, subject)) != LEVEL:
            yield f"its compatibility is {level}, wanted {LEVEL}"
        for version in versions:
            if not self._request(
                subject, client.test_compatibility, subject, _avro(text), version
            ):
                yield f"not compatible with version {version}"

    def _versions(self, client: Any, subject: str) -> list[int]:
        try:
            return list(self._request(subject, client.get_versions, subject))
        except _UnknownError:
            return []

    def _level(self, client: Any, subject: str) -> str:
        try:
            return str(self._request(subject, client.get_compatibility, subject))
        except _UnknownError:
            return "not set"

    def _schemas_of(self, client: Any, subject: str) -> dict[int, str]:
        """Return the schemas of all versions of a subject by their ids."""
        schemas = {}
        for version in self._versions(client, subject):
            answer = self._request(subject, client.get_version, subject, version)
            schemas[answer.schema_id] = answer.schema.schema_str
        return schemas

    @contextmanager
    def _client(self) -> Iterator[Any]:
        from confluent_kafka.schema_registry import (  # noqa: PLC0415 - see the top
            SchemaRegistryClient,
        )

        try:
            client = SchemaRegistryClient(self._client_settings())
        except (ValueError, TypeError, OSError) as exc:
            text = without_secrets(str(exc), self.settings)
            raise ConfigError(f"[registry] {self.display_url}: {text}") from None
        with client:
            yield client

    def _client_settings(self) -> dict[str, Any]:
        """Return the settings of Confluent's client."""
        conf: dict[str, Any] = {
            "timeout": self.timeout,
            # One retry: an answer is lost now and then (seen with Apicurio, once in
            # thousands). Further ones would delay a person, or a unit that restarts.
            "max.retries": 1,
            "retries.wait.ms": 200,
            **self.settings,
        }
        for name in _NUMBERS & conf.keys():
            conf[name] = float(conf[name])
        # User and password are not in the address, which the HTTP library logs.
        conf["url"] = self.display_url
        first = urlsplit(self.url.split(",")[0])
        if first.username is not None:
            if "basic.auth.user.info" in conf:
                raise ValueError("a user in url and in basic.auth.user.info; keep one")
            user, password = unquote(first.username), unquote(first.password or "")
            conf["basic.auth.user.info"] = f"{user}:{password}"
        return conf

    def _request(self, subject: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """Return the result of *call*; translate its errors."""
        from confluent_kafka.schema_registry.error import (  # noqa: PLC0415 - see top
            SchemaRegistryError,
        )

        context = f"{self.display_url}: {subject}"
        try:
            return call(*arguments)
        except SchemaRegistryError as exc:
            raise _translate_error(context, exc) from exc
        except _MALFORMED as exc:
            text = without_secrets(f"{exc!r:.200}", self.settings)
            raise RegistryError(
                f"{context}: not a registry's answer ({text}); {_REMEDIES[404]}"
            ) from exc
        except Exception as exc:
            # The client chooses the HTTP library, so its errors cannot be named here.
            text = without_secrets(str(exc) or type(exc).__name__, self.settings)
            raise RegistryError(f"{context}: no answer: {text}") from exc


class _UnknownError(RegistryError):
    """The registry does not have a subject, version or id."""


def _translate_error(context: str, exc: Any) -> FnmBusError:
    """Return the error for a registry's refusal."""
    status, code = exc.http_status_code, exc.error_code
    text = f"{context}: {exc.error_message or 'refused'!s:.500} (HTTP {status})"
    if code in _UNKNOWN:
        return _UnknownError(text)
    if status in _REFUSED:
        return SchemaError(text)
    remedy = _REMEDIES.get(status)
    return RegistryError(f"{text}; {remedy}" if remedy else text)


def _without_user(url: str) -> str:
    parts = urlsplit(url.strip())
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _avro(text: str) -> Any:
    from confluent_kafka.schema_registry import Schema  # noqa: PLC0415 - see the top

    return Schema(text, "AVRO")


def _check_id(context: str, number: object) -> int:
    """Return an id; raise SchemaError if a record cannot have it."""
    if not isinstance(number, int) or not 0 < number <= MAX_ID:
        raise SchemaError(f"{context}: got the id {number!r}, wanted 1 to {MAX_ID}")
    return number


def _check_schema(context: str, text: str, full_name: str) -> None:
    """Raise SchemaError if the schema of an id is not ours."""
    try:
        fingerprint = schema.fingerprint_of(schema.parse(text))
    except SchemaError as exc:
        raise SchemaError(f"{context}: {exc}") from exc
    if fingerprint != schema.fingerprint(full_name):
        raise SchemaError(
            f"{context}: has another schema than {full_name}; it is not pinned"
        )
