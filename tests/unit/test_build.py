"""Codecs from the settings, and the relay's health."""

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
from support.memory_publisher import MemoryPublisher

from fnm_bus import build
from fnm_bus.avro import schema
from fnm_bus.avro.codec import Codec
from fnm_bus.avro.examples import example_records
from fnm_bus.avro.schema_ids import SchemaIds
from fnm_bus.config.settings import Settings
from fnm_bus.errors import InvalidRecord, RegistryError, SchemaError
from fnm_bus.event import AnyRecord
from fnm_bus.kafka.addressing import Topics
from fnm_bus.relay.metrics import RelayMetrics

TOPICS = Topics()


def settings(tmp_path: Path) -> Settings:
    """Settings with a registry at a port without a server."""
    return Settings.model_validate(
        {
            "registry": {
                "url": "http://127.0.0.1:1",
                "schema_ids_file": tmp_path / "ids.json",
            }
        }
    )


def pinned(wanted: dict[str, str], first: int = 70) -> SchemaIds:
    return SchemaIds(
        "http://registry",
        {f"{topic}-value": first + n for n, topic in enumerate(wanted)},
        {},
        {first + n: schema.text(name) for n, name in enumerate(wanted.values())},
    )


def example(name: str) -> AnyRecord:
    return next(iter(example_records(f"fastnetmon.{name}").values()))


ALL = [
    ("HostEvent", TOPICS.host),
    ("HostgroupEvent", TOPICS.hostgroup),
    ("StatusEvent", TOPICS.status),
    ("Mitigation", TOPICS.mitigation),
    ("Command", TOPICS.command),
    ("Audit", TOPICS.audit),
    ("DeadLetter", TOPICS.deadletter),
]


@pytest.mark.parametrize(("name", "topic"), ALL)
def test_pinned_ids_allow_reading_without_the_registry(
    tmp_path: Path, name: str, topic: str
) -> None:
    """So a person's command gets its answer, which is an audit record."""
    pins = pinned(dict(TOPICS.of_framed()))
    pins.write(tmp_path / "ids.json")
    value = Codec(pins).encode(example(name), topic)
    reader = build.build_reading_codec(settings(tmp_path))
    assert reader.decode(value) == example(name)
    assert build.build_independent_codec(settings(tmp_path)).decode(value) == example(
        name
    )


@pytest.mark.parametrize(("name", "topic"), ALL)
def test_single_objects_are_readable_without_the_registry(
    tmp_path: Path, name: str, topic: str
) -> None:
    value = Codec().encode(example(name), topic)
    reader = build.build_reading_codec(settings(tmp_path))
    assert reader.decode(value) == example(name)


@pytest.mark.process
def test_an_id_that_is_not_pinned_needs_the_registry(tmp_path: Path) -> None:
    value = Codec(pinned(dict(TOPICS.of_framed()))).encode(
        example("Audit"), TOPICS.audit
    )
    with pytest.raises(RegistryError):
        build.build_reading_codec(settings(tmp_path)).decode(value)
    with pytest.raises(InvalidRecord, match="not pinned"):
        build.build_independent_codec(settings(tmp_path)).decode(value)


def test_the_relay_starts_with_schema_ids_of_events_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As they were pinned before audit records and dead letters had ids."""
    pinned(dict(TOPICS.of_events())).write(tmp_path / "ids.json")
    codec = build.build_codec(settings(tmp_path))
    assert codec.encode(example("HostEvent"), TOPICS.host)[0] == 0
    assert codec.encode(example("DeadLetter"), TOPICS.deadletter)[:2] == b"\xc3\x01"
    assert len(caplog.records) == 1


@pytest.mark.parametrize("text", ["", "{", '{"version": 2}'])
def test_unusable_schema_ids_stop_only_programs_that_need_them(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "ids.json").write_text(text)
    with pytest.raises(SchemaError):
        build.build_reading_codec(settings(tmp_path))
    codec = build.build_independent_codec(settings(tmp_path))
    assert codec.encode(example("Audit"), TOPICS.audit)[:2] == b"\xc3\x01"
    assert "ids.json" in caplog.text


def test_unreadable_schema_ids_stop_only_programs_that_need_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As for root without capabilities, in a directory of another user."""

    def refuse(_self: Path, **_options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    made, audit = settings(tmp_path), example("Audit")
    monkeypatch.setattr(Path, "stat", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(SchemaError, match="Permission denied"):
        build.build_reading_codec(made)
    codec = build.build_independent_codec(made)
    assert codec.encode(audit, TOPICS.audit)[:2] == b"\xc3\x01"
    assert "Permission denied" in caplog.text


@pytest.fixture
def broken_schema(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An installation in which an upgrade has written half of a schema."""
    shutil.copytree(Path(__file__).parents[2] / "schemas/avro", tmp_path / "avro")
    file = tmp_path / "avro/fastnetmon.StatusEvent.avsc"
    file.write_bytes(file.read_bytes()[:500])
    monkeypatch.setattr(schema, "data_directory", tmp_path.joinpath)
    caches = (schema.text, schema.load, schema.fingerprint, schema._read_declaration)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.mark.usefixtures("broken_schema")
def test_a_broken_schema_prevents_the_relay_from_starting(tmp_path: Path) -> None:
    made = Settings.model_validate({"spool": {"directory": tmp_path / "spool"}})
    with pytest.raises(SchemaError, match="StatusEvent"):
        build.build_relay(made, RelayMetrics())


@pytest.mark.parametrize(
    ("refusals", "status"), [("", 200), ("fastnetmon.host.v1: no WRITE right", 503)]
)
def test_a_topic_that_refuses_records_makes_the_relay_unhealthy(
    tmp_path: Path, refusals: str, status: int
) -> None:
    relay: Any = SimpleNamespace(
        iterated_at=monotonic(),
        draining=True,
        publisher=MemoryPublisher(),
        drain=SimpleNamespace(
            in_flight=0,
            topic_refusals=refusals,
            disk_errors=SimpleNamespace(current={}),
            io_blocked=0,
            is_reading_suspect=False,
        ),
    )
    server = build.build_http_server(settings(tmp_path), relay, RelayMetrics())
    code, _headers, body = server._page("/healthz", {})
    assert str(code).startswith(str(status))
    assert refusals in body.decode()
