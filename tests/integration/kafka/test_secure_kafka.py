"""Kafka with SASL_SSL, SCRAM-SHA-512 and ACLs: each program as a user of its own.

Every user has exactly the rights that `fnm-bus topics acls` gives its program.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.consumer_processes import health_at, policy
from support.process import Server, wait_until
from support.relay_processes import RelayProcesses, ban
from support.secure_kafka import PASSWORD, SecureKafka

from consumers.check_all import resources_of
from consumers.settings import FullSettings
from fnm_bus import build
from fnm_bus.config import load
from fnm_bus.errors import BrokerUnavailable, ConnectionRejected
from fnm_bus.kafka import connection_check
from fnm_bus.kafka.access import Right, rights_of
from fnm_bus.kafka.connection_check import check_connection
from fnm_bus.kafka.topic_admin import TopicAdmin
from fnm_bus.kafka.topics import planned_topics
from fnm_bus.setup import check_all
from fnm_bus.setup.check_result import CheckResult
from fnm_bus.spool.spool import Spool

PROGRAMS = (
    *("relay", "mitigator", "exabgp", "nftables", "notifier", "jsonlines"),
    *("operator", "admin"),
)


@dataclass
class Site:
    """Topics, rights, and one configuration file for all programs.

    Attributes:
        kafka: the broker.
        relays: its configuration and spool; its own clients may do everything.
    """

    kafka: SecureKafka
    relays: RelayProcesses

    def environment(self, user: str, password: str = "") -> dict[str, str]:
        """Return the environment in which a program connects as *user*."""
        return {
            "FNM_BUS_CONFIG": str(self.relays.config),
            "FNM_BUS_KAFKA__BOOTSTRAP_SERVERS": self.kafka.secure,
            "FNM_BUS_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
            "FNM_BUS_KAFKA__SSL_CA_LOCATION": str(self.kafka.ca),
            "FNM_BUS_KAFKA__SASL_MECHANISM": "SCRAM-SHA-512",
            "FNM_BUS_KAFKA__SASL_USERNAME": user,
            "FNM_BUS_KAFKA__SASL_PASSWORD": password or f"{PASSWORD}{user}",
        }

    def settings(self, user: str) -> FullSettings:
        return load.load_as(FullSettings, None, self.environment(user)).settings

    def run(
        self, module: str, user: str, *arguments: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env={**os.environ, **self.environment(user)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, module: str, user: str, *arguments: str, **more: str) -> Server:
        """Start a program that runs until the test ends it."""
        log = self.relays.root / f"{user}-{len(self.servers)}.log"
        command = [sys.executable, "-m", module, *arguments]
        environment = {**self.environment(user), **more}
        server = Server(command, log, environment)
        server.start()
        self.servers.append(server)
        return server

    def __post_init__(self) -> None:
        self.servers: list[Server] = []

    def stop(self) -> None:
        for server in self.servers:
            server.kill()

    def rights(self, program: str) -> tuple[Right, ...]:
        return rights_of(program, resources_of(self.settings(program)))


@pytest.fixture(scope="module")
def site(
    secure_kafka: SecureKafka, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Every user has the rights of its program, given by the command itself."""
    relays = RelayProcesses(tmp_path_factory.mktemp("site"), secure_kafka.bootstrap)
    (relays.root / "policy.toml").write_text(policy("firewall"))
    relays.configure(
        "[consumers.mitigator]",
        f'policy = "{relays.root}/policy.toml"',
        f'transactional_id = "{relays.prefix}mitigator"',
        "[consumers.jsonlines]",
        f'group = "{relays.prefix}jsonlines"',
        f'path = "{relays.root}/events.jsonl"',
        "[consumers.notifier]",
        f'group = "{relays.prefix}notifier"',
        "group_wait = 0.1",
        "[consumers.nftables]",
        f'snapshot = "{relays.root}/nftables.json"',
    )
    pairs = (f"{program}=User:{program}" for program in PROGRAMS)
    options = [word for pair in pairs for word in ("--principal", pair)]
    relays.succeed("topics", "acls", "--apply", *options)
    made = Site(secure_kafka, relays)
    created = made.run("fnm_bus", "admin", "topics", "create")
    assert created.returncode == 0, created.stderr
    yield made
    made.stop()
    relays.stop()


@pytest.fixture
def started(site: Site) -> Iterator[Callable[..., Server]]:
    """Start programs that end with the test."""
    before = len(site.servers)
    yield site.start
    for server in site.servers[before:]:
        server.kill()


def health(server: Server) -> tuple[int, Mapping[str, Any]]:
    """Return the status and the facts of a program's /healthz; 0 before it serves."""
    addresses = re.findall(r"serving address=(\S+:\d+)", server.output())
    return health_at(f"http://{addresses[0]}") if addresses else (0, {})


# -- each program does its work with exactly its rights ---------------------------


@pytest.fixture(scope="module")
def running(site: Site) -> Iterator[dict[str, Server]]:
    """All services, each as its own user."""
    live = {"FNM_BUS_DRY_RUN": "false"}
    yield {
        "relay": site.start("fnm_bus", "relay", "relay"),
        "mitigator": site.start("consumers", "mitigator", "mitigator", **live),
        **{
            name: site.start("consumers", name, name)
            for name in ("nftables", "notifier", "jsonlines")
        },
    }
    site.stop()


def test_an_attack_passes_through_every_program(
    site: Site, running: dict[str, Server]
) -> None:
    site.relays.call(ban("203.0.113.7"))
    lines = site.relays.root / "events.jsonl"
    expected = {
        "mitigator": "action=wanted mitigation=firewall|203.0.113.7/32",
        "nftables": "action=in-force enforcer=",
        "notifier": "notice_sent ",
    }

    def done() -> bool:
        text = lines.read_text() if lines.exists() else ""
        said = {name: server.output() for name, server in running.items()}
        words = ('"action": "ban"', '"action": "in-force"')
        return all(word in said[name] for name, word in expected.items()) and all(
            word in text for word in words
        )

    try:
        wait_until(done, 40, "an attack on its way")
    except TimeoutError:
        tails = {name: server.tail()[-1500:] for name, server in running.items()}
        pytest.fail(str(tails))
    assert {name: health(server)[0] for name, server in running.items()} == (
        dict.fromkeys(running, 200)
    )


def test_an_operator_sends_commands_and_lists_mitigations(
    site: Site, running: dict[str, Server]
) -> None:
    mitigator = running["mitigator"]
    mitigator.wait(lambda: "active mitigations=" in mitigator.output(), 40)
    paused = site.run(
        "fnm_bus", "operator", "mitigations", "pause", "--comment", "a test"
    )
    assert paused.returncode == 0, paused.stderr
    listed = site.run("fnm_bus", "operator", "mitigations", "list")
    assert "PAUSED" in listed.stderr


def test_a_viewer_reads_events(site: Site) -> None:
    seen = site.run("fnm_bus", "operator", "tail", "--from-beginning", "--until-end")
    assert seen.returncode == 0, seen.stderr


# -- check ------------------------------------------------------------------------


def checked(site: Site, program: str) -> list[CheckResult]:
    """Return what `check` finds about Kafka, as the program's user."""
    settings = site.settings(program)
    table = settings.topics
    plan = planned_topics(
        build.topic_names(settings), table.partitions, table.replication
    )
    kafka = build.kafka_settings(settings)
    return list(check_all.check_access(kafka, plan, site.rights(program)))


@pytest.mark.parametrize("program", PROGRAMS)
def test_check_passes_with_exactly_the_documented_rights(
    site: Site, program: str
) -> None:
    assert [result.text for result in checked(site, program) if not result.ok] == []


@pytest.mark.parametrize("program", ["relay", "mitigator", "notifier", "jsonlines"])
def test_check_names_each_right_that_is_missing(site: Site, program: str) -> None:
    admin = TopicAdmin({"bootstrap.servers": site.kafka.bootstrap})
    for right in site.rights(program):
        if right.kind == "TransactionalId":
            continue
        before = site.kafka.acls()
        site.kafka.forbid(program, right)
        try:
            failed = [result.text for result in checked(site, program) if not result.ok]
        finally:
            admin.grant(f"User:{program}", [right])
            site.kafka.wait_for_acls(before)
        assert failed == [f"right: User:{program} lacks {right}"]


def test_check_names_a_topic_that_is_missing(site: Site) -> None:
    settings = site.settings("relay")
    names = build.topic_names(settings)
    missing = Right("Write", "Topic", f"{names.host}.missing")
    TopicAdmin({"bootstrap.servers": site.kafka.bootstrap}).grant(
        "User:relay", [missing]
    )
    plan = planned_topics(type(names)(host=missing.name), 4, 1)[:1]
    wait_until(
        lambda: (
            "topic " + missing.name + ": missing"
            in [
                result.text
                for result in check_all.check_access(
                    build.kafka_settings(settings), plan, [missing]
                )
            ]
        ),
        10,
        "a missing topic",
    )
    site.kafka.forbid("relay", missing)


CAUSES = {
    "unresolvable": (
        {"bootstrap_servers": "kafka.invalid:9092"},
        "Failed to resolve 'kafka.invalid:9092'",
    ),
    "refused": ({"bootstrap_servers": "localhost:1"}, "Connection refused"),
    "TLS to a plain port": ({"bootstrap_servers": "plain"}, "uses TLS, and this port"),
    "plain to a TLS port": ({"security_protocol": "SASL_PLAINTEXT"}, "port uses TLS"),
    "no SASL": ({"security_protocol": "SSL"}, "if the listener is SASL_SSL"),
    "unknown authority": ({"ssl_ca_location": "other"}, "unknown certificate author"),
    "wrong host name": ({"bootstrap_servers": "address"}, "wrong host name"),
    "wrong mechanism": ({"sasl_mechanism": "PLAIN"}, "does not offer PLAIN"),
    "unknown user": ({"sasl_username": "nobody-knows"}, "unknown user or wrong"),
    "wrong password": ({"sasl_password": "not-this-one"}, "unknown user or wrong"),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_check_reports_the_reason_of_a_failed_connection(
    secure_kafka: SecureKafka, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_check, "_WITHIN", 1.5)
    changes, expected = CAUSES[cause]
    real = {
        "plain": secure_kafka.bootstrap,
        "address": f"127.0.0.1:{secure_kafka.secure_port}",
        "other": str(secure_kafka.other_ca),
    }
    changed = {name: real.get(value, value) for name, value in changes.items()}
    with pytest.raises(BrokerUnavailable, match=re.escape(expected)) as raised:
        check_connection(secure_kafka.settings("relay", **changed))
    rejected = cause not in {"unresolvable", "refused"}
    assert isinstance(raised.value, ConnectionRejected) == rejected
    assert PASSWORD not in str(raised.value)
    assert "not-this-one" not in str(raised.value)


# -- wrong credentials --------------------------------------------------------------


@pytest.mark.parametrize(
    "program", ["relay", "mitigator", "nftables", "notifier", "jsonlines"]
)
def test_wrong_credentials_are_reported_at_once_and_unhealthy(
    started: Callable[..., Server], program: str, tmp_path: Path
) -> None:
    module = "fnm_bus" if program == "relay" else "consumers"
    Spool(tmp_path / "spool").make(os.getuid(), os.getgid())  # the other one is locked
    wrong = {
        "FNM_BUS_KAFKA__SASL_PASSWORD": "wrong-password",
        "FNM_BUS_SPOOL__DIRECTORY": str(tmp_path / "spool"),
    }
    server = started(module, program, program, **wrong)

    def known() -> bool:
        status, facts = health(server)
        return status == 503 and "unknown user or wrong" in str(facts["problem"])

    try:
        wait_until(known, 15, "an unhealthy program")
    except TimeoutError:
        pytest.fail(f"{health(server)}\n{server.tail()}")
    assert "unknown user or wrong password" in server.output()
    assert "wrong-password" not in server.output()


def test_a_mitigator_without_its_transactional_id_names_the_right(
    site: Site, started: Callable[..., Server]
) -> None:
    [right] = [
        right for right in site.rights("mitigator") if right.kind == "TransactionalId"
    ]
    site.kafka.forbid("mitigator", right)
    try:
        # With --once it is not elected: another mitigator is active.
        mitigator = started("consumers", "mitigator", "mitigator", "--once")
        text = f"{right.kind} {right.name}: User:mitigator has no Write right"
        mitigator.wait(lambda: text in mitigator.output(), 30)
        wait_until(lambda: health(mitigator)[0] == 503, 10, "an unhealthy mitigator")
    finally:
        admin = TopicAdmin({"bootstrap.servers": site.kafka.bootstrap})
        admin.grant("User:mitigator", [right])


# -- the commands -------------------------------------------------------------------


def test_acls_are_printed_as_commands(site: Site) -> None:
    printed = site.relays.run("topics", "acls", "--principal", "notifier=User:CN=w,O=x")
    topic = site.relays.topic("mitigation")
    start = f"kafka-acls --bootstrap-server {site.kafka.bootstrap}"
    start += " --command-config admin.properties --add --allow-principal User:CN=w,O=x"
    assert printed.stdout.decode().splitlines() == [
        f"{start} --operation Read --topic {topic}",
        f"{start} --operation Write --topic {site.relays.topic('deadletter')}",
        f"{start} --operation Read --group {site.relays.prefix}notifier",
        f"{start} --operation Describe --group fnm-bus-reader",
    ]


def test_a_user_without_the_right_to_give_rights_is_refused(site: Site) -> None:
    refused = site.run(
        "fnm_bus",
        "relay",
        *("topics", "acls", "--apply", "--principal", "relay=User:relay"),
    )
    assert refused.returncode == 69
    assert "Cluster kafka-cluster: User:relay has no Alter right" in refused.stderr


def test_secrets_of_the_environment_are_in_no_output(site: Site) -> None:
    shown = site.run("fnm_bus", "relay", "config", "show")
    assert PASSWORD not in shown.stdout + shown.stderr
