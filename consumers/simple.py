"""Simple: a consumer of one's own without further ado; consumers/README.md shows it."""

import signal
from collections.abc import Callable, Sequence

from consumers import wiring
from fnm_bus import wiring as bus
from fnm_bus.consume import Loop
from fnm_bus.event import AnyRecord
from fnm_bus.publish import LASTING, KafkaPublisher
from fnm_bus.reader import Read


def consume(
    group: str,
    handler: Callable[[AnyRecord], None],
    topics: Sequence[str] = ("host",),
) -> None:
    """Call *handler* with each event until SIGTERM or Ctrl-C.

    An event counts as done when *handler* returns. When it raises, the event is tried
    again, and is a dead letter after a few failures; `fnm_bus.handling.TryLater` waits.

    Args:
        group: name of the consumer group; several processes of one group share.
        handler: called with each event, at least once.
        topics: host, hostgroup, status, mitigation, command, audit or deadletter.

    Raises:
        ConfigError: the configuration (FNM_BUS_CONFIG, else /etc) is wrong.
        TopicRefused: a topic does not exist, or must not be read.
    """
    settings = wiring.settings(None)
    names, kafka = bus.topics(settings), bus.kafka(settings)
    publisher = KafkaPublisher(kafka, LASTING)

    def handle(read: Read) -> None:
        if read.event is not None:
            handler(read.event)

    loop = Loop(
        kafka,
        group,
        [getattr(names, kind) for kind in topics],
        bus.reading_codec(settings),
        handle,
        deadletter_topic=names.deadletter,
        publisher=publisher,
        attempts=settings.consumers.attempts,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: loop.stop())
    try:
        loop.run()
    finally:
        publisher.close()
