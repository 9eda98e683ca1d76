"""Decodable records with unexpected values: valid records with replaced fields.

What is drawn depends on the seed alone, but for the times, which have to be recent.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar, cast

import msgspec
from msgspec import inspect

from consumers.mitigation.reason_key import key_of_reason
from fnm_bus.avro.codec import Codec
from fnm_bus.errors import InvalidRecord
from fnm_bus.event import (
    AnyRecord,
    AttackDetails,
    Command,
    FlowSpecRule,
    HostEvent,
    HostgroupEvent,
    HostgroupNetwork,
    Mitigation,
    Reason,
    Receipt,
    StatusEvent,
    Want,
)

MAX_BYTES: Final = 900_000
"""Kafka's usual limit is just above."""
_S = TypeVar("_S", bound=msgspec.Struct)

NUMBERS: Final = (
    *(0, 1, 2, 17, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32, 2**53 - 1),
    *(2**53, 2**60, 2**63 - 1),
)
WORDS: Final = (
    *("", " ", "\0", "a" * 300, "é" * 3_000, "x" * 70_000, "\u202egnp.exe", "\x1b[2J"),
    *("NaN", "null", "[]", '{"a":1}', "a|b|c", "\\", '"', "\r\nX: y", "🛡️", "ﷺ" * 20),
    *("0.0.0.0/0", "::/0", "10.0.0.0/8", "203.0.113.0/24", "203.0.113.7/24"),
    *("203.0.113.7", "203.0.113.7/32", "8.8.8.8", "8.8.8.8/32", "fe80::1%eth0"),
    *("::ffff:203.0.113.7", "2001:db8:1::7", "2001:DB8:1::7/128", "203.0.113.007"),
    *("ban", "unban", "attack_status", "partial_block", "partial_unblock", "BAN"),
    *("udp", "tcp", "sctp", "unknown", "incoming", "outgoing", "discard", "accept"),
    *("rate-limit", "redirect", "64500:1", "global", "pause", "resume", "withdraw"),
    *("approve", "reject", "add", "wanted", "ended", "blackhole", "flowspec", "notify"),
    *("blackhole|203.0.113.7/32", "host", "operator", "attack", "exabgp", "nftables"),
)
TIMES: Final = (
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
    datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
)
ACTIONS: Final = (
    *("ban", "ban", "unban", "partial_block", "partial_unblock", "attack_details"),
)
VERBS: Final = ("withdraw", "reject", "approve", "add", "pause", "resume")


@dataclass(frozen=True)
class Made:
    """A record and where it goes.

    Attributes:
        kind: of the topic.
        key: of the record.
        value: encoded.
    """

    kind: str
    key: bytes
    value: bytes


class Fuzz:
    """Draws records.

    Args:
        seed: the same one draws the same records.
        hosts: addresses of targets.
        stored: whether reasons and mitigations are written to their own topics, too.
    """

    def __init__(self, seed: int, hosts: list[str], *, stored: bool = False) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - repeatable
        self._hosts = hosts
        self._stored = stored
        self._codec = Codec()
        self._sequence = 1_000_000

    def draw(self) -> Made:
        """Return the next record."""
        while True:
            make = self._rng.choice(self._kinds())
            kind, record = make()
            if self._rng.random() < 0.8:
                for _ in range(self._rng.choice((1, 1, 1, 2, 3, 8))):
                    record = self._mutated(record)
            key = self._key(record)
            if self._rng.random() < 0.05:
                kind = self._rng.choice(("host", "hostgroup", "status", "command"))
            try:
                value = self._codec.encode(record, kind)
            except (InvalidRecord, UnicodeEncodeError):
                continue
            if len(value) + len(key) < MAX_BYTES:
                return Made(kind, key, value)

    def _kinds(self) -> list[Callable[[], tuple[str, AnyRecord]]]:
        events = [self._host, self._host, self._host, self._hostgroup, self._status]
        stored = [self._reason, self._mitigation] if self._stored else []
        return [*events, self._command, *stored]

    def _key(self, record: AnyRecord) -> bytes:
        match record:
            case Reason():
                key = key_of_reason(record).encode()
            case Mitigation() | Command():
                key = (record.key or "").encode("utf-8", "replace")
            case _:
                key = self._rng.choice(self._hosts).encode()
        return key[:1_000]

    # -- valid ones ------------------------------------------------------------

    def _receipt(self) -> Receipt:
        self._sequence += 1
        age = self._rng.choice((0, 0, 0, 1, 30, 400, 90_000, -30, -4_000))
        return Receipt(
            event_id=f"fuzz-{self._sequence}",
            received_at=datetime.now(UTC) - timedelta(seconds=age),
            sequence=self._sequence,
            sensor=self._rng.choice(("fra1", "fra2", "ams1")),
        )

    def _details(self, target: str) -> AttackDetails:
        return AttackDetails(
            attack_uuid=f"attack-{target}-{self._rng.randrange(3)}",
            attack_protocol=self._rng.choice(("udp", "tcp", "icmp", "unknown")),
            attack_direction=self._rng.choice(("incoming", "incoming", "outgoing")),
            total_incoming_pps=self._rng.choice(NUMBERS),
            total_incoming_traffic_bits=self._rng.choice(NUMBERS),
            host_group=self._rng.choice((None, "customers", "global")),
        )

    def _rule(self, target: str) -> FlowSpecRule:
        return FlowSpecRule(
            destination_prefix=f"{target}/32",
            protocols=(self._rng.choice(("udp", "tcp")),),
            source_ports=(self._rng.randrange(65_536),),
            action_type=self._rng.choice(("discard", "rate-limit", None)),
        )

    def _host(self) -> tuple[str, AnyRecord]:
        target = self._rng.choice(self._hosts)
        rules = tuple(self._rule(target) for _ in range(self._rng.choice((0, 0, 1, 3))))
        event = HostEvent(
            receipt=self._receipt(),
            action=self._rng.choice(ACTIONS),
            ip=target,
            attack_details=self._details(target),
            flow_spec_rules=rules,
        )
        return "host", event

    def _status(self) -> tuple[str, AnyRecord]:
        target = self._rng.choice(self._hosts)
        event = StatusEvent(
            receipt=self._receipt(),
            action="attack_status",
            ip=target,
            attack_details=self._details(target),
        )
        return "status", event

    def _hostgroup(self) -> tuple[str, AnyRecord]:
        networks = tuple(
            HostgroupNetwork(network=f"{host}/32")
            for host in self._rng.sample(self._hosts, min(3, len(self._hosts)))
        )
        event = HostgroupEvent(
            receipt=self._receipt(),
            action=self._rng.choice(("ban", "unban")),
            hostgroup_name="customers",
            hostgroup_networks=networks,
            attack_details=self._details("customers"),
        )
        return "hostgroup", event

    def _command(self) -> tuple[str, AnyRecord]:
        self._sequence += 1
        target = self._rng.choice(self._hosts)
        command = Command(
            command_id=f"command-{self._sequence}",
            verb=self._rng.choice(VERBS),
            key=f"blackhole|{target}/32",
            by="fuzz",
            comment="fuzz",
            requested_at=datetime.now(UTC),
        )
        return "command", command

    def _reason(self) -> tuple[str, AnyRecord]:
        target = self._rng.choice(self._hosts)
        record = Reason(
            sensor="fra9",
            scope="host",
            target=target,
            part="attack",
            sequence=1,
            rule="all",
            lease_ms=5_000,
            wants=(Want(kind="blackhole", prefix=f"{target}/32"),),
        )
        return "reason", record

    def _mitigation(self) -> tuple[str, AnyRecord]:
        target = self._rng.choice(self._hosts)
        record = Mitigation(
            key=f"blackhole|{target}/32",
            kind="blackhole",
            prefix=f"{target}/32",
            state="wanted",
            lease_ms=5_000,
        )
        return "mitigation", record

    # -- replaced fields -------------------------------------------------------

    def _mutated(self, struct: _S) -> _S:
        """Return a value with one field replaced, at any depth."""
        fields = msgspec.structs.fields(struct)
        field = self._rng.choice(fields)
        value = getattr(struct, field.name)
        inner = value if isinstance(value, tuple) else ()
        if isinstance(value, msgspec.Struct) and self._rng.random() < 0.8:
            new: Any = self._mutated(value)
        elif (
            inner and isinstance(inner[0], msgspec.Struct) and self._rng.random() < 0.7
        ):
            at = self._rng.randrange(len(inner))
            new = (*inner[:at], self._mutated(inner[at]), *inner[at + 1 :])
        else:
            new = self._value(inspect.type_info(field.type), 0)
        return cast("_S", msgspec.structs.replace(struct, **{field.name: new}))

    def _value(self, kind: inspect.Type, depth: int) -> Any:  # noqa: C901, PLR0911 - a case each
        rng = self._rng
        match kind:
            case inspect.UnionType(types=types):
                return self._value(rng.choice(types), depth)
            case inspect.NoneType():
                return None
            case inspect.BoolType():
                return rng.random() < 0.5
            case inspect.IntType(le=most):
                return min(rng.choice(NUMBERS), most if most is not None else 2**63 - 1)
            case inspect.FloatType():
                return rng.choice((0.0, -1.0, 1e300, float("inf"), float("nan")))
            case inspect.StrType():
                return rng.choice(WORDS)
            case inspect.BytesType():
                return rng.randbytes(rng.choice((0, 1, 5_000)))
            case inspect.DateTimeType():
                return rng.choice((*TIMES, datetime.now(UTC)))
            case inspect.VarTupleType(item_type=item):
                most = (0, 1, 2) if depth else (0, 1, 2, 300, 7_000)
                count = rng.choice(most)
                first = [self._value(item, depth + 1) for _ in range(min(count, 300))]
                return tuple(first * (count // 300 or 1))
            case inspect.DictType(key_type=key, value_type=of):
                size = rng.choice((0, 1, 50))
                pairs = ((self._value(key, 2), self._value(of, 2)) for _ in range(size))
                return dict(pairs)
            case inspect.StructType(cls=cls, fields=fields):
                chosen = [
                    field for field in fields if field.required or rng.random() < 0.5
                ]
                return cls(
                    **{name.name: self._value(name.type, depth + 1) for name in chosen}
                )
        raise TypeError(f"no value for {kind}")
