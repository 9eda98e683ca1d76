"""Defaults, file and environment; all mistakes are reported at once."""

from pathlib import Path

import pytest

from consumers.settings import FullSettings
from fnm_bus import build
from fnm_bus.config import load, spool_paths
from fnm_bus.config.settings import Settings
from fnm_bus.errors import ConfigError


@pytest.fixture(autouse=True)
def no_system_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(load, "FILE", tmp_path / "etc.toml")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "fnm-bus.toml"


def refused(path: Path | None, **environ: str) -> str:
    with pytest.raises(ConfigError) as info:
        load.load(path, environ)
    return str(info.value)


def test_without_file_and_environment_all_is_default() -> None:
    loaded = load.load(None, {})
    assert loaded.settings == Settings()
    assert loaded.sources == {}


def test_the_environment_wins_over_the_file_and_the_file_over_the_defaults(
    file: Path,
) -> None:
    file.write_text(
        'sensor = "fra1"\n[spool]\nsoft_limit_files = 5\nhard_limit_files = 6\n'
    )
    settings, sources = load.load(file, {"FNM_BUS_SPOOL__HARD_LIMIT_FILES": "7"})
    assert (settings.sensor, settings.spool.soft_limit_files) == ("fra1", 5)
    assert settings.spool.hard_limit_files == 7
    assert settings.spool.soft_limit_bytes == Settings().spool.soft_limit_bytes
    assert sources == {
        "sensor": str(file),
        "spool.soft_limit_files": str(file),
        "spool.hard_limit_files": "FNM_BUS_SPOOL__HARD_LIMIT_FILES",
    }


def test_the_systems_file_is_read_when_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "etc.toml").write_text('sensor = "fra1"')
    assert load.load(None, {}).settings.sensor == "fra1"


def test_a_named_file_is_read_instead_of_the_systems(
    tmp_path: Path, file: Path
) -> None:
    (tmp_path / "etc.toml").write_text("nonsense")
    file.write_text('sensor = "fra1"')
    named = {"FNM_BUS_CONFIG": str(file)}
    assert load.load(None, named).settings.sensor == "fra1"
    assert load.load(file, {}).settings.sensor == "fra1"


@pytest.mark.parametrize(
    ("variable", "table", "key"),
    [
        ("FNM_BUS_KAFKA__BOOTSTRAP_SERVERS", "kafka", "bootstrap.servers"),
        ("FNM_BUS_KAFKA__SASL_PASSWORD", "kafka", "sasl.password"),
        ("FNM_BUS_REGISTRY__CLIENT__SSL_CA_LOCATION", "registry", "ssl.ca.location"),
    ],
)
def test_names_with_dots_are_set_by_variables(
    variable: str, table: str, key: str
) -> None:
    settings = load.load(None, {variable: "x"}).settings
    values = settings.kafka if table == "kafka" else settings.registry.client
    assert values[key] == "x"


@pytest.mark.parametrize("name", sorted(load._OTHER - {"FNM_BUS_CONFIG"}))
def test_variables_that_are_no_settings_are_passed_over(name: str) -> None:
    assert load.load(None, {name: "x"}).settings == Settings()


def test_every_problem_is_told_at_once_with_its_place(file: Path) -> None:
    file.write_text(
        'colour = "red"\n[spool]\nsoft_limit_files = 0\n[relay]\nmetrics_port = 70000\n'
    )
    text = refused(
        file, FNM_BUS_SPOLL__DIRECTORY="/x", FNM_BUS_NOTIFY__DRAIN_TIMEOUT="soon"
    )
    lines = text.splitlines()
    assert len(lines) == 5
    assert lines == [
        (
            "FNM_BUS_SPOLL__DIRECTORY: there is no such setting;"
            " did you mean FNM_BUS_SPOOL__DIRECTORY?"
        ),
        f"{file}: spool.soft_limit_files: wanted at least 1, got 0",
        f"{file}: relay.metrics_port: wanted at most 65535, got 70000",
        (
            "FNM_BUS_NOTIFY__DRAIN_TIMEOUT: notify.drain_timeout: wanted a number,"
            ' got "soon"'
        ),
        (
            f"{file}: colour: there is no such setting; there are sensor, dry_run,"
            " spool, kafka, kafka_files, topics, registry, relay, notify, log,"
            " consumers"
        ),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "[spool]\nstatus_reserve = -0.1",
        "[relay]\nmetrics_port = -1",
        '[log]\nformat = "xml"',
        '[topics]\nhost = ""',
        "[topics]\nhost = '^fastnetmon'",
        '[topics]\nreason = "o\'brien"',
        '[topics]\naudit = "a\\nb"',
        "[topics]\npartitions = 0",
        "[relay]\ncpu_nice = true",
        "[topics]\npartitions = 1000000000000",
        '[kafka]\n"acks" = "0"',
        '[kafka]\n"acks" = "1"',
        '[kafka]\n"request.required.acks" = "1"',
        '[kafka]\n"enable.idempotence" = "false"',
        "[notify]\ndrain_timeout = -1",
        "[registry]\ntimeout = 0",
        "[spool]\nunknown = 1",
    ],
)
def test_a_wrong_value_is_refused_and_the_file_named(file: Path, text: str) -> None:
    file.write_text(text)
    assert refused(file).startswith(f"{file}: ")


def test_what_would_lose_notifications_is_refused_with_the_reason(file: Path) -> None:
    file.write_text('[kafka]\n"acks" = "0"')
    assert "acks: wanted all, got 0" in refused(file)
    assert "could be lost" in refused(None, FNM_BUS_KAFKA__ACKS="0")
    file.write_text('[kafka]\n"acks" = "-1"\n"enable.idempotence" = "True"')
    assert load.load(file, {}).settings.kafka["acks"] == "-1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sensor = 7", "sensor: wanted text, got 7; write it in quotes"),
        ("sensor = true", "sensor: wanted text, got true; write it in quotes"),
        ('sensor = ""', 'sensor: wanted text that is not empty, got ""'),
        ('dry_run = "maybe"', 'dry_run: wanted true or false, got "maybe"'),
        (
            "[spool]\ndirectory = 7",
            "spool.directory: wanted a path, got 7; write it in quotes",
        ),
        (
            '[spool]\nsoft_limit_files = "many"',
            'spool.soft_limit_files: wanted a whole number, got "many"',
        ),
        (
            "[spool]\nsoft_limit_files = 1.5",
            "spool.soft_limit_files: wanted a whole number, got 1.5",
        ),
        (
            "[spool]\nstatus_reserve = 1.0",
            "spool.status_reserve: wanted less than 1, got 1.0",
        ),
        (
            "[relay]\nshutdown_timeout = 0",
            "relay.shutdown_timeout: wanted more than 0, got 0",
        ),
        (
            "[relay]\nshutdown_timeout = true",
            "relay.shutdown_timeout: wanted a number, got true",
        ),
        (
            "[relay]\nshutdown_timeout = inf",
            "relay.shutdown_timeout: wanted at most 86400, got Infinity",
        ),
        (
            "[relay]\nshutdown_timeout = 1e300",
            "relay.shutdown_timeout: wanted at most 86400, got 1e+300",
        ),
        (
            "[relay]\nshutdown_timeout = 4294967294",
            "relay.shutdown_timeout: wanted at most 86400, got 4294967294",
        ),
        (
            '[log]\nlevel = "loud"',
            'log.level: wanted debug, info, warning or error, got "loud"',
        ),
        (
            'spool = "here"',
            (
                "spool: wanted a table, got text; write a line [spool],"
                " and its settings below it"
            ),
        ),
        ("kafka = 3", "kafka: wanted a table, got 3"),
        (
            '[spool]\ndirektory = "/x"',
            ("spool.direktory: there is no such setting; did you mean directory?"),
        ),
        (
            '[kafka]\n"linger.ms" = 0.5',
            "kafka.linger.ms: wanted text, got 0.5; write it in quotes",
        ),
    ],
)
def test_a_slip_is_reported_in_words_with_the_remedy(
    file: Path, text: str, message: str
) -> None:
    file.write_text(text)
    assert refused(file) == f"{file}: {message}"


@pytest.mark.parametrize("value", ["nan", "-inf", "-1", "0"])
def test_a_time_that_is_none_is_refused(file: Path, value: str) -> None:
    file.write_text(f"[relay]\nshutdown_timeout = {value}")
    assert "relay.shutdown_timeout: wanted " in refused(file)


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("kafka", "bootstrap.servers"),
        ("kafka", "sasl.oauthbearer.client.id"),
        ("kafka_files", "ssl.ca.location"),
        ("registry.client", "ssl.ca.location"),
    ],
)
def test_a_name_with_dots_and_without_quotes_gets_the_remedy(
    file: Path, table: str, name: str
) -> None:
    file.write_text(f'[{table}]\n{name} = "x"')
    first = name.split(".", maxsplit=1)[0]
    text = refused(file)
    assert text.startswith(f"{file}: {table}.{first}: wanted ")
    assert text.endswith(f'write a name with dots in quotes: "{name}" = …')


def test_what_librdkafka_takes_as_text_may_be_a_number_or_a_flag(file: Path) -> None:
    file.write_text(
        '[kafka]\n"linger.ms" = 5\n"enable.idempotence" = true\n'
        '"socket.keepalive.enable" = false\n'
        '[registry.client]\n"max.retries" = 3'
    )
    settings = load.load(file, {}).settings
    assert settings.kafka == {
        "linger.ms": "5",
        "enable.idempotence": "true",
        "socket.keepalive.enable": "false",
    }
    assert settings.registry.client == {"max.retries": "3"}
    file.write_text('[kafka]\n"enable.idempotence" = false')
    assert "could be lost" in refused(file)


@pytest.mark.parametrize(
    ("text", "topics"),
    [("a,b", ("a", "b")), ("a", ("a",)), (" a , b ,", ("a", "b")), ("", ())],
)
def test_a_list_is_set_by_a_variable(text: str, topics: tuple[str, ...]) -> None:
    environ = {"FNM_BUS_CONSUMERS__JSONLINES__TOPICS": text}
    loaded = load.load_as(FullSettings, None, environ)
    assert loaded.settings.consumers.jsonlines.topics == topics


def test_a_slip_in_a_list_names_its_source(file: Path) -> None:
    file.write_text("[consumers.jsonlines]\ntopics = ['a', 3]")
    with pytest.raises(ConfigError) as caught:
        load.load_as(FullSettings, file, {})
    assert str(caught.value) == (
        f"{file}: consumers.jsonlines.topics.1: wanted text, got 3; write it in quotes"
    )
    file.write_text("[consumers.jsonlines]\ntopics = 'a,b'")
    with pytest.raises(ConfigError, match=r"wanted a list, got .a,b.; write"):
        load.load_as(FullSettings, file, {})


def test_a_ban_time_of_0_gets_an_answer(file: Path) -> None:
    file.write_text("[consumers.mitigator]\nfastnetmon_ban_time = 0")
    with pytest.raises(ConfigError) as caught:
        load.load_as(FullSettings, file, {})
    text = str(caught.value)
    assert text.startswith(
        f"{file}: consumers.mitigator.fastnetmon_ban_time: wanted more than 0"
    )
    assert "never unbans" in text
    assert "such as 3600" in text


@pytest.mark.parametrize("value", ["inf", "1e300", "4294967294", "86401"])
def test_a_ban_time_is_at_most_a_day(file: Path, value: str) -> None:
    file.write_text(f"[consumers.mitigator]\nfastnetmon_ban_time = {value}")
    with pytest.raises(
        ConfigError, match="fastnetmon_ban_time: wanted at most 86400, got"
    ):
        load.load_as(FullSettings, file, {})


@pytest.mark.parametrize("content", [b"sensor = ", b"\xff\xfe", b"[spool\n"])
def test_what_is_no_toml_is_refused_and_the_file_named(
    file: Path, content: bytes
) -> None:
    file.write_bytes(content)
    assert refused(file).startswith(f"{file}: ")


def test_a_named_file_that_is_missing_is_refused(file: Path) -> None:
    assert refused(file) == f"{file}: No such file or directory"


@pytest.mark.parametrize(
    "name",
    ["FNM_BUS_SPOOL", "FNM_BUS_", "FNM_BUS_KAFKA", "FNM_BUS_SPOOL__DIRECTORY__X"],
)
def test_a_variable_that_leads_nowhere_is_refused(name: str) -> None:
    assert refused(None, **{name: "x"}).startswith(f"{name}: there is no such setting")


def test_a_variable_below_what_the_file_made_no_table_is_no_crash(file: Path) -> None:
    file.write_text("spool = 3")
    assert "spool" in refused(file, FNM_BUS_SPOOL__DIRECTORY="/x")


SECRETS = """
[kafka]
"sasl.username" = "me"
"sasl.password" = "hunter2"
"ssl.key.pem" = "hunter2"
"sasl.oauthbearer.client.secret" = "hunter2"
[registry]
url = "http://me:hunter2@registry:8081"
[registry.client]
"basic.auth.user.info" = "me:hunter2"
[kafka_files]
"ssl.key.password" = "/run/secrets/key"
"""


def test_no_secret_is_shown(file: Path) -> None:
    file.write_text(SECRETS)
    rows = {row.key: row.value for row in load.setting_rows(load.load(file, {}))}
    assert "hunter2" not in str(rows)
    assert rows["registry.url"] == f"http://{load.MASK}@registry:8081"
    assert rows["kafka.sasl.username"] == "me"
    assert rows["kafka_files.ssl.key.password"] == "/run/secrets/key"


@pytest.mark.parametrize(
    "text",
    [
        '[kafka]\n"sasl.password" = ["hunter2"]',
        '[registry.client]\n"basic.auth.user.info" = ["hunter2"]',
        '[kafka]\nsasl.password = "hunter2"',
        '[kafka.sasl]\npassword = "hunter2"',
        'kafka = "hunter2"',
        'kafka = ["hunter2"]',
        '[[kafka]]\n"sasl.password" = "hunter2"',
        '[kafka_files]\n"sasl.password" = ["hunter2"]',
        'registry = "http://me:hunter2@registry"',
        '[registry]\nclient = "hunter2"',
        '[registry]\nurl = ["http://me:hunter2@registry"]',
    ],
)
def test_no_problem_shows_a_secret(file: Path, text: str) -> None:
    file.write_text(text)
    assert "hunter2" not in refused(file)


def test_every_setting_is_shown_with_its_source(file: Path) -> None:
    file.write_text('[spool]\ndirectory = "/srv"')
    rows = {row.key: row for row in load.setting_rows(load.load(file, {}))}
    assert (rows["spool.directory"].value, rows["spool.directory"].source) == (
        "/srv",
        str(file),
    )
    assert rows["spool.fallback"].source == load.DEFAULT


@pytest.mark.parametrize("text", ["[spool", "spool = 3", "[spool]\ndirectory = 7"])
def test_the_spool_is_known_whatever_is_wrong_with_the_file(
    file: Path, text: str
) -> None:
    file.write_text(text)
    default = Settings().spool
    assert spool_paths.configured_spools(file, {}) == (
        default.directory,
        default.fallback,
    )


def test_the_spool_is_that_of_a_file_that_is_wrong_elsewhere(file: Path) -> None:
    file.write_text('colour = 1\n[spool]\ndirectory = "/a"\nfallback = "/b"')
    assert spool_paths.configured_spools(file, {}) == (Path("/a"), Path("/b"))
    environ = {"FNM_BUS_SPOOL__DIRECTORY": "/c"}
    assert spool_paths.configured_spools(file, environ) == (Path("/c"), Path("/b"))


def test_a_broker_that_is_back_is_found_soon_unless_somebody_wants_it_otherwise() -> (
    None
):
    name = "reconnect.backoff.max.ms"
    assert build.kafka_settings(load.load(None, {}).settings)[name] == "1000"
    variable = {"FNM_BUS_KAFKA__RECONNECT_BACKOFF_MAX_MS": "5000"}
    assert build.kafka_settings(load.load(None, variable).settings)[name] == "5000"
