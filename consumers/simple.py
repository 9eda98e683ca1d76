"""Simple: a consumer of one's own without further ado; consumers/README.md shows it."""

from collections.abc import Callable, Sequence

from consumers import build
from fnm_bus import build as bus
from fnm_bus.consume.loop import ConsumerLoop
from fnm_bus.consume.metrics import ConsumeMetrics
from fnm_bus.errors import ConfigError
from fnm_bus.event import AnyRecord
from fnm_bus.kafka.publisher import SERVICE_PRODUCER, KafkaPublisher
from fnm_bus.kafka.reader import ConsumedRecord
from fnm_bus.kafka.route import Topics


def consume(
    group: str,
    handler: Callable[[AnyRecord], None],
    topics: Sequence[str] = ("host",),
) -> None:
    """Call *handler* with each event until SIGTERM or Ctrl-C.

    An event counts as done when *handler* returns. When it raises, the event is tried
    again, and is a dead letter after a few failures; `RetryLater` waits.
    Figures and health are served as for every consumer (`[consumers] metrics_port`).

    Args:
        group: name of the consumer group; several processes of one group share.
        handler: called with each event, at least once.
        topics: host, hostgroup, status, mitigation, command, audit or deadletter.

    Raises:
        ConfigError: the configuration (FNM_BUS_CONFIG, else /etc) is wrong, or there
            is no such topic.
        TopicRefused: a topic does not exist, or must not be read.
    """
    settings = build.settings(None)
    names, kafka = bus.topic_names(settings), bus.kafka_settings(settings)
    publisher = KafkaPublisher(kafka, SERVICE_PRODUCER)
    metrics = ConsumeMetrics()

    def handle(read: ConsumedRecord) -> None:
        if read.event is not None:
            handler(read.event)

    loop = ConsumerLoop(
        kafka,
        group,
        [_named(names, kind) for kind in topics],
        bus.build_reading_codec(settings),
        handle,
        deadletter_topic=names.deadletter,
        publisher=publisher,
        metrics=metrics,
        max_attempts=settings.consumers.max_attempts,
    )
    # The handler decides about its actions: no dry run here.
    live = settings.model_copy(update={"dry_run": False})
    try:
        build.serve(live, loop, metrics.registry(), loop.facts, loop.healthy)
    finally:
        publisher.close()


def _named(names: Topics, kind: str) -> str:
    if kind not in Topics.__dataclass_fields__:
        wanted = ", ".join(Topics.__dataclass_fields__)
        raise ConfigError(f"topics: wanted some of {wanted}, got {kind!r}")
    return str(getattr(names, kind))
