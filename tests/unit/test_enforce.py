"""What an enforcer does with its system, on a clock and a topic fed by hand."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from consumers.enforcers import snapshot
from consumers.enforcers.backend import BackendError, MemoryBackend
from consumers.enforcers.enforcer import Enforcer
from consumers.enforcers.snapshot import Lease, Snapshot
from consumers.enforcers.wanted_reader import End
from consumers.metrics import EnforcerMetrics
from consumers.mitigation import clock
from consumers.mitigation.measure import Measure
from fnm_bus.event import Mitigation
from fnm_bus.reader import Read

ONE, TWO = "blackhole|203.0.113.1/32", "blackhole|203.0.113.2/32"


class Topic:
    """Stands in for `WantedStateReader`: gives what a test puts."""

    def __init__(self) -> None:
        self.found: list[Any] = []

    def take(self, _timeout: float) -> list[Any]:
        found, self.found = self.found, []
        return found


class Told:
    """Stands in for `AuditPublisher`: remembers what was told."""

    def __init__(self) -> None:
        self.skew: float | None = None
        self.said: list[tuple[str, str | None]] = []

    def tell(
        self, what: str, _text: str, *, key: str | None = None, dry_run: bool = False
    ) -> None:
        del dry_run
        self.said.append((what, key))

    def poll(self) -> None:
        pass

    def broker_time(self) -> datetime:
        return datetime.now(UTC)


class Post:
    """One enforcer with a system of memory."""

    def __init__(
        self, path: Path, backend: MemoryBackend | None = None, *, dry_run: bool = False
    ) -> None:
        self.backend = backend or MemoryBackend()
        self.topic, self.told = Topic(), Told()
        self.path = path
        self.metrics = EnforcerMetrics()
        self.it = Enforcer(
            backend=self.backend,
            watching=self.topic,  # type: ignore[arg-type]  # all of it that is used
            report=self.told,  # type: ignore[arg-type]  # as above
            path=path,
            interval=0.0,
            max_clock_skew=30.0,
            dry_run=dry_run,
            metrics=self.metrics,
        )
        self.it._restore()

    def put(
        self, key: str, state: str = "wanted", lease: float = 60.0, **how: Any
    ) -> None:
        kind, _, prefix = key.partition("|")
        it = Mitigation(
            key=key,
            kind=kind,
            state=state,
            prefix=prefix,
            lease_ms=round(lease * 1000),
            **how,
        )
        self.record(key, b"x", it)

    def record(self, key: str, value: bytes | None, event: Mitigation | None) -> None:
        at = datetime.now(UTC)
        self.topic.found.append(
            Read("mitigation", 0, 0, at, key.encode(), (), value, event, "broken")
        )

    def end(self) -> None:
        self.topic.found.append(End())

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.it.turn()

    def standing(self) -> list[str]:
        return sorted(self.backend.standing)


@pytest.fixture
def post(tmp_path: Path) -> Post:
    return Post(tmp_path / "snapshot.json")


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let the clock of leases go forward."""
    start, passed = clock.now(), [0.0]
    monkeypatch.setattr(clock, "now", lambda: start + passed[0])
    monkeypatch.setattr(snapshot, "now", lambda: start + passed[0])

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
    [{"dry_run": True}, {"enforcers": ("nftables",)}],
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
    assert post.metrics.broken.labels("memory")._value.get() == 1


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
    post.it.path = Path("/proc/nowhere/snapshot.json")
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


def test_clocks_that_differ_much_are_told_once(post: Post) -> None:
    post.told.skew = 45.0
    post.turn(3)
    assert [what for what, _key in post.told.said].count("failed") == 1


def test_a_snapshot_of_another_boot_ends_no_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, measure = tmp_path / "it.json", Measure(kind="blackhole", prefix="::1/128")
    lease = Lease(measure, clock.now() + 60)
    snapshot.save(path, Snapshot({"key": lease}))
    monkeypatch.setattr(snapshot.hook, "boot_id", lambda: "another")
    found = snapshot.load(path)
    assert found is not None
    assert clock.now() < found.leases["key"].ends <= lease.ends + 0.1


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"version": 2}', "no json", '{"version": 1}']
)
def test_a_snapshot_that_is_none_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "it.json"
    path.write_text(text)
    with pytest.raises(snapshot.SnapshotError, match=r"it\.json"):
        snapshot.load(path)


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
