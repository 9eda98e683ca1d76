"""Answers of a registry; a real registry is tested in tests/integration."""

import base64
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.process import serving

from fnm_bus.avro import schema
from fnm_bus.avro.registry import Registry
from fnm_bus.errors import ConfigError, FnmBusError, RegistryError, SchemaError

SUBJECT = "fastnetmon.host.v1-value"
WANTED = {"fastnetmon.host.v1": "fastnetmon.HostEvent"}
SCHEMA = schema.text("fastnetmon.HostEvent")
Answer = tuple[int, object]


class Fake:
    """A server with given answers.

    Attributes:
        answers: method and path → status and content; text stays, the rest is JSON.
        other: the answer to everything else.
        asked: method and path of each request.
        seen: headers of each request.
    """

    def __init__(self, answers: Mapping[str, Answer], other: Answer) -> None:
        self.answers = answers
        self.other = other
        self.asked: list[str] = []
        self.seen: list[Mapping[str, str]] = []


@contextmanager
def serve(fake: Fake) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = f"{self.command} {self.path.partition('?')[0]}"
            fake.asked.append(request)
            fake.seen.append(dict(self.headers))
            status, content = fake.answers.get(request, fake.other)
            body = content if isinstance(content, str) else json.dumps(content)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = do_PUT = answer  # noqa: N815 - names of http.server

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def fake() -> Iterator[Callable[..., tuple[Fake, str]]]:
    """Start servers: `fake(answers, other)` returns one with its address."""
    with ExitStack() as stack:

        def start(
            answers: Mapping[str, Answer], other: Answer = (404, "")
        ) -> tuple[Fake, str]:
            fake = Fake(answers, other)
            return fake, stack.enter_context(serve(fake))

        yield start


def good(number: object = 5, text: str = SCHEMA) -> dict[str, Answer]:
    """The answers of a registry that accepts our schema under an id."""
    version = {"subject": SUBJECT, "version": 1, "id": number, "schema": text}
    return {
        f"PUT /config/{SUBJECT}": (200, {"compatibility": "FULL_TRANSITIVE"}),
        f"GET /config/{SUBJECT}": (200, {"compatibilityLevel": "FULL_TRANSITIVE"}),
        f"POST /subjects/{SUBJECT}/versions": (200, {"id": number}),
        f"GET /schemas/ids/{number}": (200, {"schema": text}),
        f"GET /subjects/{SUBJECT}/versions": (200, [1]),
        f"GET /subjects/{SUBJECT}/versions/1": (200, version),
        f"POST /compatibility/subjects/{SUBJECT}/versions/1": (
            200,
            {"is_compatible": True},
        ),
    }


Start = Callable[..., tuple[Fake, str]]


def test_a_registered_id_is_verified_by_a_read(fake: Start) -> None:
    server, url = fake(good())
    pins = Registry(url).register(WANTED)
    assert pins.ids == {SUBJECT: 5}
    assert pins.registry == url
    assert "GET /schemas/ids/5" in server.asked
    pins.check(WANTED)


def test_ids_of_older_versions_are_returned(fake: Start) -> None:
    older = json.dumps(
        {**json.loads(SCHEMA), "fields": json.loads(SCHEMA)["fields"][1:]}
    )
    version = {"subject": SUBJECT, "version": 1, "id": 3, "schema": older}
    two = {"subject": SUBJECT, "version": 2, "id": 5, "schema": SCHEMA}
    _, url = fake(
        {
            **good(),
            f"GET /subjects/{SUBJECT}/versions": (200, [1, 2]),
            f"GET /subjects/{SUBJECT}/versions/1": (200, version),
            f"GET /subjects/{SUBJECT}/versions/2": (200, two),
        }
    )
    pins = Registry(url).register(WANTED)
    assert pins.older == {SUBJECT: (3,)}
    assert pins.schemas == {3: older, 5: SCHEMA}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (schema.text("fastnetmon.StatusEvent"), "has another schema than"),
        ('{"type": "record", "name": "acme.Order", "fields": []}', "another schema"),
        ('"string"', "another schema"),
        ("no schema", "id 5: not an Avro schema"),
    ],
)
def test_an_id_of_another_schema_is_refused(
    fake: Start, text: str, reason: str
) -> None:
    _, url = fake({**good(), "GET /schemas/ids/5": (200, {"schema": text})})
    with pytest.raises(SchemaError, match=reason) as error:
        Registry(url).register(WANTED)
    assert SUBJECT in str(error.value)


@pytest.mark.parametrize("number", [0, -1, 2**31, "5", 1.5, None])
def test_an_id_that_does_not_fit_a_record_is_refused(
    fake: Start, number: object
) -> None:
    _, url = fake(good(number))
    with pytest.raises(SchemaError, match=f"{SUBJECT}: got the id .*, wanted 1 to"):
        Registry(url).register(WANTED)


def refused(status: int, code: int, text: str) -> dict[str, Answer]:
    request = f"POST /subjects/{SUBJECT}/versions"
    return {**good(), request: (status, {"error_code": code, "message": text})}


@pytest.mark.parametrize(
    ("answers", "other", "kind", "reason"),
    [
        (refused(409, 409, "not compatible"), (404, ""), SchemaError, "not compatible"),
        (refused(422, 42201, "bad schema"), (404, ""), SchemaError, "bad schema"),
        (refused(500, 50001, "no store"), (404, ""), RegistryError, "no store.*500"),
        ({}, (401, "who?"), RegistryError, "HTTP 401.*user and password"),
        ({}, (403, "no"), RegistryError, "HTTP 403.*administrator"),
        ({}, (404, ""), RegistryError, "HTTP 404.*check the registry"),
        (
            {},
            (404, {"message": None}),
            RegistryError,
            "HTTP 404.*check the registry",
        ),
        ({}, (200, "<html>Welcome</html>"), RegistryError, "not a registry's"),
        ({}, (200, "[]"), RegistryError, "not a registry's"),
        ({}, (200, "7"), RegistryError, "not a registry's"),
        ({}, (200, "{}"), SchemaError, "id None, wanted 1 to"),
        ({}, (503, "<html>busy</html>"), RegistryError, "HTTP 503"),
    ],
)
def test_a_refusal_has_address_and_reason(
    fake: Start,
    answers: Mapping[str, Answer],
    other: Answer,
    kind: type[FnmBusError],
    reason: str,
) -> None:
    _, url = fake(answers, other)
    with pytest.raises((RegistryError, SchemaError), match=reason) as error:
        Registry(url).register(WANTED)
    assert url in str(error.value)
    assert isinstance(error.value, kind)


@pytest.mark.parametrize("other", [(404, ""), (200, "<html>"), (500, "")])
def test_check_fails_if_the_server_is_not_a_registry(
    fake: Start, other: Answer
) -> None:
    _, url = fake({}, other)
    with pytest.raises(RegistryError):
        Registry(url).check(WANTED)


def test_a_new_subject_accepts_any_schema(fake: Start) -> None:
    unknown = (404, {"error_code": 40401, "message": "Subject not found."})
    _, url = fake({}, unknown)
    assert Registry(url).check(WANTED) == {SUBJECT: []}


def test_check_returns_the_objections(fake: Start) -> None:
    _, url = fake(
        {
            **good(),
            f"GET /config/{SUBJECT}": (200, {"compatibilityLevel": "BACKWARD"}),
            f"POST /compatibility/subjects/{SUBJECT}/versions/1": (
                200,
                {"is_compatible": False},
            ),
        }
    )
    assert Registry(url).check(WANTED) == {
        SUBJECT: [
            "its compatibility is BACKWARD, wanted FULL_TRANSITIVE",
            "not compatible with version 1",
        ]
    }


def test_a_level_that_is_not_set_is_an_objection(fake: Start) -> None:
    unset = (404, {"error_code": 40408, "message": "no level"})
    _, url = fake({**good(), f"GET /config/{SUBJECT}": unset})
    assert Registry(url).check(WANTED)[SUBJECT] == [
        "its compatibility is not set, wanted FULL_TRANSITIVE"
    ]


def test_checking_changes_nothing(fake: Start) -> None:
    server, url = fake(good())
    assert Registry(url).check(WANTED) == {SUBJECT: []}
    written = [request for request in server.asked if not request.startswith("GET ")]
    assert written == [f"POST /compatibility/subjects/{SUBJECT}/versions/1"]


def test_an_unknown_id_is_final_an_unreachable_registry_is_not(fake: Start) -> None:
    _, url = fake({}, (404, {"error_code": 40403, "message": "Schema 9 not found."}))
    with pytest.raises(SchemaError, match="id 9: Schema 9 not found"):
        Registry(url).schema_of(9)
    _, url = fake({}, (404, ""))
    with pytest.raises(RegistryError, match="check the registry's address"):
        Registry(url).schema_of(9)


def test_user_and_password_are_sent_and_never_logged(
    fake: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server, url = fake({}, (401, "who?"))
    with_user = url.replace("//", "//anna:gehe%40im@")
    registry = Registry(with_user)
    with pytest.raises(RegistryError) as error:
        registry.schema_of(1)
    sent = server.seen[0]["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(sent) == b"anna:gehe@im"
    for shown in (str(error.value), repr(registry), registry.display_url, caplog.text):
        assert "gehe" not in shown
    assert registry.display_url == url


def test_settings_of_the_client_pass_through(fake: Start) -> None:
    server, url = fake({}, (503, ""))
    settings = {
        "basic.auth.user.info": "anna:geheim",
        "max.retries": "2",
        "retries.wait.ms": "1",
    }
    with pytest.raises(RegistryError):
        Registry(url, settings=settings).schema_of(1)
    assert len(server.asked) == 3
    assert server.seen[0]["Authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("url", "settings", "reason"),
    [
        ("ftp://registry", {}, "Invalid url"),
        ("http://registry", {"colour": "blue"}, "colour"),
        ("http://registry", {"max.retries": "many"}, "many"),
        ("http://registry", {"ssl.ca.location": "/none/ca.pem"}, "No such file"),
        ("http://registry", {"ssl.key.location": "/none/key"}, "certificate"),
        ("http://registry", {"basic.auth.user.info": "anna"}, "username"),
        ("http://a:b@registry", {"basic.auth.user.info": "a:b"}, "keep one"),
    ],
)
def test_wrong_settings_are_a_configuration_error(
    url: str, settings: Mapping[str, str], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        Registry(url, settings=settings).schema_of(1)


def test_an_invalid_certificate_is_a_configuration_error(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("no certificate")
    with pytest.raises(ConfigError, match=r"\[registry\]"):
        Registry("https://registry", settings={"ssl.ca.location": str(path)}).schema_of(
            1
        )


def test_a_lost_answer_is_requested_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\nConnection: close\r\n\r\n"
        answer = head + b'{"schema": "int"}'

        def serve_two() -> None:
            server.accept()[0].close()
            second, _ = server.accept()
            with second:
                second.recv(65_536)
                second.sendall(answer)

        thread = threading.Thread(target=serve_two)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert Registry(url).schema_of(1) == "int"
        thread.join()


def test_an_unreachable_registry_is_reported_with_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(RegistryError, match=rf"127\.0\.0\.1:{port}.*no answer"):
        Registry(f"http://127.0.0.1:{port}").schema_of(1)


def test_a_registry_that_never_answers_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(RegistryError, match=r"no answer: .*timed out"):
            Registry(url, timeout=0.1).schema_of(1)
