"""What an enforcer does with its system, on a clock and topics fed by hand."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from consumers.enforcers import enforcer as enforcer_module
from consumers.enforcers import reconciler, snapshot, wanted_state
from consumers.enforcers.backend import (
    ActiveMeasure,
    BackendError,
    DesiredMeasure,
    MemoryBackend,
)
from consumers.enforcers.enforcer import Enforcer
from consumers.enforcers.snapshot import Lease, Snapshot
from consumers.enforcers.wanted_reader import End, MorePartitions
from consumers.metrics import EnforcerMetrics
from consumers.mitigation import clock
from consumers.mitigation.clock import BrokerClock
from consumers.mitigation.measure import Measure
from fnm_bus.event import Command, Mitigation
from fnm_bus.kafka.reader import ConsumedRecord

ONE, TWO = "blackhole|203.0.113.1/32", "blackhole|203.0.113.2/32"
OWN = (ip_network("203.0.113.0/24"), ip_network("2001:db8:1::/48"))
DAY = 86_400.0


class Topic:
    """Stands in for a reader: gives what a test puts."""

    def __init__(self) -> None:
        self.found: list[Any] = []
        self.healthy = True
        self.problem = ""
        self.restarts = 0

    def take(self, _timeout: float) -> list[Any]:
        found, self.found = self.found, []
        return found


class Audit:
    """Stands in for `AuditPublisher`: remembers what was published."""

    problem = ""

    def __init__(self) -> None:
        self.lost = 0
        self.said: list[tuple[str, str | None]] = []
        self.codes: list[str] = []

    def publish(
        self,
        what: str,
        _text: str,
        *,
        code: str = "",
        key: str | None = None,
        dry_run: bool = False,
    ) -> None:
        del dry_run
        if code != "broker_time":
            self.said.append((what, key))
            self.codes.append(code)

    def poll(self) -> None:
        pass


class Post:
    """One enforcer with a system of memory.

    Attributes:
        ahead: seconds by which the broker's clock is ahead of this machine's.
        partition: where the next records stand.
    """

    def __init__(
        self,
        path: Path,
        backend: MemoryBackend | None = None,
        *,
        dry_run: bool = False,
        ahead: float = 0.0,
        clock_known: bool = True,
    ) -> None:
        self.backend = backend or MemoryBackend()
        self.topic, self.commands, self.told = Topic(), Topic(), Audit()
        self.path, self.ahead, self.partition = path, ahead, 0
        self.metrics = EnforcerMetrics()
        self.clock = BrokerClock()
        self._boot = datetime.now(UTC).timestamp() - clock.now()
        if clock_known:
            self.learn()
        self.it = Enforcer(
            backend=self.backend,
            wanted_reader=self.topic,  # type: ignore[arg-type]  # all of it that is used
            command_reader=self.commands,  # type: ignore[arg-type]  # as above
            audit=self.told,  # type: ignore[arg-type]  # as above
            broker_clock=self.clock,
            path=path,
            interval=0.0,
            max_clock_skew=30.0,
            own_networks=OWN,
            dry_run=dry_run,
            metrics=self.metrics,
        )
        self.it._restore()

    def broker_time(self, age: float = 0.0) -> float:
        return self._boot + self.ahead + clock.now() - age

    def learn(self) -> None:
        self.clock.learn(clock.now(), clock.now(), self.broker_time())

    def put(
        self,
        key: str,
        state: str = "wanted",
        lease: float = 60.0,
        age: float = 0.0,
        **how: Any,
    ) -> None:
        kind, _, prefix = key.partition("|")
        it = Mitigation(
            **{
                "key": key,
                "kind": kind,
                "state": state,
                "prefix": prefix,
                "lease_ms": round(lease * 1000),
                **how,
            }
        )
        self.record(key, b"x", it, age)

    def record(
        self, key: str, value: bytes | None, event: Any, age: float = 0.0
    ) -> None:
        at = datetime.fromtimestamp(self.broker_time(age), UTC)
        place = "mitigation", self.partition, 0
        self.topic.found.append(
            ConsumedRecord(*place, at, key.encode(), (), value, event, "broken")
        )

    def command(self, verb: str | None, offset: int, age: float = 0.0) -> None:
        at = datetime.fromtimestamp(self.broker_time(age), UTC)
        event = Command(verb=verb, by="alice", comment="a test") if verb else None
        self.commands.found.append(
            ConsumedRecord("command", 0, offset, at, None, (), b"x", event, "broken")
        )

    def paused(self, offset: int) -> None:
        self.put("pause", "wanted", lease=0, command_offset=offset, prefix=None)

    def resumed(self, offset: int) -> None:
        self.put("pause", "ended", lease=0, command_offset=offset, prefix=None)

    def end(self) -> None:
        self.topic.found.append(End())

    def grow(self) -> None:
        self.topic.found.append(MorePartitions())

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.it.turn()

    def standing(self) -> list[str]:
        return sorted(self.backend.standing)

    def count(self, name: str, *labels: str) -> float:
        metric = getattr(self.metrics, name).labels("memory", *labels)
        return float(metric._value.get())


@pytest.fixture
def post(tmp_path: Path) -> Post:
    return Post(tmp_path / "snapshot.json")


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let the clock of leases go forward."""
    start, passed = clock.now(), [0.0]
    monkeypatch.setattr(clock, "now", lambda: start + passed[0])

    def go(seconds: float) -> None:
        passed[0] += seconds

    return go


def test_what_is_wanted_stands_once_the_topic_was_read(post: Post) -> None:
    post.put(ONE)
    post.turn()
    assert post.standing() == []
    post.end()
    post.turn()
    assert post.standing() == [ONE]
    assert ("in-force", ONE) in post.told.said


def test_an_old_record_that_a_later_one_ends_is_never_announced(post: Post) -> None:
    post.put(ONE)
    post.turn()
    post.put(ONE, "ended")
    post.end()
    post.turn()
    assert post.backend.calls == []


@pytest.mark.parametrize("state", ["ended", "suppressed", "proposed"])
def test_what_is_not_wanted_any_more_is_withdrawn(post: Post, state: str) -> None:
    post.end()
    post.put(ONE)
    post.turn()
    post.put(ONE, state)
    post.turn()
    assert post.standing() == []
    assert ("withdrawn", ONE) in post.told.said


def test_a_tombstone_withdraws(post: Post) -> None:
    post.end()
    post.put(ONE)
    post.turn()
    post.record(ONE, None, None)
    post.turn()
    assert post.standing() == []


def test_a_lease_ends_with_nothing_coming_from_kafka(
    post: Post, passing: Callable[[float], None]
) -> None:
    post.end()
    post.put(ONE, lease=60)
    post.put(TWO, lease=600)
    post.turn()
    passing(61)
    post.turn()
    assert post.standing() == [TWO]


def test_a_renewal_lengthens_a_lease(
    post: Post, passing: Callable[[float], None]
) -> None:
    post.end()
    post.put(ONE, lease=60)
    post.turn()
    passing(50)
    post.put(ONE, lease=60)
    post.turn()
    passing(50)
    post.turn()
    assert post.standing() == [ONE]


@pytest.mark.parametrize(
    "how",
    [{"dry_run": True}, {"place": "nftables"}],
    ids=["dry run", "another enforcer's"],
)
def test_what_is_not_ours_is_left_alone(post: Post, how: dict[str, Any]) -> None:
    post.end()
    post.put(ONE, **how)
    post.put("notify|203.0.113.1/32")
    post.turn()
    assert post.standing() == []


def test_what_nobody_wants_is_withdrawn_but_not_before_all_was_read(
    tmp_path: Path,
) -> None:
    backend = MemoryBackend()
    stray = Measure(kind="blackhole", prefix="203.0.113.9/32")
    backend.standing[stray.key] = stray
    post = Post(tmp_path / "snapshot.json", backend)
    post.turn(3)
    assert post.standing() == [stray.key]
    post.end()
    post.turn()
    assert post.standing() == []


def test_what_went_missing_in_the_system_is_announced_again(post: Post) -> None:
    post.end()
    post.put(ONE)
    post.turn()
    post.backend.standing.clear()
    post.turn(2)
    assert post.standing() == [ONE]


def test_a_broken_record_changes_nothing_that_stands(post: Post) -> None:
    post.end()
    post.put(ONE)
    post.turn()
    post.record(ONE, b"broken", None)
    post.turn()
    assert post.standing() == [ONE]
    assert post.count("unreadable_records") == 1


def test_a_restarted_enforcer_goes_on_from_its_snapshot_without_kafka(
    post: Post, passing: Callable[[float], None]
) -> None:
    post.end()
    post.put(ONE, lease=60)
    post.turn()
    again = Post(post.path)  # the system lost everything meanwhile
    again.turn()
    assert again.standing() == [ONE]
    passing(61)
    again.turn()
    assert again.standing() == []


def test_a_topic_that_was_made_anew_withdraws_nothing(
    post: Post, passing: Callable[[float], None]
) -> None:
    post.end()
    post.put(ONE, lease=60)
    post.turn()
    again = Post(post.path, post.backend)
    again.end()  # and nothing stands on the topic
    again.turn(3)
    assert again.standing() == [ONE]
    assert ("held", None) in again.told.said
    passing(61)
    again.turn()
    assert again.standing() == []


def test_what_only_the_snapshot_knows_ends_with_a_record(post: Post) -> None:
    post.end()
    post.put(ONE)
    post.turn()
    again = Post(post.path, post.backend)
    again.end()
    again.turn()
    again.put(ONE, "ended")
    again.turn()
    assert again.standing() == []


def test_what_ended_and_is_wanted_again_is_kept_by_the_snapshot(post: Post) -> None:
    post.end()
    post.put(ONE)
    post.turn()
    again = Post(post.path, post.backend, clock_known=False)
    again.put(ONE, "ended", age=2)
    again.put(ONE, age=1)
    again.end()
    again.turn()
    assert again.standing() == [ONE]


@pytest.mark.parametrize("own_first", [True, False])
def test_an_end_for_everybody_ends_nothing_that_is_wanted_here(
    post: Post,
    own_first: bool,  # noqa: FBT001 - pytest gives it
) -> None:
    post.end()
    post.put(ONE)
    post.turn()
    again = Post(post.path, post.backend, clock_known=False)
    records: list[dict[str, Any]] = [
        {"key": f"{ONE}|memory", "place": "memory", "prefix": "203.0.113.1/32"},
        {"key": ONE, "state": "ended"},
    ]
    for record in records if own_first else reversed(records):
        again.put(**record)
    again.end()
    again.turn(2)
    assert again.standing() == [ONE]


def test_an_end_that_is_read_late_loses_no_record(
    post: Post, passing: Callable[[float], None]
) -> None:
    """A record for everybody ran out before the end of the topic was read."""
    post.end()
    post.put(ONE, lease=600)
    post.turn()
    again = Post(post.path, post.backend)
    again.put(ONE, lease=5)
    again.put(f"{ONE}|memory", "ended", prefix="203.0.113.1/32", place="memory")
    again.turn()
    passing(10)
    again.turn()
    again.end()
    again.put(TWO)
    again.turn()
    assert again.standing() == [TWO]


def test_what_ended_while_the_enforcer_was_away_is_withdrawn(post: Post) -> None:
    post.end()
    post.put(ONE)
    post.turn()
    again = Post(post.path, post.backend)
    again.put(ONE, "ended")
    again.end()
    again.turn()
    assert again.standing() == []


def test_a_system_that_fails_is_told_once_and_tried_on(post: Post) -> None:
    post.end()
    post.put(ONE)
    post.backend.fail = BackendError("no answer")
    post.turn(5)
    assert [what for what, _key in post.told.said] == ["failed"]
    post.backend.fail = None
    post.it._due = 0.0
    post.turn()
    assert post.standing() == [ONE]


def test_without_a_snapshot_nothing_new_is_announced_and_the_old_still_ends(
    post: Post, passing: Callable[[float], None]
) -> None:
    post.end()
    post.put(ONE, lease=60)
    post.turn()
    post.it._reconciler._path = Path("/proc/nowhere/snapshot.json")
    post.put(TWO, lease=600)
    post.turn()
    assert post.standing() == [ONE]
    assert ("failed", None) in post.told.said
    passing(61)
    post.turn()
    assert post.standing() == []


def test_a_dry_run_touches_nothing_and_says_what_it_would_do(tmp_path: Path) -> None:
    post = Post(tmp_path / "snapshot.json", dry_run=True)
    post.end()
    post.put(ONE)
    post.turn()
    post.put(ONE, "ended")
    post.turn()
    assert post.backend.calls == []
    assert [what for what, key in post.told.said if key] == ["in-force", "withdrawn"]
    assert not post.path.exists()


def test_clocks_that_differ_much_are_told_once(tmp_path: Path) -> None:
    post = Post(tmp_path / "snapshot.json", ahead=-45.0)
    post.turn(3)
    assert [what for what, _key in post.told.said].count("failed") == 1


def test_a_snapshot_of_another_boot_has_no_leases_and_keeps_the_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, measure = tmp_path / "it.json", Measure(kind="blackhole", prefix="::1/128")
    snapshot.save(path, Snapshot({"key": Lease(measure, clock.now() + 60)}, 7))
    monkeypatch.setattr(snapshot.python_hook, "boot_id", lambda: "another")
    assert snapshot.load(path) == Snapshot({}, 7)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"version": 1}', "no json", '{"version": 2}']
)
def test_a_snapshot_that_is_none_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "it.json"
    path.write_text(text)
    with pytest.raises(snapshot.SnapshotError, match=r"it\.json"):
        snapshot.load(path)


def test_a_file_that_cannot_be_a_snapshot_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, large, deep = (tmp_path / name for name in ("pipe", "large", "deep"))
    os.mkfifo(pipe)  # without a writer, opening it waits for ever
    large.write_bytes(b" " * 101)
    monkeypatch.setattr(snapshot, "_MAX_BYTES", 100)
    for path in (pipe, large, tmp_path):
        with pytest.raises(snapshot.SnapshotError, match=path.name):
            snapshot.load(path)
    monkeypatch.setattr(snapshot, "_MAX_BYTES", 1_000_000)
    deep.write_bytes(b"[" * 200_000)
    with pytest.raises(snapshot.SnapshotError, match="deep"):
        snapshot.load(deep)


def test_a_lease_of_a_snapshot_with_another_key_is_an_error(tmp_path: Path) -> None:
    path, measure = tmp_path / "it.json", Measure(kind="blackhole", prefix="::1/128")
    snapshot.save(path, Snapshot({"another": Lease(measure, clock.now() + 60)}))
    with pytest.raises(snapshot.SnapshotError, match="another"):
        snapshot.load(path)


def test_no_lease_of_a_snapshot_is_longer_than_a_day(tmp_path: Path) -> None:
    path, measure = tmp_path / "it.json", Measure(kind="blackhole", prefix="::1/128")
    snapshot.save(path, Snapshot({measure.key: Lease(measure, 1e300)}))
    read = snapshot.load(path)
    assert read is not None
    assert read.leases[measure.key].ends <= clock.now() + DAY


def test_an_unreadable_snapshot_does_not_keep_an_enforcer_from_starting(
    tmp_path: Path,
) -> None:
    path = tmp_path / "it.json"
    path.write_text(json.dumps({"version": 99}))
    post = Post(path)
    post.end()
    post.put(ONE)
    post.turn()
    assert post.standing() == [ONE]


# Pause: a person withdraws everything at once, and only the mitigator resumes.


def test_a_pause_command_withdraws_everything_without_a_mitigator(post: Post) -> None:
    stray = Measure(kind="blackhole", prefix="203.0.113.9/32")
    post.end()
    post.put(ONE)
    post.turn()
    post.backend.standing[stray.key] = stray  # the mitigator does not know of it
    post.command("pause", 5)
    post.turn()
    assert post.standing() == []
    assert post.told.codes.count("pause") == 1
    post.put(ONE)  # a renewal by a mitigator that has not read the command
    post.put(TWO)
    post.turn(3)
    assert post.standing() == []
    assert post.count("paused") == 1


def test_a_pause_command_counts_before_the_topic_was_read(post: Post) -> None:
    post.end()
    post.put(ONE)
    post.turn()
    again = Post(post.path, post.backend)
    stray = Measure(kind="blackhole", prefix="203.0.113.9/32")
    again.backend.standing[stray.key] = stray
    again.command("pause", 5)
    again.turn()
    assert again.standing() == []


def test_only_a_record_that_answers_a_later_command_resumes(post: Post) -> None:
    post.end()
    post.put(ONE)
    post.command("pause", 5)
    post.turn()
    post.command("resume", 6)  # the enforcer leaves that to the mitigator
    post.turn()
    assert post.standing() == []
    post.resumed(4)  # answers a resume from before the pause
    post.turn()
    assert post.standing() == []
    post.paused(5)
    post.turn()
    post.resumed(6)
    post.turn()
    assert post.standing() == [ONE]


def test_the_record_of_a_pause_pauses_and_leases_run_on(
    post: Post, passing: Callable[[float], None]
) -> None:
    post.end()
    post.put(ONE, lease=60)
    post.put(TWO, lease=600)
    post.turn()
    post.paused(5)
    post.turn()
    assert post.standing() == []
    passing(61)
    post.resumed(6)
    post.turn()
    assert post.standing() == [TWO]


def test_a_command_that_was_answered_already_does_nothing(post: Post) -> None:
    post.end()
    post.put(ONE)
    post.resumed(6)
    post.turn()
    post.command("pause", 5, age=1.0)  # its thread was slower
    post.turn()
    assert post.standing() == [ONE]


def test_a_pause_counts_in_a_command_topic_that_was_created_again(post: Post) -> None:
    post.end()
    post.put(ONE)
    post.resumed(600)
    post.turn()
    post.command("pause", 0)
    post.turn()
    assert post.standing() == []
    post.resumed(1)
    post.turn()
    assert post.standing() == [ONE]


def test_a_restart_does_not_resume(post: Post) -> None:
    post.end()
    post.put(ONE)
    post.command("pause", 5)
    post.turn()
    again = Post(post.path, post.backend)
    again.put(ONE)
    again.end()
    again.turn(2)
    assert again.standing() == []
    again.resumed(6)
    again.turn()
    assert again.standing() == [ONE]


def test_an_old_pause_record_does_nothing_before_the_end_of_the_topic(
    post: Post,
) -> None:
    post.end()
    post.put(ONE)
    post.turn()
    again = Post(post.path, post.backend)
    again.paused(5)
    again.turn()
    assert again.standing() == [ONE]
    again.resumed(6)
    again.put(ONE)
    again.end()
    again.turn()
    assert again.standing() == [ONE]


def test_a_command_that_cannot_be_decoded_is_counted_and_ignored(post: Post) -> None:
    post.end()
    post.put(ONE)
    post.command(None, 5)
    post.turn()
    assert post.standing() == [ONE]
    assert post.count("unreadable_commands") == 1


@pytest.mark.parametrize("event", [None, Mitigation(key="pause", kind="blackhole")])
def test_a_pause_record_that_cannot_be_used_pauses(
    post: Post, event: Mitigation | None
) -> None:
    post.end()
    post.put(ONE)
    post.turn()
    post.record("pause", b"x", event)
    post.turn()
    assert post.standing() == []
    assert post.count("unreadable_records") == 1
    post.resumed(6)
    post.turn()
    assert post.standing() == [ONE]


@pytest.mark.parametrize("later", ["wanted", "ended"])
def test_of_two_pause_records_in_two_partitions_the_later_one_counts(
    post: Post, later: str
) -> None:
    earlier = "ended" if later == "wanted" else "wanted"
    post.put(ONE)
    post.put("pause", later, lease=0, age=5, prefix=None)
    post.partition = 1
    post.put("pause", earlier, lease=0, age=50, prefix=None)
    post.end()
    post.turn()
    assert post.standing() == ([] if later == "wanted" else [ONE])


def test_of_two_records_in_two_partitions_the_later_one_counts(post: Post) -> None:
    post.put(ONE, "ended", age=5)
    post.put(TWO, age=5)
    post.partition = 1
    post.put(ONE, "wanted", age=50)
    post.put(TWO, "ended", age=50)
    post.end()
    post.turn()
    assert post.standing() == [TWO]


@pytest.mark.parametrize("old_first", [True, False])
def test_a_key_that_moved_to_another_partition_is_not_ended_by_its_tombstone(
    post: Post, *, old_first: bool
) -> None:
    def old() -> None:
        post.partition = 0
        post.put(ONE, age=50)
        post.record(ONE, None, None, age=1)

    def moved() -> None:
        post.partition = 7
        post.put(ONE, age=20)

    for step in (old, moved) if old_first else (moved, old):
        step()
    post.end()
    post.turn()
    assert post.standing() == [ONE]


@pytest.fixture
def grown(post: Post) -> Post:
    """Return an enforcer of ONE and TWO whose topic got more partitions."""
    post.put(ONE, age=50)
    post.put(TWO, age=50)
    post.end()
    post.turn()
    post.grow()
    return post


def test_a_tombstone_that_is_read_before_the_moved_record_withdraws_nothing(
    grown: Post,
) -> None:
    grown.record(ONE, None, None, age=1)
    grown.turn()
    assert grown.standing() == [ONE, TWO]
    grown.partition = 7
    grown.put(ONE, age=20)
    grown.turn()
    grown.end()
    grown.turn()
    assert grown.standing() == [ONE, TWO]
    assert ("withdrawn", ONE) not in grown.told.said


def test_what_ended_in_a_topic_that_grew_is_withdrawn_when_all_was_read(
    grown: Post,
) -> None:
    grown.put(ONE, "ended", age=5)
    grown.record(TWO, None, None, age=1)
    grown.turn()
    assert grown.standing() == [ONE, TWO]
    grown.end()
    grown.turn()
    assert grown.standing() == []


def test_a_lease_ends_while_a_topic_that_grew_is_read(
    grown: Post, passing: Callable[[float], None]
) -> None:
    grown.turn()
    passing(11)
    grown.turn()
    assert grown.standing() == []


def test_a_topic_that_grew_ends_no_pause_before_all_was_read(post: Post) -> None:
    post.put(ONE)
    post.paused(3)
    post.end()
    post.turn()
    post.grow()
    post.record("pause", None, None)
    post.turn()
    assert post.standing() == []
    post.partition = 7
    post.paused(3)
    post.end()
    post.turn()
    assert post.standing() == []
    post.resumed(4)
    post.turn()
    assert post.standing() == [ONE]


def test_in_one_partition_the_order_counts_and_no_clock(post: Post) -> None:
    post.put(ONE, age=5)
    post.put(ONE, "ended", age=6)  # by another broker, whose clock is behind
    post.end()
    post.turn()
    assert post.standing() == []


def test_a_pause_ends_in_a_command_topic_that_was_created_again(post: Post) -> None:
    post.end()
    post.put(ONE)
    post.command("pause", 600, age=30)
    post.turn()
    again = Post(post.path, post.backend)
    again.put(ONE)
    again.end()
    again.turn()
    assert again.standing() == []
    again.command("resume", 1)
    again.turn()
    assert again.standing() == []  # the mitigator has not answered
    again.resumed(1)
    again.turn()
    assert again.standing() == [ONE]


def test_an_answer_that_comes_before_its_command_ends_such_a_pause(post: Post) -> None:
    post.end()
    post.put(ONE)
    post.command("pause", 600, age=30)
    post.turn()
    post.resumed(1)
    post.turn()
    assert post.standing() == []
    post.command("resume", 1, age=1)
    post.turn(2)
    assert post.standing() == [ONE]


def test_a_pause_stops_an_announcement_of_many(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "_BATCH", 1)

    class Slow(MemoryBackend):
        def announce(self, wanted: Sequence[DesiredMeasure]) -> None:
            super().announce(wanted)
            if len(self.standing) == 2:
                post.command("pause", 5)

    backend = Slow()
    post.it._reconciler._backend = post.backend = backend
    post.end()
    for number in range(10):
        post.put(f"blackhole|203.0.113.{number}/32")
    post.turn()
    assert sum(what == "announce" for what, _ in backend.calls) == 2
    post.turn()
    assert post.standing() == []


# Clocks: the wall clock of this machine decides nothing.


@pytest.mark.parametrize("ahead", [3 * DAY, -3 * DAY])
def test_a_wall_clock_days_apart_moves_no_end(
    tmp_path: Path, passing: Callable[[float], None], ahead: float
) -> None:
    post = Post(tmp_path / "snapshot.json", ahead=ahead)
    post.put(ONE, lease=60, age=50)
    post.put(TWO, lease=60, age=70)
    post.end()
    post.turn()
    assert post.standing() == [ONE]
    passing(9)
    post.turn()
    assert post.standing() == [ONE]
    passing(2)
    post.turn()
    assert post.standing() == []


@pytest.mark.parametrize("ahead", [3 * DAY, -3 * DAY])
def test_while_the_brokers_time_is_unknown_nothing_old_starts_or_ends(
    tmp_path: Path, passing: Callable[[float], None], ahead: float
) -> None:
    before = Post(tmp_path / "snapshot.json", ahead=ahead)
    before.end()
    before.put(ONE, lease=60)
    before.turn()
    passing(50)
    post = Post(before.path, before.backend, ahead=ahead, clock_known=False)
    post.put(ONE, lease=60, age=5)  # renewed meanwhile
    post.put(TWO, lease=60, age=58)
    post.end()
    post.turn()
    assert post.standing() == [ONE]  # by the snapshot
    post.learn()
    post.turn()
    assert post.standing() == [ONE, TWO]
    passing(3)
    post.turn()
    assert post.standing() == [ONE]
    passing(50)
    post.turn()
    assert post.standing() == [ONE]
    passing(3)
    post.turn()
    assert post.standing() == []


def test_an_old_record_never_gets_a_whole_lease(
    tmp_path: Path, passing: Callable[[float], None]
) -> None:
    post = Post(tmp_path / "snapshot.json", clock_known=False)
    post.put(ONE, lease=60, age=3600)
    post.end()
    post.turn(2)
    assert post.standing() == []
    post.put(TWO, lease=60)  # a live record: the broker's time is known now
    post.turn()
    assert post.standing() == [TWO]
    passing(61)
    post.turn()
    assert post.standing() == []


def test_a_stamp_from_the_future_gives_no_longer_lease(
    post: Post, passing: Callable[[float], None]
) -> None:
    post.end()
    post.put(ONE, lease=60, age=-3 * DAY)
    post.turn()
    passing(61)
    post.turn()
    assert post.standing() == []


def test_a_clock_that_is_corrected_brings_a_measure_back(post: Post) -> None:
    post.end()
    post.put(ONE, lease=60)
    post.turn()
    now = clock.now()
    wrong = post.broker_time() + 3 * DAY  # another broker, with a wrong clock
    post.clock.learn(now, now, wrong)
    post.turn()
    assert post.standing() == []
    post.learn()
    post.turn()
    assert post.standing() == [ONE]


def test_the_snapshot_is_not_written_for_every_answer_of_the_broker(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    post.end()
    post.put(ONE)
    post.turn()
    monkeypatch.setattr(snapshot, "save", lambda *_: pytest.fail("written again"))
    for _ in range(3):
        post.learn()
        post.turn()


# Guard: what an enforcer checks by itself.


@pytest.mark.parametrize(
    ("code", "key", "how"),
    [
        ("own_networks", "blackhole|198.51.100.1/32", {}),
        ("own_networks", "blackhole|203.0.112.0/23", {}),
        ("width", "blackhole|0.0.0.0/0", {}),
        ("lease", TWO, {"lease": DAY + 1}),
        ("lease", TWO, {"lease_ms": 2**62}),
        ("key", "blackhole|203.0.113.3/32", {"prefix": "203.0.113.2/32"}),
        ("prefix", "blackhole|203.0.113.2/24", {}),
        ("prefix", "blackhole|203.0.113.2", {}),
        ("prefix", "blackhole|nonsense", {}),
        ("form", "blackhole|None", {"prefix": None}),
    ],
)
def test_a_record_that_the_guard_refuses_stops_no_other(
    post: Post, code: str, key: str, how: Mapping[str, Any]
) -> None:
    post.end()
    post.put(key, **how)
    post.put(ONE)
    post.put(key, **how)
    post.turn(2)
    assert post.standing() == [ONE]
    assert post.told.codes.count(code) == 1
    assert post.count("refused", code) == 2
    assert post.count("failures") == 0


def test_a_refused_record_ends_what_an_earlier_one_wanted(post: Post) -> None:
    post.end()
    post.put(ONE)
    post.turn()
    post.put(ONE, lease=DAY + 1)
    post.turn()
    assert post.standing() == []


def test_a_record_that_fails_unexpectedly_stops_no_other(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = wanted_state.guard.check_record

    def broken(key: str, *rest: Any) -> Any:
        if key == TWO:
            raise RuntimeError("a bug")
        return check(key, *rest)

    monkeypatch.setattr("consumers.enforcers.guard.check_record", broken)
    post.end()
    post.put(TWO)
    post.put(ONE)
    post.turn()
    assert post.standing() == [ONE]
    assert post.count("refused", "unexpected") == 1


def test_ending_is_never_refused(post: Post) -> None:
    post.end()
    post.put(ONE)
    post.turn()
    post.put(ONE, "ended", lease=-5, prefix="nonsense")
    post.turn()
    assert post.standing() == []


def test_a_snapshot_is_checked_against_the_networks_of_today(post: Post) -> None:
    other = Measure(kind="blackhole", prefix="198.51.100.1/32")
    kept = Measure(kind="blackhole", prefix="203.0.113.1/32")
    leases = {it.key: Lease(it, clock.now() + 60) for it in (other, kept)}
    snapshot.save(post.path, Snapshot(leases))
    backend = MemoryBackend()
    backend.standing = {other.key: other}
    again = Post(post.path, backend)
    again.turn()
    assert again.standing() == [kept.key]


@pytest.mark.parametrize(
    "error", [ValueError("x"), RecursionError(), BackendError("x")]
)
def test_a_measure_that_a_backend_cannot_express_stops_no_other(
    post: Post, error: Exception
) -> None:
    class Picky(MemoryBackend):
        def form(self, measure: Measure) -> str:
            if measure.key == TWO:
                raise error
            return super().form(measure)

    post.it._reconciler._backend = post.backend = Picky()
    post.end()
    post.put(TWO)
    post.put(ONE)
    post.turn(3)
    assert post.standing() == [ONE]
    assert [it for it in post.told.said if it[1] == TWO] == [("failed", TWO)]


def test_a_measure_that_the_system_refuses_keeps_no_other_from_its_report(
    post: Post,
) -> None:
    class Refusing(MemoryBackend):
        def announce(self, wanted: Sequence[DesiredMeasure]) -> None:
            super().announce([it for it in wanted if it.measure.key != TWO])
            if len(wanted) > len(self.calls[-1][1]):
                raise BackendError("refused 1")

    post.it._reconciler._backend = post.backend = Refusing()
    post.end()
    post.put(TWO)
    post.put(ONE)
    post.turn(3)
    assert ("in-force", ONE) in post.told.said
    post.put(ONE, "ended")
    post.turn()
    assert post.standing() == []
    assert ("withdrawn", ONE) in post.told.said
    assert post.told.said.count(("failed", None)) == 1


def test_a_withdrawal_that_fails_prevents_no_announcement(post: Post) -> None:
    class Stuck(MemoryBackend):
        def withdraw(self, measures: Sequence[Measure]) -> None:
            raise BackendError(f"{len(measures)} stay")

    post.it._reconciler._backend = post.backend = Stuck()
    stray = Measure(kind="blackhole", prefix="203.0.113.9/32")
    post.backend.standing[stray.key] = stray
    post.end()
    post.put(ONE)
    post.turn()
    assert ONE in post.standing()


def test_a_turn_that_fails_unexpectedly_makes_it_unhealthy_and_goes_on(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enforcer_module, "_RETRY", 0.0)
    good = post.backend.active

    def broken() -> Mapping[Measure, ActiveMeasure]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(post.backend, "active", broken)
    post.end()
    post.put(ONE)
    post.it._turn_safely()
    assert not post.it.healthy()
    monkeypatch.setattr(post.backend, "active", good)
    post.it._turn_safely()
    assert post.it.healthy()
    assert post.standing() == [ONE]


def test_a_reader_that_ended_makes_it_unhealthy(post: Post) -> None:
    assert post.it.healthy()
    post.commands.healthy = False
    assert not post.it.healthy()
    assert post.it.facts()["command_reader"] is False


def test_lost_audit_records_are_counted(post: Post) -> None:
    post.told.lost = 3
    post.turn()
    post.told.lost = 5
    post.turn(2)
    assert post.count("lost_audit_records") == 5


def test_restarts_of_both_readers_are_counted(post: Post) -> None:
    post.topic.restarts = 1
    post.turn()
    post.commands.restarts = 2
    post.turn(2)
    assert post.count("reader_restarts") == 3


# Memory: growth, then flat.


def test_everything_remembered_is_bounded(
    post: Post, passing: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wanted_state, "_MAX_REFUSED", 500)
    monkeypatch.setattr("consumers.enforcers.lease_table.MAX_RECORDS", 1500)
    sizes = []
    post.end()
    for wave in range(60):
        for number in range(1000):
            host = f"2001:db8:1::{wave:x}:{number:x}/128"
            post.put(f"blackhole|{host}", lease=10)
            if number < 200:
                post.put(f"blackhole|2001:db8:2::{wave:x}:{number:x}/128")
        post.turn()
        state, keeper = post.it.state, post.it._reconciler
        held: list[Any] = [
            *(keeper.in_force, keeper._ours, keeper._unsupported),
            *(keeper.saved.leases, state._refused, state._leases._records),
            *(state._leases._restored, state._leases._ended),
        ]
        sizes.append([len(it) for it in held])
        post.told.said.clear()
        post.told.codes.clear()
        post.backend.calls.clear()
        passing(11)
    assert max(map(max, sizes)) <= 1500
    assert sizes[-1] == sizes[2]


def test_more_wanted_measures_than_fit_are_refused(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.enforcers.lease_table.MAX_RECORDS", 2)
    post.end()
    for number in range(5):
        post.put(f"blackhole|203.0.113.{number}/32")
    post.put("blackhole|203.0.113.0/32")  # a renewal has room
    post.turn()
    assert len(post.standing()) == 2
    assert post.count("refused", "too_many") == 3
