"""A consumer of your own in a few lines; consumers/README.md has an example."""

from collections.abc import Callable, Sequence

from consumers import build
from fnm_bus import build as bus
from fnm_bus.consume.loop import ConsumerLoop
from fnm_bus.consume.metrics import ConsumeMetrics
from fnm_bus.errors import ConfigError
from fnm_bus.event import AnyRecord
from fnm_bus.kafka.addressing import Topics
from fnm_bus.kafka.publisher import SERVICE_PRODUCER, KafkaPublisher
from fnm_bus.kafka.reader import ConsumedRecord


def consume(
    group: str,
    handler: Callable[[AnyRecord], None],
    topics: Sequence[str] = ("host",),
) -> None:
    """Call *handler* with each event until SIGTERM or Ctrl-C.

    An event is done when *handler* returns. If *handler* raises, the event is tried
    again, and becomes a dead letter after a few failures; `RetryLater` does not count
    as a failure. Metrics and health are served on `[consumers] metrics_port`.

    Args:
        group: name of the consumer group; its processes share the partitions.
        handler: called with each event, at least once.
        topics: host, hostgroup, status, mitigation, command, audit or deadletter.

    Raises:
        ConfigError: the configuration (FNM_BUS_CONFIG, else /etc) is invalid, or a
            name in *topics* is unknown.
        TopicRefused: a topic does not exist, or this user may not read it.
    """
    settings = build.load_settings(None)
    names, kafka = bus.topic_names(settings), bus.kafka_settings(settings)
    publisher = KafkaPublisher(kafka, SERVICE_PRODUCER)
    metrics = ConsumeMetrics()

    def handle(record: ConsumedRecord) -> None:
        if record.event is not None:
            handler(record.event)

    loop = ConsumerLoop(
        kafka,
        group,
        [_topic_name(names, kind) for kind in topics],
        bus.build_reading_codec(settings),
        handle,
        deadletter_topic=names.deadletter,
        publisher=publisher,
        metrics=metrics,
        max_attempts=settings.consumers.max_attempts,
    )
    # A dry run does not apply to the handler, so do not log one.
    live = settings.model_copy(update={"dry_run": False})
    try:
        build.serve(live, loop, metrics.registry(), loop.facts, loop.healthy)
    finally:
        publisher.close()


def _topic_name(names: Topics, kind: str) -> str:
    if kind not in Topics.__dataclass_fields__:
        kinds = ", ".join(Topics.__dataclass_fields__)
        raise ConfigError(f"topics: expected some of {kinds}, got {kind!r}")
    return str(getattr(names, kind))
