"""The order of sequences across reboots, restarts and clock jumps."""

import json
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnm_bus.errors import SpoolError
from fnm_bus.spool import sequence as sequences
from fnm_bus.spool.sequence import PID_BITS, BootEpochs

LARGEST = 2**53 - 1
"""The largest integer of JavaScript and jq."""
OLD, NOW, NEXT, LONG_AGO = ("a" * 32, "b" * 32, "c" * 32, "d" * 32)


def name(boot: str, ticks: int, pid: int = 7, random: int = 0) -> str:
    return f"{boot}-{ticks:012d}-{pid:07d}-{random:08x}"


def at(seconds: float) -> "dict[str, float]":
    class Always(dict[str, float]):
        def __missing__(self, _key: str) -> float:
            return seconds

    return Always()


class Sensor:
    """A sensor's epochs, with reboots."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.uptime = 10**11
        self.boot(NOW)

    def boot(self, boot: str) -> None:
        self.epochs = BootEpochs(self.path, boot, lambda: self.uptime)

    def see(self, *names: str, seconds: float = 1_000_000.0) -> list[int]:
        listed = list(names)
        self.epochs.sort(listed, at(seconds).__getitem__)
        return [self.epochs.sequence(name) for name in names]


@pytest.fixture
def sensor(tmp_path: Path) -> Sensor:
    return Sensor(tmp_path / "epochs.json")


def test_calls_of_a_boot_sort_by_ticks_and_pids(sensor: Sensor) -> None:
    given_out = sensor.see(
        name(NOW, 1, 9), name(NOW, 2, 3), name(NOW, 2, 4), name(NOW, 30, 1)
    )
    assert given_out == sorted(set(given_out))


def test_a_sequence_is_exact_in_javascript_and_follows_the_clock(
    sensor: Sensor,
) -> None:
    (number,) = sensor.see(name(NOW, 50), seconds=1_795_000_000)
    assert number >> PID_BITS == (1_795_000_000 - 1_735_689_600) * 100
    assert number < LARGEST


def test_a_clock_of_the_year_40000_leaves_room_above(sensor: Sensor) -> None:
    (mad,) = sensor.see(name(NOW, 50), seconds=1.2e12)
    sensor.boot(NEXT)
    (later,) = sensor.see(name(NEXT, 10), seconds=1_795_000_000)
    assert mad < later < (1 << 53) - (1 << 51)


def test_a_clock_of_1970_leaves_room_for_earlier_boots(sensor: Sensor) -> None:
    (now,) = sensor.see(name(NOW, 50), seconds=60)
    (old,) = sensor.see(name(OLD, 9_000_000), seconds=1_795_000_000)
    assert 0 < old < now


@settings(deadline=None)  # syncs files
@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from([OLD, NOW, NEXT, "0" * 32, "0" * 20 + "9" * 12]),
            st.integers(0, 10**11 - 1),
            st.integers(0, 9_999_999),
            st.floats(-1e15, 1e15),
        ),
        min_size=1,
    )
)
def test_every_sequence_is_in_the_range_of_an_event(
    tmp_path_factory: pytest.TempPathFactory,
    calls: list[tuple[str, int, int, float]],
) -> None:
    sensor = Sensor(tmp_path_factory.mktemp("epochs") / "epochs.json")
    for boot, ticks, pid, seconds in calls:
        (number,) = sensor.see(name(boot, ticks, pid), seconds=seconds)
        assert 0 <= number <= LARGEST


def test_boots_made_by_hand_leave_room_above(sensor: Sensor) -> None:
    made = [name("e" * 31 + f"{digit}", 99_999_999_999) for digit in range(8)]
    sensor.see(*made, seconds=1_795_000_000)
    first, second = sensor.see(name(NOW, 10), name(NOW, 11), seconds=1_795_000_000)
    assert first < second < (1 << 53) - (1 << 51)


def test_ticks_beyond_the_uptime_count_as_the_uptime(sensor: Sensor) -> None:
    """Such a call is from a time namespace, or has a name made by hand."""
    sensor.uptime = 1_000
    (first, ahead) = sensor.see(name(NOW, 999), name(NOW, 10**9))
    assert (ahead - first) >> PID_BITS == 1
    sensor.uptime = 1_002
    (now, later) = sensor.see(name(NOW, 1_001), name(NOW, 10**9 + 5))
    assert first < ahead < now < later


def test_ticks_beyond_the_uptime_do_not_move_a_new_base(sensor: Sensor) -> None:
    sensor.uptime = 1_000
    (number,) = sensor.see(name(NOW, 10**11 - 1), seconds=1_795_000_000)
    assert number >> PID_BITS == (1_795_000_000 - 1_735_689_600) * 100


def test_ticks_beyond_the_uptime_use_up_no_room_above(sensor: Sensor) -> None:
    sensor.uptime = 1_000
    sensor.see(name(NOW, 5), name(NOW, 10**11 - 1), seconds=1_795_000_000)
    sensor.boot(NEXT)
    (after,) = sensor.see(name(NEXT, 0), seconds=1_795_000_600)
    assert after >> PID_BITS == (1_795_000_600 - 1_735_689_600) * 100


def test_ticks_beyond_the_uptime_stay_below_the_next_boot(sensor: Sensor) -> None:
    sensor.uptime = 1_000
    sensor.see(name(NOW, 10**9))
    sensor.uptime = 10**6
    before = sensor.epochs.sequence(name(NOW, 10**9))
    sensor.boot(NEXT)
    (after,) = sensor.see(name(NEXT, 0), seconds=0)
    assert before < after


def test_the_time_for_many_boots_is_linear(sensor: Sensor) -> None:
    """Otherwise names made by hand would block the relay until its watchdog ends it."""

    def seconds(count: int, digit: str) -> float:
        names = [name(f"{digit * 24}{number:08x}", 5) for number in range(count)]
        before = process_time()
        sensor.see(*names)
        return process_time() - before

    sensor.see(name(NOW, 5))
    few = min(seconds(2_000, digit) for digit in "123")
    assert seconds(16_000, "4") < 4 * 8 * few


def test_the_file_keeps_a_limited_number_of_boots(
    sensor: Sensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise names of invented boots would fill the disk."""
    monkeypatch.setattr(sequences, "_MAX_BOOTS", 4)
    (now,) = sensor.see(name(NOW, 5))
    names = [name(digit * 32, 5) for digit in "123456789"]
    before = [sensor.see(entry)[0] for entry in names]
    assert sensor.see(*names) == before
    boots = json.loads(sensor.path.read_bytes())["boots"]
    assert len(boots) == 4
    sensor.boot(NOW)
    assert sensor.see(name(NOW, 5)) == [now]


def test_a_name_made_by_hand_is_saved_once(sensor: Sensor) -> None:
    """Each change of the epochs is synced to disk."""
    sensor.see(name(OLD, 5))
    sensor.see(name(OLD, 99_999_999_999))
    written = sensor.path.stat().st_mtime_ns
    sensor.see(name(OLD, 99_999_999_999))
    assert sensor.path.stat().st_mtime_ns == written


def test_a_sequence_is_the_same_after_a_reboot(sensor: Sensor) -> None:
    sensor.see(name(OLD, 5), seconds=1.2e12)  # pushes later boots above the ceiling
    (before,) = sensor.see(name(NOW, 9_000_000))
    sensor.boot(NEXT)
    assert sensor.see(name(NOW, 9_000_000)) == [before]


def test_a_reboot_does_not_lower_the_sequence(sensor: Sensor) -> None:
    (before,) = sensor.see(name(NOW, 9_000_000))
    sensor.boot(NEXT)
    (after,) = sensor.see(name(NEXT, 5))
    assert before < after


@pytest.mark.parametrize("jump", [-3_600, -(10**9), 0, 3_600])
def test_a_clock_jump_does_not_reverse_boots(sensor: Sensor, jump: float) -> None:
    (before,) = sensor.see(name(NOW, 9_000_000), seconds=1_795_000_000)
    sensor.boot(NEXT)
    (after,) = sensor.see(name(NEXT, 5), seconds=1_795_000_060 + jump)
    assert before < after


def test_several_boots_sort_by_their_time(sensor: Sensor) -> None:
    times = {LONG_AGO: 1_000.0, OLD: 2_000.0, NOW: 3_000.0}
    names = [name(NOW, 5), name(OLD, 100), name(LONG_AGO, 300), name(OLD, 7)]
    sensor.epochs.sort(names, lambda entry: times[entry[:32]])
    assert names == [
        name(LONG_AGO, 300),
        name(OLD, 7),
        name(OLD, 100),
        name(NOW, 5),
    ]


def test_an_earlier_boot_stays_below_the_running_one(sensor: Sensor) -> None:
    (now,) = sensor.see(name(NOW, 5), seconds=2_000_000)
    (old,) = sensor.see(name(OLD, 10**9), seconds=9_000_000)
    assert old < now


def test_an_entry_has_the_same_sequence_after_a_restart(sensor: Sensor) -> None:
    names = (name(NOW, 5), name(OLD, 7), name(NOW, 80_000))
    first = sensor.see(*names, seconds=5_000)
    sensor.boot(NOW)
    assert sensor.see(*names, seconds=99_999) == first
    sensor.boot(NEXT)
    assert sensor.see(name(NEXT, 1), *names, seconds=1)[1:] == first


def test_sequences_before_a_crash_are_below_the_next_boot(sensor: Sensor) -> None:
    highest = 0
    for ticks in range(0, 100_000, 1_777):
        (highest,) = sensor.see(name(NOW, ticks))
    # Without a close or flush: the next boot has only the file.
    sensor.boot(NEXT)
    (after,) = sensor.see(name(NEXT, 0), seconds=0)
    assert after > highest


def test_the_file_is_written_at_most_once_a_minute(sensor: Sensor) -> None:
    sensor.see(name(NOW, 0))
    before = sensor.path.stat().st_ino
    for ticks in range(0, 6_000, 100):
        sensor.see(name(NOW, ticks))
    assert sensor.path.stat().st_ino == before
    sensor.see(name(NOW, 6_001))
    assert sensor.path.stat().st_ino != before


def test_calls_of_a_tick_sort_by_whole_pids(sensor: Sensor) -> None:
    names = [name(NOW, 5, 16_384), name(NOW, 5, 16_383), name(OLD, 5, 7)]
    sensor.epochs.sort(names, at(1.0).__getitem__)
    assert names == [name(OLD, 5, 7), name(NOW, 5, 16_383), name(NOW, 5, 16_384)]


def test_calls_without_proc_sort_by_the_clock(sensor: Sensor) -> None:
    hidden = "0" * 20 + f"{179_500_000_000:012d}"
    names = (name(hidden, 10), name(hidden, 20), name(NOW, 5))
    given_out = sensor.see(*names, seconds=1_795_000_001)
    assert given_out == sorted(given_out)
    assert json.loads(sensor.path.read_text())["boots"].keys() == {NOW}


def test_calls_without_proc_sort_by_a_clock_of_1970(sensor: Sensor) -> None:
    names = [name("0" * 32, ticks) for ticks in (1_000, 1_001, 8_640_000)]
    given_out = sensor.see(*names, name(NOW, 5))
    assert given_out == sorted(set(given_out))


@pytest.mark.parametrize("end", ["abcdef012345", "00000000000a"])
def test_a_boot_id_that_begins_with_zeros_has_a_sequence(
    sensor: Sensor, end: str
) -> None:
    (number,) = sensor.see(name("0" * 20 + end, 5))
    assert 0 < number < LARGEST


def test_an_unknown_boot_has_no_sequence(sensor: Sensor) -> None:
    with pytest.raises(SpoolError, match="scan the spool first"):
        sensor.epochs.sequence(name(NOW, 1))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"boots": {"a": 1}}', "\0", '{"boots": []}']
)
def test_a_damaged_file_is_an_error(sensor: Sensor, text: str) -> None:
    sensor.path.write_text(text)
    with pytest.raises(SpoolError, match="backup"):
        sensor.see(name(NOW, 1))


def test_an_unwritable_file_does_not_stop_draining(tmp_path: Path) -> None:
    sensor = Sensor(tmp_path / "absent" / "epochs.json")
    first = sensor.see(name(NOW, 1))
    assert "absent" in sensor.epochs.write_error
    (tmp_path / "absent").mkdir()
    assert sensor.see(name(NOW, 1)) == first
    assert sensor.epochs.write_error == ""
    sensor.boot(NOW)
    assert sensor.see(name(NOW, 1), seconds=7) == first


@settings(deadline=None)  # syncs files
@given(
    calls=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 1 << 22)), min_size=1),
    parts=st.integers(1, 5),
)
def test_calls_in_any_order_of_arrival_sort_by_ticks(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[int, int]], parts: int
) -> None:
    sensor = Sensor(tmp_path_factory.mktemp("epochs") / "epochs.json")
    names = [name(NOW, ticks, pid) for ticks, pid in calls]
    given_out: dict[str, int] = {}
    for part in range(parts):
        some = names[part::parts]
        given_out |= dict(zip(some, sensor.see(*some), strict=True))
        for entry, number in given_out.items():
            assert sensor.epochs.sequence(entry) == number
    ticks = {entry: int(entry[33:45]) for entry in names}
    for entry in names:
        for other in names:
            if ticks[entry] < ticks[other] - 1:
                assert given_out[entry] < given_out[other]
