"""The schema registry: register our schemas, and pin the ids it gives.

Uses Confluent's client, which speaks to every registry with Confluent's API. It takes
a quarter of a second to import, so it is imported where it is used.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from fnm_bus.avro import schema
from fnm_bus.avro.schema_ids import LARGEST, SchemaIds, subject_of
from fnm_bus.config.secrets import without_secrets
from fnm_bus.errors import ConfigError, FnmBusError, RegistryError, SchemaError

LEVEL: Final = "FULL_TRANSITIVE"
"""Old and new readers and writers fit together, over all versions."""
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
"""Settings of Confluent's client that it wants as numbers."""
_UNKNOWN: Final = frozenset({40401, 40402, 40403, 40408})
"""Confluent's codes: no such subject, version, schema, level of a subject. A 404
without one of these comes from a server that is no registry."""
_REMEDIES: Final[Mapping[int, str]] = {
    401: "look at user and password in [registry.client]",
    403: "the registry's administrator must allow it",
    404: "is this a registry's address? Apicurio's ends with /apis/ccompat/v7",
}
_MISREAD: Final = (ValueError, LookupError, TypeError, AttributeError)
"""What the client raises when it takes apart an answer of another form."""
_REFUSED: Final = frozenset({409, 422})


@dataclass(frozen=True)
class Registry:
    """A schema registry.

    Attributes:
        url: its base address; Apicurio's ends with /apis/ccompat/v7. More than one of
            the same registry are separated by commas.
        timeout: seconds without an answer after which a request is given up.
        settings: further settings of Confluent's client, under their own names.
    """

    url: str = field(repr=False)
    timeout: float = 5.0
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)

    def register(self, wanted: Mapping[str, str]) -> SchemaIds:
        """Register every schema and return the ids, each of them read back.

        Args:
            wanted: topic → full name of the record that stands on it.

        Raises:
            ConfigError: the settings are wrong.
            RegistryError: the registry does not answer, or refuses.
            SchemaError: a schema is not compatible, or an id is of another schema.
        """
        ids: dict[str, int] = {}
        older: dict[str, tuple[int, ...]] = {}
        schemas: dict[int, str] = {}
        with self._client() as client:
            for topic, full_name in wanted.items():
                subject, avro = subject_of(topic), _avro(schema.text(full_name))
                self._ask(subject, client.set_compatibility, subject, LEVEL)
                number = self._ask(subject, client.register_schema, subject, avro)
                ids[subject] = _fit(f"{self.shown}: {subject}", number)
        # Another client: the first one answers from memory what it has sent.
        with self._client() as client:
            for topic, full_name in wanted.items():
                subject = subject_of(topic)
                number = ids[subject]
                text = self._ask(subject, client.get_schema, number).schema_str
                _compare(f"{self.shown}: {subject}: id {number}", text, full_name)
                known = self._known(client, subject)
                older[subject] = tuple(sorted(set(known) - {number}))
                schemas |= known | {number: text}
        return SchemaIds(self.shown, ids, older, schemas)

    def check(self, wanted: Mapping[str, str]) -> dict[str, list[str]]:
        """Return, for each subject, what speaks against registering; [] if nothing.

        Nothing is changed. A subject that does not exist yet takes any schema.

        Raises:
            ConfigError: the settings are wrong.
            RegistryError: the registry does not answer.
        """
        with self._client() as client:
            return {
                subject_of(topic): list(
                    self._objections(client, subject_of(topic), schema.text(full_name))
                )
                for topic, full_name in wanted.items()
            }

    def subjects(self) -> list[str]:
        """Return the names of all subjects.

        Raises:
            ConfigError: the settings are wrong.
            RegistryError: the registry does not answer.
        """
        with self._client() as client:
            return sorted(self._ask("subjects", client.get_subjects))

    def schema_of(self, number: int) -> str:
        """Return the schema behind an id as JSON text.

        Raises:
            ConfigError: the settings are wrong.
            RegistryError: the registry does not answer.
            SchemaError: the registry does not know the id.
        """
        with self._client() as client:
            try:
                return str(
                    self._ask(f"id {number}", client.get_schema, number).schema_str
                )
            except _UnknownError as exc:
                raise SchemaError(str(exc)) from exc

    @property
    def shown(self) -> str:
        """The address without user and password."""
        return ",".join(_without_user(it) for it in self.url.split(","))

    def _objections(self, client: Any, subject: str, text: str) -> Iterator[str]:
        versions = self._versions(client, subject)
        if versions and (level := self._level(client, subject)) != LEVEL:
            yield f"its compatibility is {level}, wanted {LEVEL}"
        for version in versions:
            if not self._ask(
                subject, client.test_compatibility, subject, _avro(text), version
            ):
                yield f"not compatible with version {version}"

    def _versions(self, client: Any, subject: str) -> list[int]:
        try:
            return list(self._ask(subject, client.get_versions, subject))
        except _UnknownError:
            return []

    def _level(self, client: Any, subject: str) -> str:
        try:
            return str(self._ask(subject, client.get_compatibility, subject))
        except _UnknownError:
            return "not set"

    def _known(self, client: Any, subject: str) -> dict[int, str]:
        known = {}
        for version in self._versions(client, subject):
            it = self._ask(subject, client.get_version, subject, version)
            known[it.schema_id] = it.schema.schema_str
        return known

    @contextmanager
    def _client(self) -> Iterator[Any]:
        from confluent_kafka.schema_registry import (  # noqa: PLC0415 - see the top
            SchemaRegistryClient,
        )

        try:
            client = SchemaRegistryClient(self._conf())
        except (ValueError, TypeError, OSError) as exc:
            said = without_secrets(str(exc), self.settings)
            raise ConfigError(f"[registry] {self.shown}: {said}") from None
        with client:
            yield client

    def _conf(self) -> dict[str, Any]:
        """Return what Confluent's client is given."""
        conf: dict[str, Any] = {
            "timeout": self.timeout,
            # One more try: an answer gets lost now and then (seen with Apicurio, once
            # in thousands). Not more: a person waits, or a unit that is tried again.
            "max.retries": 1,
            "retries.wait.ms": 200,
            **self.settings,
        }
        for name in _NUMBERS & conf.keys():
            conf[name] = float(conf[name])
        # Not in the address: the HTTP library would write it to its log.
        conf["url"] = self.shown
        first = urlsplit(self.url.split(",")[0])
        if first.username is not None:
            if "basic.auth.user.info" in conf:
                raise ValueError("a user in url and in basic.auth.user.info; keep one")
            user, password = unquote(first.username), unquote(first.password or "")
            conf["basic.auth.user.info"] = f"{user}:{password}"
        return conf

    def _ask(self, what: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """Return what *call* returns; its errors become ours and say where and what."""
        from confluent_kafka.schema_registry.error import (  # noqa: PLC0415 - see top
            SchemaRegistryError,
        )

        where = f"{self.shown}: {what}"
        try:
            return call(*arguments)
        except SchemaRegistryError as exc:
            raise _refusal(where, exc) from exc
        except _MISREAD as exc:
            said = without_secrets(f"{exc!r:.200}", self.settings)
            raise RegistryError(
                f"{where}: the answer is no registry's ({said}); {_REMEDIES[404]}"
            ) from exc
        except Exception as exc:
            # Of an HTTP library that the client chooses, so it cannot be named here.
            said = without_secrets(str(exc) or type(exc).__name__, self.settings)
            raise RegistryError(f"{where}: no answer: {said}") from exc


class _UnknownError(RegistryError):
    """The registry says that it does not know a subject, version or id."""


def _refusal(where: str, exc: Any) -> FnmBusError:
    """Return what a registry's refusal means to us."""
    status, code = exc.http_status_code, exc.error_code
    text = f"{where}: {exc.error_message or 'refused'!s:.500} (HTTP {status})"
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


def _fit(where: str, number: object) -> int:
    """Return an id that a record can carry."""
    if not isinstance(number, int) or not 0 < number <= LARGEST:
        raise SchemaError(f"{where}: got the id {number!r}, wanted 1 to {LARGEST}")
    return number


def _compare(where: str, text: str, full_name: str) -> None:
    """Refuse an id that must not be pinned, because of the schema behind it."""
    try:
        theirs = schema.fingerprint_of(schema.parsed(text))
    except SchemaError as exc:
        raise SchemaError(f"{where}: {exc}") from exc
    if theirs != schema.fingerprint(full_name):
        raise SchemaError(
            f"{where}: behind it is another schema than {full_name}; it is not pinned"
        )


class PausingLookup:
    """Looks up schemas, and leaves a registry alone that did not answer.

    A request takes seconds to time out. Who reads other topics, too, must not spend
    them on each record.

    Args:
        lookup: returns the schema of an id.
        pause: seconds after a failure in which every lookup fails with its error.
    """

    def __init__(self, lookup: Callable[[int], str], pause: float) -> None:
        self._lookup = lookup
        self._pause = pause
        self._until = 0.0
        self._error = ""

    def __call__(self, number: int) -> str:
        """Return the schema behind an id.

        Raises:
            RegistryError: the registry does not answer, or did not just now.
            SchemaError: the registry does not know the id.
        """
        if monotonic() < self._until:
            raise RegistryError(self._error)
        try:
            return self._lookup(number)
        except RegistryError as exc:
            self._error, self._until = str(exc), monotonic() + self._pause
            raise
