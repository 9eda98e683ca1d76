from fnm_bus.relay.topic_queue import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    PendingEntry,
    TopicQueue,
)


def items(count: int) -> list[PendingEntry]:
    return [PendingEntry(rank, f"entry-{rank}", None, size=10) for rank in range(count)]


def test_room_ends_with_the_most_records() -> None:
    gate = TopicQueue(max_records=2, max_bytes=1000)
    first, second = items(2)
    gate.left(first)
    assert gate.has_room()
    gate.left(second)
    assert not gate.has_room()
    gate.answered(first)
    assert gate.has_room()


def test_room_ends_with_the_most_bytes() -> None:
    gate = TopicQueue(max_records=100, max_bytes=15)
    first, second = items(2)
    gate.left(first)
    assert gate.has_room()
    gate.left(second)
    assert not gate.has_room()


def test_a_failure_closes_the_gate_until_the_pause_is_over() -> None:
    gate = TopicQueue(10, 1000)
    (item,) = items(1)
    gate.left(item)
    gate.answered(item)
    gate.failed(item, now=100.0)
    assert gate.blocked()
    assert not gate.has_room()
    assert gate.reopen(100.0 + FIRST_PAUSE / 2) == 0
    assert gate.reopen(100.0 + FIRST_PAUSE) == 1
    assert list(gate.waiting) == [item]
    assert gate.has_room()


def test_nothing_is_tried_again_while_a_younger_one_is_in_flight() -> None:
    gate = TopicQueue(10, 1000)
    old, young = items(2)
    gate.left(old)
    gate.left(young)
    gate.answered(old)
    gate.failed(old, now=0.0)
    assert gate.reopen(3600.0) == 0
    gate.answered(young)
    assert gate.reopen(3600.0) == 1


def test_after_a_failure_one_goes_alone_until_it_is_taken() -> None:
    gate = TopicQueue(10, 1000)
    first, second = items(2)
    gate.failed(first, now=0.0)
    gate.reopen(3600.0)
    gate.left(first)
    assert not gate.has_room()
    gate.answered(first)
    gate.succeeded()
    gate.left(second)
    assert gate.has_room()


def test_what_failed_goes_first_and_in_its_order() -> None:
    gate = TopicQueue(10, 1000)
    first, second, third = items(3)
    gate.waiting.append(third)
    for item in (second, first):
        gate.failed(item, now=0.0)
    gate.reopen(3600.0)
    assert list(gate.waiting) == [first, second, third]


def test_pauses_double_up_to_the_longest_and_start_again_after_success() -> None:
    gate = TopicQueue(10, 1000)
    (item,) = items(1)
    pauses, now = [], 0.0
    for _ in range(10):
        gate.failed(item, now)
        start = now
        while not gate.reopen(now):
            now += FIRST_PAUSE
        pauses.append(now - start)
        gate.waiting.clear()
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE
    gate.succeeded()
    gate.failed(item, now)
    assert gate.reopen(now + FIRST_PAUSE) == 1


def test_thinning_keeps_the_newest_status_of_each_attack() -> None:
    gate = TopicQueue(10, 1000)
    a1, b1, ban, a2, a3 = items(5)
    a1.attack = a2.attack = a3.attack = ("192.0.2.1", "uuid-a")
    b1.attack = ("192.0.2.2", "uuid-b")
    gate.waiting.extend([a1, b1, ban, a2, a3])
    assert gate.thin() == [a1, a2]
    assert list(gate.waiting) == [b1, ban, a3]
    assert gate.thin() == []


def test_a_gate_is_idle_when_nothing_is_left_to_do() -> None:
    gate = TopicQueue(10, 1000)
    (item,) = items(1)
    assert gate.idle
    gate.waiting.append(item)
    assert not gate.idle
    gate.waiting.clear()
    gate.left(item)
    assert not gate.idle
    gate.answered(item)
    gate.failed(item, 0.0)
    assert not gate.idle
