"""A running mitigator and decodable records with unexpected values.

FUZZ_SECONDS (10 unless set) is how long; `make fuzz-mitigator` takes ten minutes.
FUZZ_SEED draws the same records again.
"""

import os
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from time import monotonic

import pytest
from confluent_kafka import Producer
from support.consumer_processes import ConsumerProcesses
from support.fuzz_records import Fuzz, Made
from support.relay_processes import RelayProcesses

from fnm_bus.event import Audit, Mitigation

pytestmark = [pytest.mark.kafka, pytest.mark.quiet, pytest.mark.timeout(3_600)]

SECONDS = float(os.environ.get("FUZZ_SECONDS", "10"))
SEED = int(os.environ.get("FUZZ_SEED", "0")) or random.SystemRandom().randrange(
    1, 2**32
)
OWN = ["203.0.113.0/24", "10.0.0.0/8", "2001:db8:1::/48"]
PROTECTED = "203.0.113.128/28"
POLICY = f"""
own_networks = {OWN!r}
guardrails.protected_prefixes = ["{PROTECTED}"]
guardrails.max_affected_share = 1.0
guardrails.max_active = 300
guardrails.max_new_per_minute = 10000
[[rule]]
name = "probe"
match = {{ prefix = "10.0.0.0/8" }}
then = {{ action = "blackhole", lease = "10s" }}
[[rule]]
name = "flow"
match = {{ prefix = "203.0.113.0/28" }}
then = {{ action = "flowspec", lease = "10s" }}
[[rule]]
name = "approved"
match = {{ prefix = "203.0.113.16/28" }}
then = {{ action = "blackhole", lease = "10s", approval = true }}
[[rule]]
name = "rest"
then = {{ action = "blackhole", lease = "10s" }}
[[hostgroup]]
name = "customers"
prefixes = ["203.0.113.0/25"]
action = "blackhole"
lease = "10s"
""".replace("'", '"')
ROUND = min(10.0, SECONDS / 2)
"""Seconds between two checks."""
DECIDED = 5.0
"""Seconds in which a ban behind is decided: one, and more on a machine under load."""
LARGEST = {"mitigation": 8_000, "reason": 128_000, "audit": 128_000}
GROWTH = 100_000
"""kB by which the memory may be larger at the end than after the first round."""


@dataclass
class Look:
    """Reads the topics once, record by record, and checks each."""

    services: ConsumerProcesses
    seen: dict[str, int] = field(default_factory=dict)
    decided: set[str] = field(default_factory=set)

    def check(self) -> None:
        """Check the records that the mitigator wrote since the last check."""
        for kind, most in LARGEST.items():
            records = self.services.raw(kind)[self.seen.get(kind, 0) :]
            self.seen[kind] = self.seen.get(kind, 0) + len(records)
            for key, value in records:
                assert len(value or b"") <= most, f"{kind} {key!r:.200}"
                if value:
                    self._check_record(key, self.services.decode(value))

    def _check_record(self, key: bytes, record: object) -> None:
        if isinstance(record, Audit) and record.event_id:
            self.decided.add(record.event_id)
        if not isinstance(record, Mitigation) or record.kind in {"pause", "notify"}:
            return
        if record.state != "wanted" or record.dry_run:
            return
        flow = record.flow
        sides = [record.prefix]
        if flow is not None:
            sides = [
                prefix
                for prefix in (flow.destination_prefix, flow.source_prefix)
                if prefix
            ]
        networks = [ip_network(prefix or "") for prefix in sides]
        own = [ip_network(prefix) for prefix in OWN]
        assert any(
            side.version == network.version and side.subnet_of(network)  # type: ignore[arg-type]
            for side in networks
            for network in own
        ), f"{key!r} is outside of the own networks"
        protected = ip_network(PROTECTED)
        assert not any(
            side.version == 4 and side.overlaps(protected) for side in networks
        )
        assert 0 < record.lease_ms <= 86_400_000


@pytest.fixture
def services(kafka_relays: RelayProcesses) -> Iterator[ConsumerProcesses]:
    made = ConsumerProcesses(kafka_relays, POLICY, "[consumers]", "metrics_port = 0")
    yield made
    made.stop()


def test_a_mitigator_decides_under_random_records(services: ConsumerProcesses) -> None:
    sys.stdout.write(f"FUZZ_SEED={SEED} FUZZ_SECONDS={SECONDS:.0f}\n")
    hosts = [f"203.0.113.{number}" for number in (*range(1, 64), 128, 135)]
    fuzz = Fuzz(SEED, [*hosts, "2001:db8:1::7", "8.8.8.8"], stored=True)
    settings = {"bootstrap.servers": services.relays.bootstrap, "linger.ms": "5"}
    producer = Producer(settings)
    mitigator = services.start("mitigator")
    look = Look(services)
    sent, rounds, first = 0, 0, 0
    end = monotonic() + SECONDS
    while monotonic() < end:
        until = min(monotonic() + ROUND, end)
        made: list[Made] = []
        while monotonic() < until:
            made.append(fuzz.draw())
            record = made[-1]
            producer.produce(
                services.relays.topic(record.kind), record.value, record.key or None
            )
            producer.poll(0)
            sent += 1
        assert producer.flush(60) == 0
        rounds += 1
        probe = f"10.0.{rounds >> 8}.{rounds & 255}"
        [event] = services.tell("ban", probe, sensor="probe")
        assert services.decided_after(event, 60) < DECIDED, f"seed {SEED}"
        assert mitigator.alive, f"seed {SEED}: {mitigator.output()[-3000:]}"
        look.check()
        errors = services.metric(mitigator, "fnm_bus_mitigator_unexpected_errors_total")
        assert errors == 0, f"seed {SEED}: {traceback_of(mitigator.output())}"
        if rounds == 1:
            first = rss(mitigator.pid)
        elif rounds % 2 == 0:  # the next one meets the records in the state's topics
            last = rss(mitigator.pid)
            assert last - first < GROWTH, f"{first} kB, then {last} kB"
            mitigator.kill()
            mitigator = services.start("mitigator")
            assert (
                services.metric(mitigator, "fnm_bus_mitigator_state_reloads_total") == 0
            )
    sys.stdout.write(f"records={sent} rounds={rounds}\n")
    assert rounds


def rss(pid: int) -> int:
    """Return the memory of a process in kB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def traceback_of(output: str) -> str:
    """Return the first unexpected error of a log."""
    lines = [line for line in output.splitlines() if "Traceback" in line]
    return "\n".join(line[-3000:].replace("\\n", "\n") for line in lines[:2])
