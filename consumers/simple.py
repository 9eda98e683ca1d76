"""A consumer of your own in a few lines; consumers/README.md has an example."""

from collections.abc import Callable, Sequence

from consumers import serving
from fnm_bus import build as bus
from fnm_bus.errors import ConfigError
from fnm_bus.event import AnyRecord
from fnm_bus.kafka.addressing import Topics
from fnm_bus.kafka.reader import ConsumedRecord


def consume(
    group: str, handler: Callable[[AnyRecord], None], topics: Sequence[str] = ("host",)
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
    settings = serving.load_settings(None)
    names = bus.topic_names(settings)

    def handle(record: ConsumedRecord) -> None:
        if record.event is not None:
            handler(record.event)

    serving.consume(
        settings, group, [_topic_name(names, kind) for kind in topics], handle
    )


def _topic_name(names: Topics, kind: str) -> str:
    if kind not in Topics.__dataclass_fields__:
        kinds = ", ".join(Topics.__dataclass_fields__)
        raise ConfigError(f"topics: expected some of {kinds}, got {kind!r}")
    return str(getattr(names, kind))
