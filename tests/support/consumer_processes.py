"""Consumers as processes of their own, on the topics of a cluster."""

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from confluent_kafka import ConsumerGroupState, KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient

from fnm_bus.avro.codec import Codec
from fnm_bus.errors import InvalidRecord
from fnm_bus.event import (
    AnyRecord,
    AttackDetails,
    Audit,
    Command,
    DeadLetter,
    FlowSpecRule,
    HostEvent,
    Mitigation,
    Receipt,
    StatusEvent,
)
from fnm_bus.kafka.addressing import key_of
from fnm_bus.kafka.reader import ConsumedRecord, TopicReader
from support.process import Server, wait_until
from support.relay_processes import RelayProcesses

_NUMBERS = count(1)

OWN_NETWORKS = '["203.0.113.0/24", "198.51.100.0/24", "10.0.0.0/8", "2001:db8:1::/48"]'
POLICY = """
own_networks = ["203.0.113.0/24", "198.51.100.0/24", "10.0.0.0/8", "2001:db8:1::/48"]
[guardrails]
max_affected_share = 1.0
max_active = 100000
max_new_per_minute = 400000
[[rule]]
name = "all"
then = {{ action = "{action}", lease = "{lease}" }}
"""


# The program as `python -m consumers` starts it, after a fault was planted.
_FAULTY = """
{fault}
from consumers.__main__ import main
main()
"""


class ConsumerProcesses:
    """The consumers of one cluster.

    Args:
        relays: its topics exist.
        policy: text of the policy.
        tables: further lines of the configuration.
    """

    def __init__(self, relays: RelayProcesses, policy: str, *tables: str) -> None:
        self.relays = relays
        self.policy = relays.root / "policy.toml"
        self.policy.write_text(policy)
        relays.configure(
            "[consumers.mitigator]",
            f'policy = "{self.policy}"',
            f'transactional_id = "{relays.prefix}mitigator"',
            "fastnetmon_ban_time = 5",
            "[consumers.enforcer]",
            f"own_networks = {OWN_NETWORKS}",
            *tables,
        )
        self._codec = Codec()
        self._servers: list[Server] = []
        self._producer: Producer | None = None
        self._failed: list[str] = []

    def start(
        self,
        name: str,
        *arguments: str,
        ready: str = "",
        wait: bool = True,
        fault: str = "",
        **environment: str,
    ) -> Server:
        """Start a consumer and wait until it has logged *ready*.

        Args:
            name: of the command.
            arguments: of the command.
            ready: what it prints when it works.
            wait: whether to wait for that.
            fault: Python code that runs before the program, to plant a fault.
            environment: added to the test's own.
        """
        log = self.relays.root / f"{name}{len(self._servers)}.log"
        program = ["-c", _FAULTY.format(fault=fault)] if fault else ["-m", "consumers"]
        command = [sys.executable, *program, name, *arguments]
        server = Server(command, log, self._environment(environment))
        self._servers.append(server)
        server.start()
        if wait:
            said = ready or {"mitigator": "active mitigations="}.get(name, "enforcing")
            server.wait(lambda: said in log.read_text(errors="replace"), 60)
        return server

    def health(self, server: Server) -> tuple[int, Mapping[str, Any]]:
        """Return the status and the facts of a consumer's /healthz."""
        return health_at(_address(server))

    def metric(self, server: Server, name: str) -> float:
        """Return the sum of a metric's samples at a consumer's /metrics."""
        with urlopen(f"{_address(server)}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        samples = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, samples))

    def decided_after(self, event_id: str, seconds: float = 5.0) -> float:
        """Wait until an event was decided; return the seconds that it took.

        They are counted by the broker, from the event's record to the audit record.
        """
        times: list[float] = []

        def decided() -> bool:
            times.extend(
                at.timestamp()
                for _key, record, at in self.records("audit")
                if isinstance(record, Audit) and record.event_id == event_id
            )
            return bool(times)

        self.until(decided, seconds, f"a decision about {event_id}")
        sent = [
            at.timestamp()
            for kind in ("host", "status")
            for _key, record, at in self.records(kind)
            if isinstance(record, HostEvent | StatusEvent)
            and record.receipt.event_id == event_id
        ]
        return min(times) - sent[0]

    def run(self, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """Run a command; return its status, its output, and its messages."""
        done = subprocess.run(
            [sys.executable, "-m", "fnm_bus", *arguments],
            input=stdin,
            env={**os.environ, **self._environment({})},
            capture_output=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def succeed(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run a command that exits with 0; return its output and its messages."""
        status, output, messages = self.run(*arguments, stdin=stdin)
        assert status == 0, messages
        return output + messages

    def said(self) -> str:
        """Return the logs of all consumers."""
        logs = sorted(self.relays.root.glob("*.log"))
        return "\n".join(f"{log.name}\n{log.read_text()[-3000:]}" for log in logs)

    def tell(
        self,
        action: str,
        *targets: str,
        age: float = 0.0,
        sensor: str = "fnm1",
        rules: Sequence[FlowSpecRule] = (),
        **details: Any,
    ) -> list[str]:
        """Publish an event for each target, as a relay would; return their ids."""
        events = []
        for target in targets:
            number = next(_NUMBERS)
            receipt = Receipt(
                event_id=f"event-{number}",
                received_at=datetime.fromtimestamp(time.time() - age, UTC),
                sequence=number,
                sensor=sensor,
            )
            values = {"attack_uuid": f"attack-{target}", **details}
            facts = AttackDetails(**values)
            kind = StatusEvent if action == "attack_status" else HostEvent
            more: dict[str, Any] = {"flow_spec_rules": tuple(rules)} if rules else {}
            events.append(
                kind(
                    receipt=receipt,
                    action=action,
                    ip=target,
                    attack_details=facts,
                    **more,
                )
            )
        for event in events:
            topic = "status" if isinstance(event, StatusEvent) else "host"
            self.put(topic, key_of(event), event)
        self.flush()
        return [event.receipt.event_id for event in events]

    def put(
        self, kind: str, key: bytes | None, record: AnyRecord | bytes | None
    ) -> None:
        """Publish one record; bytes and None as they are."""
        topic = self.relays.topic(kind)
        value = (
            record
            if record is None or isinstance(record, bytes)
            else self._codec.encode(record, topic)
        )
        self._made().produce(topic, value=value, key=key, on_delivery=self._check)

    def put_framed(self, kind: str, key: bytes, record: AnyRecord, number: int) -> None:
        """Publish a record with Confluent's framing, under a schema id."""
        single = self._codec.encode(record, self.relays.topic(kind))
        self.put(kind, key, struct.pack(">bI", 0, number) + single[10:])
        self.flush()

    def flush(self) -> None:
        assert self._made().flush(60) == 0
        assert self._failed == []

    def _check(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failed.append(str(error))

    def read(self, kind: str, *, headers: bool = False) -> list[ConsumedRecord]:
        """Return all committed records of a topic."""
        records: list[ConsumedRecord] = []
        settings = {"bootstrap.servers": self.relays.bootstrap}
        topics = [self.relays.topic(kind)]
        with TopicReader(
            settings, topics, self._codec, from_beginning=True, headers=headers
        ) as reader:
            while not reader.at_end:
                records += reader.read(1.0)
        return records

    def records(self, kind: str) -> list[tuple[bytes | None, AnyRecord | None, Any]]:
        """Return key, record and time of all committed records of a topic."""
        return [(record.key, record.event, record.at) for record in self.read(kind)]

    def raw(self, kind: str) -> list[tuple[bytes, bytes | None]]:
        """Return key and value of the records of fnm-bus; tests write no headers."""
        return [
            (record.key or b"", record.value)
            for record in self.read(kind, headers=True)
            if record.headers or not record.value
        ]

    def decode(self, value: bytes) -> AnyRecord | None:
        """Return a decoded value, or None if it cannot be decoded."""
        try:
            return self._codec.decode(value)
        except InvalidRecord:
            return None

    def values(self, kind: str) -> list[tuple[tuple[int, int], Any]]:
        """Return ((partition, offset), record) of the decodable records of a topic."""
        return [
            ((record.partition, record.offset), record.event)
            for record in self.read(kind)
            if record.event is not None
        ]

    def state(self) -> Mapping[str, Mitigation]:
        """Return the latest mitigation of each key."""
        latest: dict[str, Mitigation] = {}
        for key, event, _at in self.records("mitigation"):
            name = (key or b"").decode()
            latest.pop(name, None)
            if isinstance(event, Mitigation):
                latest[name] = event
        return latest

    def wanted(self) -> list[str]:
        """Return the keys of the wanted mitigations, sorted."""
        return sorted(
            k for k, mitigation in self.state().items() if mitigation.state == "wanted"
        )

    def members(self) -> int:
        """Return the number of mitigators in the group; -1 during a rebalance."""
        group = f"{self.relays.prefix}mitigator-election"
        admin = AdminClient({"bootstrap.servers": self.relays.bootstrap})
        [answer] = admin.describe_consumer_groups([group]).values()
        group_state = answer.result(timeout=30)
        if group_state.state not in (
            ConsumerGroupState.STABLE,
            ConsumerGroupState.EMPTY,
        ):
            return -1
        return len(group_state.members)

    def order(self, verb: str, **about: Any) -> None:
        """Publish a command, as `mitigations` would."""
        number = next(_NUMBERS)
        command = Command(
            command_id=f"command-{number}",
            verb=verb,
            by="test",
            comment="a test",
            requested_at=datetime.now(UTC),
            **about,
        )
        self.put("command", None, command)
        self.flush()

    def audits(self, what: str) -> list[Audit]:
        """Return the audit records with an action."""
        events = (event for _key, event, _at in self.records("audit"))
        return [
            event
            for event in events
            if isinstance(event, Audit) and event.action == what
        ]

    def dead_letters(self, count: int = 0) -> list[DeadLetter]:
        """Return the dead letters, which are exactly *count*, once that many exist."""
        letters: list[DeadLetter] = []

        def has_arrived() -> bool:
            records = (record for _key, record, _at in self.records("deadletter"))
            letters[:] = [each for each in records if isinstance(each, DeadLetter)]
            return len(letters) >= count

        self.until(has_arrived, 30, f"{count} dead letters")
        assert len(letters) == count
        return letters

    def assert_decides(
        self, mitigator: Server, host: str = "203.0.113.9", seconds: float = 30
    ) -> None:
        """Assert that a mitigator runs, and decides about a ban within *seconds*."""
        [event] = self.tell("ban", host)
        assert self.decided_after(event, 30) < seconds
        assert mitigator.alive

    def until(self, true: Any, seconds: float = 30, what: str = "state") -> None:
        """Wait until a condition is true that no event announces."""
        try:
            wait_until(true, seconds, what)
        except TimeoutError as exc:
            raise AssertionError(f"{exc}\n{self.said()}") from exc

    def stop(self) -> None:
        for server in self._servers:
            if server.alive:
                with suppress(ProcessLookupError):
                    os.kill(server.pid, signal.SIGCONT)
                server.kill()

    def _made(self) -> Producer:
        if self._producer is None:
            self._producer = Producer({"bootstrap.servers": self.relays.bootstrap})
        return self._producer

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        return {
            "FNM_BUS_CONFIG": str(self.relays.config),
            "FNM_BUS_DRY_RUN": "false",
            **more,
        }


def health_at(address: str) -> tuple[int, Mapping[str, Any]]:
    """Return the status and the facts of /healthz."""
    try:
        with urlopen(f"{address}/healthz", timeout=10) as answer:
            return answer.status, json.load(answer)
    except HTTPError as exc:
        with exc:
            return exc.code, json.load(exc)


def _address(server: Server) -> str:
    (port, *_) = re.findall(r"serving address=\S+:(\d+)", server.output())
    return f"http://127.0.0.1:{port}"


def policy(action: str = "blackhole", lease: str = "60s") -> str:
    return POLICY.format(action=action, lease=lease)
