"""The schema registry: register our schemas, and pin the ids it gives.

Uses Confluent's client, which speaks to every registry with Confluent's API. It takes
a quarter of a second to import, so it is imported where it is used.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from fnm_bus import schema
from fnm_bus.errors import RegistryError, SchemaError
from fnm_bus.pins import Pins, subject_of

LEVEL: Final = "FULL_TRANSITIVE"
"""Old and new readers and writers fit together, over all versions."""
_NOT_FOUND: Final = 404
_CONFLICT: Final = frozenset({409, 422})


@dataclass(frozen=True)
class Registry:
    """A schema registry.

    Attributes:
        url: its base address; Apicurio's ends with /apis/ccompat/v7.
        timeout: seconds for each request.
        settings: further settings of Confluent's client, under their own names.
    """

    url: str
    timeout: float = 5.0
    settings: Mapping[str, str] = field(default_factory=dict)

    def register(self, wanted: Mapping[str, str]) -> Pins:
        """Register every schema and return the ids, each of them read back.

        Args:
            wanted: topic → full name of the record that stands on it.

        Raises:
            RegistryError: the registry does not answer, or refuses.
            SchemaError: a schema is not compatible, or an id is of another schema.
        """
        client = self._client()
        ids: dict[str, int] = {}
        older: dict[str, tuple[int, ...]] = {}
        schemas: dict[int, str] = {}
        for topic, full_name in wanted.items():
            subject = subject_of(topic)
            text = schema.text(full_name)
            self._ask(subject, client.set_compatibility, subject, LEVEL)
            number = self._ask(subject, client.register_schema, subject, _avro(text))
            ids[subject] = number
            known = self._known(client, subject)
            if number not in known:
                known[number] = self._text(client, subject, number)
            _compare(subject, number, known[number], full_name)
            older[subject] = tuple(sorted(set(known) - {number}))
            schemas |= known
        return Pins(self.shown, ids, older, schemas)

    def check(self, wanted: Mapping[str, str]) -> dict[str, list[str]]:
        """Return, for each subject, why registering would be refused; [] if it fits.

        Raises:
            RegistryError: the registry does not answer.
        """
        client = self._client()
        found: dict[str, list[str]] = {}
        for topic, full_name in wanted.items():
            subject, avro = subject_of(topic), _avro(schema.text(full_name))
            found[subject] = []
            for version in self._versions(client, subject):
                fits = self._ask(
                    subject, client.test_compatibility, subject, avro, version
                )
                if not fits:
                    found[subject].append(f"not compatible with version {version}")
        return found

    def subjects(self) -> list[str]:
        """Return the names of all subjects.

        Raises:
            RegistryError: the registry does not answer.
        """
        client = self._client()
        return sorted(self._ask("", client.get_subjects))

    def schema_of(self, number: int) -> str:
        """Return the schema behind an id as JSON text.

        Raises:
            RegistryError: the registry does not answer, or does not know the id.
        """
        return self._text(self._client(), "", number)

    @property
    def shown(self) -> str:
        """The address without user and password."""
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=host))

    def _client(self) -> Any:
        from confluent_kafka.schema_registry import (  # noqa: PLC0415 - see the top
            SchemaRegistryClient,
        )

        try:
            return SchemaRegistryClient(
                {
                    "url": self.url,
                    "timeout": self.timeout,
                    # A person waits for the answer, or a unit that is tried again.
                    "max.retries": 0,
                    **self.settings,
                }
            )
        except (ValueError, TypeError) as exc:
            raise RegistryError(f"[registry] {exc}") from exc

    def _versions(self, client: Any, subject: str) -> list[int]:
        try:
            return list(self._ask(subject, client.get_versions, subject))
        except _UnknownSubjectError:
            return []

    def _known(self, client: Any, subject: str) -> dict[int, str]:
        known: dict[int, str] = {}
        for version in self._versions(client, subject):
            it = self._ask(subject, client.get_version, subject, version)
            known[it.schema_id] = it.schema.schema_str
        return known

    def _text(self, client: Any, subject: str, number: int) -> str:
        it = self._ask(subject or f"id {number}", client.get_schema, number)
        return str(it.schema_str)

    def _ask(self, what: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """Return what *call* returns; its errors become ours and say where and what."""
        from confluent_kafka.schema_registry.error import (  # noqa: PLC0415 - see top
            SchemaRegistryError,
        )

        where = f"{self.shown}: {what}" if what else self.shown
        try:
            return call(*arguments)
        except SchemaRegistryError as exc:
            text = f"{where}: {exc.error_message} (HTTP {exc.http_status_code})"
            if exc.http_status_code == _NOT_FOUND:
                raise _UnknownSubjectError(text) from exc
            if exc.http_status_code in _CONFLICT:
                raise SchemaError(text) from exc
            raise RegistryError(text) from exc
        except Exception as exc:
            raise RegistryError(f"{where}: no answer: {exc}") from exc


class _UnknownSubjectError(RegistryError):
    """The registry does not know the subject, or this is no registry."""


def _avro(text: str) -> Any:
    from confluent_kafka.schema_registry import Schema  # noqa: PLC0415 - see the top

    return Schema(text, "AVRO")


def _compare(subject: str, number: int, text: str, full_name: str) -> None:
    theirs = schema.fingerprint_of(json.loads(text))
    if theirs != schema.fingerprint(full_name):
        raise SchemaError(
            f"{subject}: the registry says id {number}, but behind it is another schema"
            f" than {full_name}; it is not pinned"
        )
