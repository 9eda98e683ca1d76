"""No output contains a secret, for each place of a secret and each error."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from consumers import check_all
from consumers.__main__ import app as consumers
from consumers.notifier.service import secret_of
from consumers.settings import FullSettings, NotifierSettings
from fnm_bus import build
from fnm_bus.cli import app
from fnm_bus.config import load
from fnm_bus.config.load import mask_value
from fnm_bus.config.secrets import MASK, is_secret, without_secrets
from fnm_bus.errors import ConfigError, FnmBusError
from fnm_bus.kafka import connection_check
from fnm_bus.kafka.client import ConnectionState, build_consumer, build_producer
from fnm_bus.kafka.connection_check import check_connection

SECRET = "hunter2-hunter2"  # noqa: S105 - of nobody

KAFKA = (
    "sasl.password",
    "ssl.key.password",
    "ssl.key.passphrase",
    "ssl.keystore.password",
    "ssl.key.pem",
    "ssl.certificate.pem",
    "ssl.engine.callback_data",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.extensions",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.kerberos.kinit.cmd",
    "sasl.jaas.config",
    "sasl.pasword",  # a slip
    "slas.password",  # as above
)
REGISTRY = (
    "basic.auth.user.info",
    "bearer.auth.token",
    "bearer.auth.client.secret",
    "ssl.key.password",
    "sasl.password",
    "proxy",
    "ssl.key.pem",
)
PLACES = [
    *(f'[kafka]\n"{name}" = "{SECRET}"' for name in KAFKA),
    *(
        f'[registry]\nurl = "http://localhost:1"\nclient."{name}" = "{SECRET}"'
        for name in REGISTRY
    ),
    f'[registry]\nurl = "http://me:{SECRET}@localhost:1"',
    f'[registry]\nurl = "http://x:1"\nclient.proxy = "http://a:{SECRET}@x:1"',
    f'[kafka_files]\n"sasl.password" = "{SECRET}"',
    f'[consumers.notifier]\nurl = "https://hooks.example.net/{SECRET}"',
    f'[consumers.notifier]\nurl_file = "{SECRET}"',
    f'[consumers.notifier]\nsecret_file = "{SECRET}"',
    f'[consumers.notifier]\napprise_file = "{SECRET}"',
]
"""A secret in each possible place."""


@pytest.fixture(params=PLACES)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A configuration with a secret; no broker and no registry answers."""
    text: str = request.param
    if "[kafka]" in text:
        text = text.replace("[kafka]", '[kafka]\n"bootstrap.servers" = "localhost:1"')
    else:
        text += '\n[kafka]\n"bootstrap.servers" = "localhost:1"'
    path = tmp_path / "fnm-bus.toml"
    path.write_text(f"{text}\n[spool]\ndirectory = '{tmp_path}/spool'\n")
    return path


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(connection_check, "_WITHIN", 0.2)
    yield
    logging.basicConfig(force=True)


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_config_show_prints_no_secret(file: Path, arguments: list[str]) -> None:
    shown = CliRunner().invoke(
        app, ["config", "show", "--config", str(file), *arguments]
    )
    assert shown.exit_code == 0, shown.output
    assert SECRET not in shown.output


def test_check_prints_no_secret(file: Path) -> None:
    checked = CliRunner().invoke(app, ["check", "--json", "--config", str(file)])
    assert SECRET not in checked.output + repr(checked.exception)
    assert "localhost:1" in checked.output or "[kafka" in checked.output


@pytest.mark.parametrize("program", ["exabgp", "notifier"])
def test_the_consumers_check_prints_no_secret(file: Path, program: str) -> None:
    command = ["check", program, "--config", str(file)]
    checked = CliRunner().invoke(consumers, command)
    assert SECRET not in checked.output + repr(checked.exception)


def test_log_lines_and_errors_contain_no_secret(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    settings = load.load_as(FullSettings, file, {}).settings
    said += [str(finding) for finding in check_all.run_checks(settings, "jsonlines")]
    try:
        kafka = build.kafka_settings(settings)
        check_connection(kafka)
    except FnmBusError as exc:
        said += [str(exc), repr(exc)]
    if settings.registry.url is not None:
        try:
            build.build_registry(settings).check({"t": "fastnetmon.HostEvent"})
        except FnmBusError as exc:
            said += [str(exc), repr(exc)]
    assert SECRET not in "\n".join([*said, caplog.text])


@pytest.mark.parametrize("name", KAFKA)
@pytest.mark.parametrize("build", [build_producer, build_consumer])
def test_librdkafkas_refusals_contain_no_secret(name: str, build: object) -> None:
    settings = {"group.id": "g", name: SECRET, "security.protocol": SECRET}
    with pytest.raises(ConfigError) as raised:
        build(settings, ConnectionState(settings))  # type: ignore[operator]
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_secret_of_the_environment_is_in_no_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load.load(
            tmp_path / "none.toml",
            {"FNM_BUS_KAFKA": SECRET, "FNM_BUS_KAFKA__SASL_PASSWORD": SECRET},
        )
    assert SECRET not in str(raised.value)


def test_a_secret_instead_of_a_file_name_is_not_quoted() -> None:
    with pytest.raises(ConfigError) as raised:
        secret_of(Path(SECRET), "secret_file")
    assert SECRET not in str(raised.value)


SECRET_FILES = [
    f"consumers.notifier.{name}"
    for name in NotifierSettings.model_fields
    if name.endswith("_file")
]


@pytest.mark.parametrize("name", SECRET_FILES)
def test_a_secret_instead_of_a_file_name_is_not_printed(name: str) -> None:
    assert mask_value(name, f"https://hooks.example/{SECRET}") == MASK
    assert mask_value(name, "/etc/fnm-bus/secret") == "/etc/fnm-bus/secret"


@pytest.mark.parametrize("name", [*KAFKA, *REGISTRY])
def test_every_setting_with_a_possible_secret_is_masked(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "bootstrap.servers",
        "security.protocol",
        "sasl.mechanism",
        "sasl.username",
        "ssl.ca.location",
        "ssl.key.location",
        "linger.ms",
    ],
)
def test_an_operators_errors_are_shown(name: str) -> None:
    assert not is_secret(name)


def test_the_longer_of_two_secrets_is_masked_completely() -> None:
    settings = {"sasl.password": "abcd", "ssl.key.password": "abcdef"}
    assert without_secrets("got abcdef", settings) == "got ********"
