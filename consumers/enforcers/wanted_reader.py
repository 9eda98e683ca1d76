"""WantedStateReader: the mitigation topic, read in a thread of its own.

An enforcer counts leases whatever Kafka does, so nothing of Kafka's may make it wait.
"""

import logging
import queue
import threading
from collections.abc import Mapping
from typing import Final, NamedTuple

from fnm_bus.codec import Codec
from fnm_bus.errors import BrokerUnavailable, ConfigError, TopicRefused
from fnm_bus.reader import Read, Reader

log = logging.getLogger(__name__)

_AT_ONCE: Final = 5000
_PAUSE: Final = 1.0


class End(NamedTuple):
    """The end of every partition was seen."""


class Failed(NamedTuple):
    """Reading cannot go on at all."""

    error: ConfigError


class WantedStateReader:
    """Reads a whole topic, and all that comes after.

    Args:
        settings: librdkafka's settings.
        topic: what is read.
        codec: decodes it.
    """

    def __init__(self, settings: Mapping[str, str], topic: str, codec: Codec) -> None:
        self._settings = settings
        self._topic = topic
        self._codec = codec
        self._found: queue.Queue[Read | End | Failed] = queue.Queue(_AT_ONCE)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to read, from the beginning."""
        self._thread.start()

    def take(self, timeout: float) -> list[Read | End]:
        """Return what was found, after up to *timeout* seconds when nothing is there.

        Raises:
            ConfigError: librdkafka refuses the settings.
        """
        found: list[Read | End] = []
        try:
            one = self._found.get(timeout=timeout)
            while True:
                if isinstance(one, Failed):
                    raise one.error
                found.append(one)
                if len(found) >= _AT_ONCE:
                    break
                one = self._found.get_nowait()
        except queue.Empty:
            pass  # that was all for now
        return found

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._read()
            except (BrokerUnavailable, TopicRefused) as exc:
                log.warning("the wanted state cannot be read now: %s", exc)
                self._stopping.wait(_PAUSE)
            except ConfigError as exc:
                self._put(Failed(exc))
                return

    def _read(self) -> None:
        reader = Reader(self._settings, [self._topic], self._codec, from_beginning=True)
        with reader:
            told = False
            while not self._stopping.is_set():
                for it in reader.read(0.5):
                    self._put(it)
                if reader.at_end and not told:
                    self._put(End())
                    told = True

    def _put(self, one: Read | End | Failed) -> None:
        while not self._stopping.is_set():
            try:
                self._found.put(one, timeout=0.5)
            except queue.Full:
                continue  # the enforcer is busy; Kafka keeps the rest
            return
