"""Set up fnm-bus beside FastNetMon: configuration, spools, hook, topics, schemas."""

import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from fnm_bus import atomic_file, build
from fnm_bus.config.settings import Settings
from fnm_bus.config.toml_text import toml_text
from fnm_bus.errors import ConfigError
from fnm_bus.kafka.topic_admin import TopicAdmin
from fnm_bus.setup import accounts, hook_settings, install_hook
from fnm_bus.spool.spool import Spool

RELAY_USER: Final = "fnm-bus"
"""The relay's user in packaging/sysusers.d."""


class Answers(NamedTuple):
    """The configuration that `init` writes.

    Attributes:
        sensor: stable name of this FastNetMon.
        brokers: Kafka's bootstrap servers, separated by commas.
        registry: address of the schema registry, or "" for none.
        replication: replicas of each topic.
    """

    sensor: str
    brokers: str
    registry: str
    replication: int


class Host(NamedTuple):
    """The parts of `init` that are on this machine.

    Attributes:
        config: the configuration file.
        hook: the hook's path.
        owner: name of the relay's user; None for the spool's owner or the default.
        fastnetmon_user: name of the user that starts the hook.
    """

    config: Path
    hook: Path
    owner: str | None
    fastnetmon_user: str


class Step(NamedTuple):
    """One step of the setup.

    Attributes:
        text: the action, in the imperative.
        run: performs it; raises FnmBusError.
    """

    text: str
    run: Callable[[], None]


def write_config(file: Path, answers: Answers) -> None:
    """Write the configuration file, readable by all users: it holds no secret.

    Raises:
        ConfigError: it cannot be written.
    """
    tables: dict[str, dict[str, str | int]] = {
        "kafka": {"bootstrap.servers": answers.brokers},
        "topics": {"replication": answers.replication},
    }
    if answers.registry:
        tables["registry"] = {"url": answers.registry}
    text = toml_text({"sensor": answers.sensor}, tables)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_file.replace(file, text.encode(), mode=0o644)
    except OSError as exc:
        raise ConfigError(f"{file}: cannot be written: {exc.strerror}") from exc


def answers_of(settings: Settings) -> Answers:
    """Return the answers that a configuration contains."""
    return Answers(
        settings.sensor,
        settings.kafka.get("bootstrap.servers", ""),
        settings.registry.url or "",
        settings.topics.replication,
    )


def steps(settings: Settings, host: Host, answers: Answers | None) -> Iterator[Step]:
    """Yield all steps in their order; each can be repeated.

    Args:
        settings: the configuration, which may not be written yet.
        host: the parts on this machine.
        answers: the configuration to write; None to keep the file.

    Raises:
        ConfigError: a user is unknown.
        SpoolError: a spool cannot be examined.
    """
    if answers is not None:
        values = (f"{name} {value!r}" for name, value in answers._asdict().items())
        yield Step(
            f"write the configuration {host.config}: {', '.join(values)}",
            lambda: write_config(host.config, answers),
        )
    for root in (settings.spool.directory, settings.spool.fallback):
        yield _spool_step(root, host)
    yield Step(f"install the hook {host.hook}", lambda: _install_hook(settings, host))
    yield Step(
        f"create the missing topics at {settings.kafka.get('bootstrap.servers')}",
        lambda: _create_topics(settings),
    )
    if settings.registry.url is not None:
        yield Step(
            f"register the schemas at {build.build_registry(settings).display_url},"
            f" and write their ids to {settings.registry.schema_ids_file}",
            lambda: _register_schemas(settings),
        )


def next_commands(settings: Settings, host: Host) -> Iterator[str]:
    """Yield the commands that remain: group membership and FastNetMon's settings.

    Raises:
        ConfigError: a user is unknown, or would need root's group.
        SpoolError: the spool cannot be examined.
    """
    uid, gid = _spool_ids(settings.spool.directory, host)
    if not accounts.can_add_entries(host.fastnetmon_user, uid, gid):
        if gid == 0:
            raise ConfigError(
                f"--fastnetmon-user: {host.fastnetmon_user} would need root's group to"
                " add entries; name a user for the relay with --owner"
            )
        group = accounts.group_name(gid)
        yield "# Add FastNetMon's user to the spool's group, then restart FastNetMon:"
        yield f"sudo usermod --append --groups {group} {host.fastnetmon_user}"
        yield ""
    yield from install_hook.instructions(host.hook).splitlines()


def _spool_ids(root: Path, host: Host) -> tuple[int, int]:
    owner = host.owner
    if owner is None and os.geteuid() == 0 and not root.is_dir():
        with suppress(KeyError):
            owner = pwd.getpwnam(RELAY_USER).pw_name
    return accounts.spool_ids(root, owner, None)


def _spool_step(root: Path, host: Host) -> Step:
    uid, gid = _spool_ids(root, host)
    text = (
        f"make the spool {root}, owner {accounts.user_name(uid)},"
        f" group {accounts.group_name(gid)}"
    )
    return Step(text, lambda: Spool(root).make(uid, gid))


def _install_hook(settings: Settings, host: Host) -> None:
    spools = (settings.spool.directory, settings.spool.fallback)
    if install_hook.is_native(host.hook):
        install_hook.install_native(host.hook, *spools)
        return
    install_hook.install(
        host.hook,
        *spools,
        install_hook.best_python(),
        hook_settings.drain_command(settings.notify.drain_timeout, host.config),
    )


def _create_topics(settings: Settings) -> None:
    TopicAdmin(build.kafka_settings(settings)).create(build.topic_plan(settings))


def _register_schemas(settings: Settings) -> None:
    ids = build.build_registry(settings).register(
        build.topic_names(settings).of_framed()
    )
    ids.write(settings.registry.schema_ids_file)
