"""Long run: fuzzed events into the whole chain, one part killed every 30 s.

    python tests/long_run.py [--minutes 60] [--seed 1]

Relay, mitigator, ExaBGP with its enforcer, and BIRD run on one Kafka. Each second the
neighbor's table is compared with the mitigation topic: a route that outlives its
mitigation by more than the watchdog's bound, or that the rules do not allow, is a
violation. Exit status 1 if there was one.
"""

import argparse
import os
import random
import signal
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from time import monotonic, sleep, time

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from support.bgp_lab import GRACE, BgpLab, CutKafka
from support.fuzz_records import Fuzz
from support.relay_processes import ban

from fnm_bus.avro.codec import Codec
from fnm_bus.errors import InvalidRecord
from fnm_bus.event import Mitigation

OWN = [ip_network("203.0.113.0/24"), ip_network("10.0.0.0/8")]
PROTECTED = ip_network("203.0.113.128/28")
POLICY = f"""
own_networks = ["203.0.113.0/24", "10.0.0.0/8"]
guardrails.protected_prefixes = ["{PROTECTED}"]
guardrails.max_active = 300
guardrails.max_new_per_minute = 2000
guardrails.max_affected_share = 1.0
[[rule]]
name = "approved"
match = {{ prefix = "203.0.113.16/28" }}
then = {{ action = "blackhole", lease = "20s", approval = true }}
[[rule]]
name = "trial"
match = {{ prefix = "203.0.113.32/28" }}
then = {{ action = "blackhole", lease = "20s", dry_run = true }}
[[rule]]
name = "probe"
match = {{ prefix = "10.0.0.0/8" }}
then = {{ action = "blackhole", lease = "15s" }}
[[rule]]
name = "flow"
match = {{ prefix = "203.0.113.48/28" }}
then = {{ action = "flowspec", lease = "10s" }}
[[rule]]
name = "rest"
then = {{ action = "blackhole", lease = "10s" }}
"""
BOUND = GRACE + 8.0 + 3.0
"""Seconds by which a route may outlive its mitigation: the watchdog's bound."""
RESTART = 15.0
"""Seconds for which nobody may be there to withdraw what ended before its lease."""
KILL_EVERY = 30.0
PROBE_EVERY = 10.0
PROBE_BOUND = 60.0
"""Seconds within which a clean ban is in the neighbor's table, kills included."""
LAG = 3.0
"""Seconds by which the neighbor's table may be ahead of what was read of the topic."""
MAX_BYTES = {"mitigation": 8_000, "reason": 128_000}
HOSTS = [f"203.0.113.{number}" for number in (*range(1, 64), *range(128, 136))]


@dataclass
class Topics:
    """What the mitigation topic allows, and how large the records are."""

    bootstrap: str
    names: dict[str, str]
    until: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    paused_at: float | None = None
    largest: Counter[str] = field(default_factory=Counter)
    records: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Follow the topics."""
        threading.Thread(target=self._run, daemon=True).start()

    def allowed_until(self, key: str) -> float | None:
        """Return until when a measure may be in force; None: never wanted."""
        with self._lock:
            return self.until.get(key)

    def _run(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "long-run",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
            }
        )
        parts = []
        for name in self.names.values():
            partitions = consumer.list_topics(name, timeout=30).topics[name].partitions
            parts += [
                TopicPartition(name, partition, OFFSET_BEGINNING)
                for partition in partitions
            ]
        consumer.assign(parts)
        kinds = {name: kind for kind, name in self.names.items()}
        codec = Codec()
        while not self._stop.is_set():
            for message in consumer.consume(1_000, 0.2):
                if message.error() is None:
                    self._take(codec, kinds[message.topic() or ""], message)
        consumer.close()

    def _take(self, codec: Codec, kind: str, message: object) -> None:
        value, key = message.value(), message.key() or b""  # type: ignore[attr-defined]
        at = message.timestamp()[1] / 1000  # type: ignore[attr-defined]
        self.records[kind] += 1
        self.largest[kind] = max(self.largest[kind], len(value or b""))
        if kind != "mitigation":
            return
        name = key.decode()
        try:
            record = codec.decode(value) if value else None
        except InvalidRecord:
            record = None
        with self._lock:
            if name == "pause":
                wanted = isinstance(record, Mitigation) and record.state == "wanted"
                self.paused_at = at if wanted else None
                return
            live = (
                isinstance(record, Mitigation)
                and record.state == "wanted"
                and not record.dry_run
            )
            if live and isinstance(record, Mitigation):
                self.until[name] = at + record.lease_ms / 1000
                self.ended.pop(name, None)
            elif name in self.until:
                self.until[name] = min(self.until[name], at)
                self.ended[name] = at


@dataclass
class Result:
    """What happened."""

    kills: Counter[str] = field(default_factory=Counter)
    events: int = 0
    probes: int = 0
    looks: int = 0
    routes: int = 0
    latest: float = 0.0
    slowest: float = 0.0
    violations: list[str] = field(default_factory=list)

    def violate(self, text: str) -> None:
        """Report a violation."""
        self.violations.append(text)
        say(f"VIOLATION {text}")


def say(text: str) -> None:
    """Print a line with the time."""
    sys.stdout.write(f"{datetime.now(UTC):%H:%M:%S} {text}\n")
    sys.stdout.flush()


class LongRun:
    """The chain, the stream, the kills and the checks."""

    def __init__(self, root: Path, kafka: CutKafka, seed: int) -> None:
        self.lab = BgpLab(root, kafka, POLICY)
        self.relays = self.lab.relays
        self.rng = random.Random(seed)  # noqa: S311 - repeatable
        self.result = Result()
        names = {kind: self.relays.topic(kind) for kind in ("mitigation", "reason")}
        self.topics = Topics(kafka.bootstrap, names)
        self.topics.start()
        self.relay = self.relays.start()
        self.fuzz = Fuzz(seed, HOSTS)
        self.producer = Producer(
            {"bootstrap.servers": kafka.bootstrap, "message.max.bytes": 1_000_000}
        )
        self.killed_at = monotonic()
        self.killed = "nothing"
        self.probes: dict[str, float] = {}
        self.number = 0
        self.suspects: dict[str, float] = {}
        self._stop = threading.Event()

    def run(self, minutes: float) -> None:
        """Run for a time, then let everything end."""
        stream = threading.Thread(target=self._stream)
        stream.start()
        end = monotonic() + minutes * 60
        next_kill, next_probe = monotonic() + KILL_EVERY, monotonic()
        report = monotonic() + 60
        while monotonic() < end:
            if monotonic() >= next_kill:
                next_kill = monotonic() + KILL_EVERY
                self._kill()
            if monotonic() >= next_probe:
                next_probe = monotonic() + PROBE_EVERY
                self._probe()
            self._look()
            self._revive()
            if monotonic() >= report:
                report = monotonic() + 60
                self.report()
            sleep(0.5)
        self._stop.set()
        stream.join()
        self._finish()

    def report(self) -> None:
        """Print how it goes."""
        result = self.result
        say(
            f"events {result.events}, kills {dict(result.kills)}, probes"
            f" {result.probes} slowest {result.slowest:.1f} s, looks {result.looks},"
            f" routes seen {result.routes}, latest end {result.latest:.1f} s,"
            f" records {dict(self.topics.records)} largest {dict(self.topics.largest)},"
            f" rss mitigator {rss(self.lab.mitigator.pid)} kB,"
            f" violations {len(result.violations)}"
        )

    # -- the stream ------------------------------------------------------------

    def _stream(self) -> None:
        while not self._stop.is_set():
            made = self.fuzz.draw()
            if made.kind == "command" and self.rng.random() < 0.7:
                continue
            try:
                self.producer.produce(
                    self.relays.topic(made.kind), made.value, made.key or None
                )
                self.result.events += 1
            except BufferError:
                pass
            self.producer.poll(0)
            if self.rng.random() < 0.05:
                action = self.rng.choice(("ban", "unban", "attack_status"))
                self.relays.call(ban(self.rng.choice(HOSTS), action))
                self.result.events += 1
            self._stop.wait(0.05)
        self.producer.flush(30)

    # -- the kills -------------------------------------------------------------

    def _kill(self) -> None:
        name = self.rng.choice(
            ("mitigator", "mitigator", "exabgp", "enforcer", "watchdog", "relay")
        )
        lab = self.lab
        match name:
            case "mitigator":
                lab.mitigator.kill()
                lab.mitigator = lab.start_mitigator(wait=False)
            case "exabgp":
                lab.exabgp.kill()
                lab.exabgp = lab.start_exabgp(wait=False)
            case "relay":
                self.relay.kill()
                self.relay.wait()
                self.relay = self.relays.start()
            case _:
                word = "--api" if name == "enforcer" else "--watchdog"
                try:
                    os.kill(lab.process_id(word), signal.SIGKILL)
                except (AssertionError, ProcessLookupError):
                    say(f"no {name} to kill")
                    return
        self.killed, self.killed_at = name, monotonic()
        self.result.kills[name] += 1
        say(f"killed {name}")

    def _revive(self) -> None:
        """Restart the programs that ended without a kill."""
        lab = self.lab
        servers = (
            ("mitigator", lab.mitigator),
            ("exabgp", lab.exabgp),
        )
        for name, server in servers:
            if not server.alive:
                # ExaBGP ends when its processes die too often; that is documented.
                if name == "mitigator" or "too often" not in server.tail():
                    self.result.violate(f"{name} ended: {server.tail()[-1500:]}")
                if name == "mitigator":
                    lab.mitigator = lab.start_mitigator(wait=False)
                else:
                    lab.exabgp = lab.start_exabgp(wait=False)
        if self.relay.poll() is not None:
            self.result.violate("the relay ended")
            self.relay = self.relays.start()

    # -- the checks ------------------------------------------------------------

    def _probe(self) -> None:
        self.number += 1
        host = f"10.{self.number >> 8 & 255}.{self.number & 255}.1"
        self.probes[host] = monotonic()
        self.lab.services.tell("ban", host, sensor="probe")
        self.result.probes += 1

    def _look(self) -> None:
        result = self.result
        routes = self.lab.bird.routes()
        now = time()
        result.looks += 1
        result.routes += len(routes)
        paused = self.topics.paused_at
        suspects: dict[str, float] = {}
        for net in routes:
            key = key_of(net)
            prefix = ip_network(
                net.split("dst ")[1].split(";")[0] if " " in net else net
            )
            if not any(prefix.subnet_of(own) for own in OWN):  # type: ignore[arg-type]
                result.violate(f"{net} is outside of the own networks")
            elif isinstance(prefix, IPv4Network) and prefix.overlaps(PROTECTED):
                result.violate(f"{net} is protected")
            elif prefix.prefixlen != prefix.max_prefixlen:
                result.violate(f"{net} is wider than a host")
            if key is None:
                continue
            fault = self._fault_of(key, now)
            if fault:
                suspects[key] = self.suspects.get(key, monotonic())
                if monotonic() - suspects[key] > LAG:
                    result.violate(f"{key} {fault}; killed last: {self.killed}")
        self.suspects = suspects
        self._check_probes({*routes}, paused=paused is not None)
        for kind, most in MAX_BYTES.items():
            if self.topics.largest[kind] > most:
                result.violate(f"a record of {self.topics.largest[kind]} bytes: {kind}")
                self.topics.largest[kind] = 0

    def _fault_of(self, key: str, now: float) -> str:
        """Return why a mitigation must not be in force; ""."""
        until, paused = self.topics.allowed_until(key), self.topics.paused_at
        if until is None:
            return "was never wanted"
        late = now - until
        if key in self.suspects or late < LAG:  # else a renewal may be unread
            self.result.latest = max(self.result.latest, late)
        if late > (RESTART if key in self.topics.ended else BOUND):
            return f"outlived its end by {late:.1f} s"
        if paused is not None and now - paused > RESTART:
            return f"is in force {now - paused:.1f} s after a pause"
        return ""

    def _check_probes(self, routes: set[str], *, paused: bool) -> None:
        for host, sent in list(self.probes.items()):
            waited = monotonic() - sent
            wanted = self.topics.allowed_until(f"blackhole|{host}/32")
            if f"{host}/32" in routes or (paused and wanted):
                self.result.slowest = max(self.result.slowest, waited)
                del self.probes[host]
            elif wanted and wanted < time():
                del self.probes[host]  # its lease was over before a neighbor was there
            elif waited > PROBE_BOUND:
                self.result.violate(f"the ban of {host} counts for nothing")
                del self.probes[host]

    def _finish(self) -> None:
        """Check that everything ends by its lease."""
        self.lab.services.order("resume")
        end = monotonic() + 120
        while monotonic() < end and self.lab.bird.routes():
            self._look()
            self._revive()
            sleep(1)
        left = self.lab.bird.routes()
        # A person's `add` may ask for a longer lease.
        until = {net: self.topics.allowed_until(key_of(net) or "") for net in left}
        for net, allowed in until.items():
            if allowed is None or allowed + BOUND < time():
                self.result.violate(f"{net} is in force at the end")
        self.report()


def key_of(net: str) -> str | None:
    """Return the mitigation of a route; None for a FlowSpec rule."""
    return None if " " in net else f"blackhole|{net}"


def rss(pid: int) -> int:
    """Return the memory of a process in kB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)


def main() -> int:
    """Run, report, clean up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    root = Path(mkdtemp(prefix="fnm-"))
    (root / "kafka").mkdir()
    kafka = CutKafka(root / "kafka")
    run: LongRun | None = None
    try:
        kafka.cluster.open()
        (root / "lab").mkdir()
        run = LongRun(root / "lab", kafka, options.seed)
        say(f"running in {root}")
        run.run(options.minutes)
    finally:
        if run is not None:
            run.lab.stop()
        kafka.close()
        rmtree(root, ignore_errors=True)
    for text in run.result.violations:
        say(f"VIOLATION {text}")
    say(f"done: {len(run.result.violations)} violations")
    return bool(run.result.violations)


if __name__ == "__main__":
    sys.exit(main())
