from fnm_bus.relay.topic_queue import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    PendingEntry,
    TopicQueue,
)


def entries(count: int) -> list[PendingEntry]:
    return [PendingEntry(rank, f"entry-{rank}", None, size=10) for rank in range(count)]


def test_a_queue_has_no_room_at_the_most_records() -> None:
    queue = TopicQueue(max_records=2, max_bytes=1000)
    first, second = entries(2)
    queue.sent(first)
    assert queue.has_room()
    queue.sent(second)
    assert not queue.has_room()
    queue.acknowledged(first)
    assert queue.has_room()


def test_a_queue_has_no_room_at_the_most_bytes() -> None:
    queue = TopicQueue(max_records=100, max_bytes=15)
    first, second = entries(2)
    queue.sent(first)
    assert queue.has_room()
    queue.sent(second)
    assert not queue.has_room()


def test_a_failed_queue_has_no_room_until_the_pause_ends() -> None:
    queue = TopicQueue(10, 1000)
    (entry,) = entries(1)
    queue.sent(entry)
    queue.acknowledged(entry)
    queue.retry_later(entry, now=100.0)
    assert queue.is_backing_off
    assert not queue.has_room()
    assert queue.release_due(100.0 + FIRST_PAUSE / 2) == 0
    assert queue.release_due(100.0 + FIRST_PAUSE) == 1
    assert list(queue.waiting) == [entry]
    assert queue.has_room()


def test_no_retry_while_a_newer_record_is_in_flight() -> None:
    queue = TopicQueue(10, 1000)
    old, young = entries(2)
    queue.sent(old)
    queue.sent(young)
    queue.acknowledged(old)
    queue.retry_later(old, now=0.0)
    assert queue.release_due(3600.0) == 0
    queue.acknowledged(young)
    assert queue.release_due(3600.0) == 1


def test_after_a_failure_one_record_is_sent_alone() -> None:
    queue = TopicQueue(10, 1000)
    first, second = entries(2)
    queue.retry_later(first, now=0.0)
    queue.release_due(3600.0)
    queue.sent(first)
    assert not queue.has_room()
    queue.acknowledged(first)
    queue.reset_backoff()
    queue.sent(second)
    assert queue.has_room()


def test_failed_entries_are_released_first_and_in_order() -> None:
    queue = TopicQueue(10, 1000)
    first, second, third = entries(3)
    queue.waiting.append(third)
    for entry in (second, first):
        queue.retry_later(entry, now=0.0)
    queue.release_due(3600.0)
    assert list(queue.waiting) == [first, second, third]


def test_pauses_double_to_the_longest_and_restart_after_success() -> None:
    queue = TopicQueue(10, 1000)
    (entry,) = entries(1)
    pauses, now = [], 0.0
    for _ in range(10):
        queue.retry_later(entry, now)
        start = now
        while not queue.release_due(now):
            now += FIRST_PAUSE
        pauses.append(now - start)
        queue.waiting.clear()
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE
    queue.reset_backoff()
    queue.retry_later(entry, now)
    assert queue.release_due(now + FIRST_PAUSE) == 1


def test_coalescing_keeps_the_newest_status_of_each_attack() -> None:
    queue = TopicQueue(10, 1000)
    a1, b1, ban, a2, a3 = entries(5)
    a1.attack = a2.attack = a3.attack = ("192.0.2.1", "uuid-a")
    b1.attack = ("192.0.2.2", "uuid-b")
    queue.waiting.extend([a1, b1, ban, a2, a3])
    assert queue.coalesce_status() == [a1, a2]
    assert list(queue.waiting) == [b1, ban, a3]
    assert queue.coalesce_status() == []


def test_a_queue_without_entries_is_idle() -> None:
    queue = TopicQueue(10, 1000)
    (entry,) = entries(1)
    assert queue.is_idle
    queue.waiting.append(entry)
    assert not queue.is_idle
    queue.waiting.clear()
    queue.sent(entry)
    assert not queue.is_idle
    queue.acknowledged(entry)
    queue.retry_later(entry, 0.0)
    assert not queue.is_idle
