"""`fnm-bus init`: the configuration, spools and hook that it makes."""

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fnm_bus.cli import app
from fnm_bus.config import load
from fnm_bus.errors import BrokerUnavailable, ConfigError
from fnm_bus.kafka.topic_admin import TopicAdmin
from fnm_bus.kafka.topics import TopicSpec
from fnm_bus.setup import check_all, init
from fnm_bus.setup.check_result import CheckResult
from fnm_bus.spool.spool import Spool

BAN = b'{"action":"ban","ip":"192.0.2.1","alert_scope":"host"}'
Init = Callable[..., Result]


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory that every user can enter."""
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture
def created(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Topics that were created: the embedded broker cannot create topics."""
    names: list[str] = []

    def create(_admin: TopicAdmin, topics: Sequence[TopicSpec]) -> list[str]:
        names.extend(topic.name for topic in topics)
        return names

    monkeypatch.setattr(TopicAdmin, "create", create)
    monkeypatch.setattr(
        check_all, "examine", lambda _settings: [CheckResult(ok=True, text="checked")]
    )
    return names


@pytest.fixture
def run(root: Path, created: list[str], monkeypatch: pytest.MonkeyPatch) -> Init:
    """Run `fnm-bus init` with spools and a configuration file in *root*."""
    assert created == []
    monkeypatch.setenv("FNM_BUS_CONFIG", str(root / "etc/fnm-bus.toml"))
    monkeypatch.setenv("FNM_BUS_SPOOL__DIRECTORY", str(root / "spool"))
    monkeypatch.setenv("FNM_BUS_SPOOL__FALLBACK", str(root / "fallback"))

    def start(*arguments: str, answers: str = "") -> Result:
        command = ["init", "--hook", str(root / "hook"), *arguments]
        return CliRunner().invoke(app, command, input=answers)

    return start


def user() -> str:
    return init.accounts.user_name(os.geteuid())


@pytest.mark.process
def test_options_and_yes_set_everything_up(
    run: Init, root: Path, created: list[str]
) -> None:
    done = run(
        *("--yes", "--sensor", 'f"ra\\1', "--brokers", "k:9092", "--replication", "1"),
        *("--fastnetmon-user", user()),
    )
    assert done.exit_code == 0, done.output
    settings = load.load(root / "etc/fnm-bus.toml").settings
    assert init.answers_of(settings) == ('f"ra\\1', "k:9092", "", 1)
    assert "fastnetmon.host.v1" in created
    assert f"notify_script_path {root}/hook" in done.stdout
    assert "checked" in done.stdout
    called = subprocess.run([root / "hook"], input=BAN, env={}, check=False)
    assert called.returncode == 0
    assert len(Spool(root / "spool").scan()) == 1


def test_answers_take_the_place_of_options(run: Init, root: Path) -> None:
    answers = f"fra1\nk1:9092,k2:9092\nhttp://registry\n2\n{user()}\nn\n"
    done = run(answers=answers)
    assert done.exit_code == 1
    assert "brokers 'k1:9092,k2:9092', registry 'http://registry'" in done.stderr
    assert list(root.iterdir()) == []


def test_a_refusal_changes_nothing(run: Init, root: Path, created: list[str]) -> None:
    answers = "n\n"
    values = ("--sensor", "a", "--brokers", "b:1", "--registry", "", "--replication=1")
    done = run(*values, "--fastnetmon-user", user(), answers=answers)
    assert (done.exit_code, created, list(root.iterdir())) == (1, [], [])


def test_an_existing_configuration_is_kept(run: Init, root: Path) -> None:
    arguments = ("--yes", "--fastnetmon-user", user())
    assert run(*arguments, "--sensor", "fra1").exit_code == 0
    file = root / "etc/fnm-bus.toml"
    file.write_text(file.read_text() + "# a person's comment\n")
    before = file.read_bytes()
    assert run(*arguments).exit_code == 0
    assert file.read_bytes() == before
    done = run(*arguments, "--sensor", "fra2")
    assert isinstance(done.exception, ConfigError)
    assert "--sensor" in str(done.exception)


def test_a_step_that_fails_is_reported_and_the_others_continue(
    run: Init, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(_admin: TopicAdmin, _topics: Sequence[TopicSpec]) -> list[str]:
        raise BrokerUnavailable("no broker reachable")

    monkeypatch.setattr(TopicAdmin, "create", create)
    done = run("--yes", "--fastnetmon-user", user())
    assert done.exit_code == 1
    assert "no broker reachable" in done.stderr
    assert (root / "hook").exists()
    assert "checked" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="root's group is refused to root only")
def test_no_step_runs_without_a_configuration(run: Init, root: Path) -> None:
    (root / "etc").write_text("a file, where the directory of the configuration is")
    assert run("--sensor", "fra1", "--brokers", "127.0.0.1:1", "--yes").exit_code == 1
    assert not (root / "spool").exists()


def test_roots_group_is_never_recommended(run: Init, root: Path) -> None:
    (root / "spool").mkdir()
    done = run("--yes", "--fastnetmon-user", "nobody")
    assert isinstance(done.exception, ConfigError)
    assert "--owner" in str(done.exception)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a spool away")
def test_the_group_command_follows_for_another_user(run: Init) -> None:
    done = run("--yes", "--owner", "daemon", "--fastnetmon-user", "nobody")
    assert done.exit_code == 0, done.output
    assert "usermod --append --groups daemon nobody" in done.stdout


def test_an_unknown_user_is_refused_before_the_first_step(
    run: Init, root: Path
) -> None:
    done = run("--yes", "--fastnetmon-user", "no-such-user")
    assert isinstance(done.exception, ConfigError)
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("umask", [0, 0o077])
def test_every_user_can_read_the_configuration_and_only_root_can_write_it(
    root: Path, umask: int
) -> None:
    """The services read it, and the umask of a hardened machine's root is 077."""
    file = root / "etc" / "fnm-bus.toml"
    answers = init.Answers("sensor", "127.0.0.1:9092", "", 1)
    before = os.umask(umask)
    try:
        init.write_config(file, answers)
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o7777 for path in (file.parent, file)]
    assert modes == [0o755, 0o644]
