"""kcat: keys, headers and bytes, as any client gets them.

Debian's kcat is built without Avro.
"""

import shutil
import subprocess

import pytest
from support.reader_topics import ReaderTopics

Shown = tuple[bytes | None, tuple[tuple[str, bytes], ...], bytes]


def kcat(kafka: str, topic: str, form: str) -> bytes:
    program = shutil.which("kcat") or shutil.which("kafkacat")
    if program is None:
        pytest.skip("kcat is not installed")
    return subprocess.run(
        [program, "-C", "-q", "-e", "-b", kafka, "-t", topic, "-f", form],
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout


def test_kcat_shows_key_headers_and_value_as_they_were_sent(
    reader_topics: ReaderTopics,
) -> None:
    for topic in {entry.record.topic for entry in reader_topics.sent}:
        sent = {
            (entry.record.key, tuple(entry.record.headers), entry.record.value)
            for entry in reader_topics.sent
            if entry.record.topic == topic
        }
        # Sizes before the parts: a value may hold any byte.
        shown = kcat(reader_topics.kafka, topic, "%K %S %h\\n%k%s")
        assert set(records(shown)) == sent


def records(shown: bytes) -> list[Shown]:
    """Return the records in kcat's output."""
    parsed = []
    while shown:
        head, _, rest = shown.partition(b"\n")
        key_size, size, headers = head.split(b" ", 2)
        start = max(0, int(key_size))  # -1: the record has no key
        end = start + int(size)
        pairs = (pair.split("=", 1) for pair in headers.decode().split(","))
        parsed.append(
            (
                None if key_size == b"-1" else rest[:start],
                tuple((name, value.encode()) for name, value in pairs),
                rest[start:end],
            )
        )
        shown = rest[end:]
    return parsed
