"""The mitigator alone: decisions in this process, and a takeover from a real Kafka."""

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any
from uuid import uuid4

from confluent_kafka import Producer
from report import Row

from consumers.mitigation.clock import now as boottime
from consumers.mitigation.measure import BLACKHOLE
from consumers.mitigator.context import DecisionContext, Moment
from consumers.mitigator.decisions.decide import apply_event
from consumers.mitigator.decisions.expire import expire_leases, start_proposals
from consumers.mitigator.decisions.takeover import take_over
from consumers.mitigator.kafka.batch import Batch
from consumers.mitigator.kafka.stored_state import read_state
from consumers.mitigator.state.state import State
from consumers.mitigator.state.transition import Transition
from consumers.policy.model import HOSTGROUP, Action, Limits, Match, Policy, Rule
from fnm_bus.avro.codec import Codec
from fnm_bus.event import AttackDetails, HostEvent, Receipt
from fnm_bus.kafka.addressing import Topics
from fnm_bus.kafka.record import Record
from fnm_bus.kafka.topic_admin import TopicAdmin
from fnm_bus.kafka.topics import planned_topics

_OWN = (ip_network("10.0.0.0/8"),)
_GROUP = "pool"
_HOSTS, _HOSTS_QUICK = 65_000, 2_000
_RENEWALS = 12
"""Writes of one reason within an hour: each third of a lease of 15 minutes."""
_TAKEOVER = 15.0
"""Seconds that a takeover may take."""
_PARTITIONS = 4


def measure(bootstrap: str, *, quick: bool) -> list[Row]:
    """Return all figures about the mitigator alone."""
    hosts = _HOSTS_QUICK if quick else _HOSTS
    group, rows = _group_measure(hosts)
    own, more = _own_measures(500 if quick else 10_000)
    return [
        *more,
        *rows,
        _take_over(bootstrap, f"{hosts:,} hosts with one group measure", group),
        _take_over(bootstrap, f"{len(own.state.mitigations):,} mitigations", own),
    ]


class _Decisions:
    """Events in, encoded records out, as the service makes them of each event.

    Attributes:
        latest: topic and key → the latest record.
        size: bytes of all records so far, without audit records.
        written: number of these records.
    """

    def __init__(self, action: Action, topics: Topics) -> None:
        block = Action(action=BLACKHOLE, prefixes=(ip_network("10.0.0.0/16"),))
        self.topics = topics
        self.context = DecisionContext(
            Policy(
                rules=(Rule(name="all", match=Match(), action=action),),
                limits=Limits(
                    own_networks=_OWN,
                    max_affected_share=1.0,
                    max_active=10**6,
                    max_new_per_minute=10**7,
                ),
                hostgroups={_GROUP: block},
                digest="0123456789abcdef",
            ),
            dry_run=False,
        )
        self.state = State(_OWN, dry_run=False)
        self.latest: dict[tuple[str, bytes], Record] = {}
        self.size = self.written = 0
        self._codec = Codec()

    def new_transition(self) -> Transition:
        """Return a new transition at this moment."""
        now = Moment(boottime(), datetime.now(UTC))
        return Transition(self.context, self.state, now)

    def decide(self, event: HostEvent) -> None:
        """Let one event count, and encode the records that follow."""
        batch, transition = (
            Batch(self.topics, self._codec, "bench"),
            self.new_transition(),
        )
        apply_event(transition, event)
        batch.add(transition)
        self.keep(batch.records())

    def keep(self, records: Iterable[Record]) -> None:
        """Remember records as Kafka would."""
        for record in records:
            if record.topic != self.topics.audit:
                key = record.key or b""
                self.latest[record.topic, key] = record
                self.size += len(key) + len(record.value or b"")
                self.written += 1


def _group_measure(hosts: int) -> tuple[_Decisions, list[Row]]:
    """Let many hosts of one hostgroup be attacked, whose measure is the hostgroup's."""
    made = _Decisions(Action(action=HOSTGROUP), _topics())
    part = hosts // 10
    figures = []
    for events in _chunks(hosts, part):
        size, began = made.size, time.process_time()
        for event in events:
            made.decide(event)
        seconds = time.process_time() - began
        figures.append((seconds / part * 1e6, (made.size - size) / part))
    (first, first_size), (last, last_size) = figures[0], figures[-1]
    same = last <= 2 * first and last_size <= 2 * first_size
    return made, [
        Row(
            f"{hosts:,} hosts with one group measure, for each event",
            "mitigator",
            f"last tenth {last:.0f} µs of CPU, {last_size:,.0f} bytes written",
            f"first tenth {first:.0f} µs, {first_size:,.0f} bytes",
            "<= 2 x the first tenth",
            same,
        )
    ]


def _own_measures(hosts: int) -> tuple[_Decisions, list[Row]]:
    """Let many hosts be attacked, each with a measure of its own."""
    made = _Decisions(Action(action=BLACKHOLE), _topics())
    [events] = _chunks(hosts, hosts)
    began = time.process_time()
    for event in events:
        made.decide(event)
    rate = hosts / (time.process_time() - began)
    began = time.process_time()
    changes = [
        *expire_leases(made.state, made.new_transition),
        *start_proposals(made.state, made.new_transition),
    ]
    looked = time.process_time() - began
    if changes:
        raise RuntimeError(f"{len(changes)} leases ended during the measurement")
    return made, [
        Row(
            "decisions, each a new mitigation",
            "mitigator",
            f"{rate:,.0f} for each second of CPU",
        ),
        Row(
            f"a look at {hosts:,} leases",
            "mitigator",
            f"{looked * 1000:.1f} ms, once a second",
        ),
    ]


def _take_over(bootstrap: str, subject: str, made: _Decisions) -> Row:
    """Time a takeover after an hour of renewals that Kafka has not compacted."""
    settings = {"bootstrap.servers": bootstrap}
    topics = made.topics
    TopicAdmin(settings).create(planned_topics(topics, _PARTITIONS, 1))
    count = _publish_an_hour(settings, made)
    began, cpu = time.perf_counter(), time.process_time()
    stored = read_state(settings, topics)
    read = time.perf_counter() - began
    moment = Moment(boottime(), datetime.now(UTC))
    state = stored.restore(made.context, moment)
    written = 0
    batch = Batch(topics, Codec(), "bench")
    for transition in take_over(state, lambda: Transition(made.context, state, moment)):
        batch.add(transition)
        written += len(transition.reasons) + len(transition.mitigations)
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    missing = made.state.reasons.keys() ^ state.reasons.keys()
    if missing or stored.unreadable or len(state.active()) != len(made.state.active()):
        raise RuntimeError(f"{len(missing)} reasons differ, {stored.unreadable[:1]}")
    goal = len(made.state.reasons) == _HOSTS
    megabytes = _size(made) * (_RENEWALS + 1) / 1e6
    return Row(
        f"takeover after an hour of renewals, {subject}",
        "mitigator",
        f"{took:.1f} s ({cpu:.1f} s of CPU), of these {read:.1f} s for {count:,}"
        f" records of {megabytes:,.0f} MB; {written:,} written",
        goal=f"<= {_TAKEOVER:g} s" if goal else "",
        met=took <= _TAKEOVER if goal else None,
    )


def _publish_an_hour(settings: dict[str, str], made: _Decisions) -> int:
    """Publish each record once, and again for each renewal; return how many."""
    producer = Producer({**settings, "acks": "all", "linger.ms": "20"})
    count = 0
    for _ in range(_RENEWALS + 1):
        for record in made.latest.values():
            arguments: dict[str, Any] = {
                "key": record.key,
                "value": record.value,
                "headers": list(record.headers),
            }
            while True:
                try:
                    producer.produce(record.topic, **arguments)
                    break
                except BufferError:
                    producer.poll(0.1)
            count += 1
            if count % 1_000 == 0:
                producer.poll(0)
    if producer.flush(60):
        raise RuntimeError("Kafka did not take all records")
    return count


def _size(made: _Decisions) -> int:
    return sum(len(r.key or b"") + len(r.value or b"") for r in made.latest.values())


def _topics() -> Topics:
    prefix = f"bench{uuid4().hex[:8]}."
    return Topics(**{name: prefix + name for name in Topics.__annotations__})


def _chunks(hosts: int, size: int) -> Iterator[list[HostEvent]]:
    for start in range(0, hosts, size):
        yield [_event(number) for number in range(start, min(start + size, hosts))]


def _event(number: int) -> HostEvent:
    host = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    receipt = Receipt(
        event_id=str(uuid4()),
        received_at=datetime.now(UTC),
        sequence=number + 1,
        sensor="bench",
    )
    details = AttackDetails(
        attack_uuid=str(uuid4()),
        attack_direction="incoming",
        host_group=_GROUP,
        total_incoming_pps=250_000,
        total_incoming_traffic_bits=3_000_000_000,
    )
    return HostEvent(receipt=receipt, action="ban", ip=host, attack_details=details)
