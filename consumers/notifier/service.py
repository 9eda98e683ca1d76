"""The notifier as a service: sinks from the settings, recall, then the consumer loop.

    mitigation topic ▶ storms ▶ notice ┬▶ queue ▶ webhook
                                       ├▶ queue ▶ Alertmanager
                                       └▶ queue ▶ Apprise: chat, paging, mail

Run one instance: each of several members of the group would see a part of a storm.
"""

import logging
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import Final

from consumers import serving
from consumers.mitigation.states import PAUSE
from consumers.notifier.apprise_sink import AppriseSink
from consumers.notifier.delivery import DeliveryQueue
from consumers.notifier.http_sinks import AlertmanagerSink, HttpClient, WebhookSink
from consumers.notifier.metrics import NotifierMetrics
from consumers.notifier.notifier import Notifier
from consumers.notifier.recall import group_offsets, reported_records
from consumers.notifier.sink import LogSink, NoticeSink
from consumers.settings import FullSettings, NotifierSettings
from consumers.storms.grouper import StormGrouper
from fnm_bus import build as bus
from fnm_bus.avro.codec import Codec
from fnm_bus.consume.loop import ConsumerLoop
from fnm_bus.errors import BrokerUnavailable, ConfigError, ConnectionRejected
from fnm_bus.event import Mitigation
from fnm_bus.kafka.publisher import SERVICE_PRODUCER, KafkaPublisher
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_TABLE: Final = "[consumers.notifier]"
_RETRY: Final = 1.0
"""Seconds between attempts to read the topic at the start."""


def sinks_of(settings: NotifierSettings, *, dry_run: bool) -> list[NoticeSink]:
    """Return the configured sinks.

    Raises:
        ConfigError: no sink is configured, or an address or a file is invalid.
    """
    if dry_run:
        log.info("dry_run", remedy="set dry_run = false to send notices")
        return [LogSink()]
    for name in ("httpx2", "httpcore2"):
        # Their debug lines contain addresses.
        logging.getLogger(name).setLevel(logging.WARNING)
    sinks = list(_sinks(settings))
    if not sinks:
        raise ConfigError(
            f"{_TABLE}: no receiver; set url, url_file, alertmanager_urls or"
            " apprise_file"
        )
    return sinks


def secret_of(path: Path, setting: str) -> str:
    """Return the content of a file with a secret, without surrounding blanks.

    Raises:
        ConfigError: it cannot be read, or is empty; the text names *setting*.
    """
    try:
        secret = path.read_text("utf-8").strip()
    except OSError as exc:
        # A relative path may be the secret itself.
        name = path if path.is_absolute() else "not an absolute path"
        raise ConfigError(f"{setting}: {name}: {exc.strerror}") from None
    except UnicodeDecodeError:  # its text quotes the secret
        raise ConfigError(f"{setting}: {path}: not UTF-8") from None
    if not secret:
        raise ConfigError(f"{setting}: {path} is empty")
    return secret


def _sinks(settings: NotifierSettings) -> Iterator[NoticeSink]:
    url, timeout = settings.url, settings.timeout
    if settings.url_file is not None:
        url = secret_of(settings.url_file, f"{_TABLE} url_file")
    if url is not None:
        secret = None
        if settings.secret_file is not None:
            text = secret_of(settings.secret_file, f"{_TABLE} secret_file")
            secret = text.encode()
        yield WebhookSink(HttpClient(url, timeout, f"{_TABLE} url"), secret)
    for address in settings.alertmanager_urls:
        api = f"{address.rstrip('/')}/api/v2/alerts"
        setting = f"{_TABLE} alertmanager_urls"
        yield AlertmanagerSink(HttpClient(api, timeout, setting))
    if settings.apprise_file is not None:
        setting = f"{_TABLE} apprise_file"
        for line in secret_of(settings.apprise_file, setting).splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                yield AppriseSink(line.strip(), timeout, setting)


class Service:
    """The notifier as a program."""

    def __init__(self, settings: FullSettings, notifier: Notifier) -> None:
        self.iterated_at = monotonic()
        self._settings = settings
        self._notifier = notifier
        self._stopping = threading.Event()
        self._loop: ConsumerLoop | None = None
        self._problem = ""

    def run(self) -> None:
        """Recall the reported mitigations, then read and send until `stop`.

        Raises:
            ConfigError: librdkafka refuses the settings.
            TopicRefused: the topic does not exist, or may not be read.
        """
        settings, table = self._settings, self._settings.consumers.notifier
        kafka, names = bus.kafka_settings(settings), bus.topic_names(settings)
        codec = Codec()  # mitigations need no schema registry
        publisher = KafkaPublisher(kafka, SERVICE_PRODUCER)
        # A static member gets all partitions at once, even after a kill.
        is_static = kafka.get("group.protocol") != "consumer"
        own = {"group.instance.id": table.group} if is_static else {}
        self._loop = ConsumerLoop(
            # A new group was committed to the end by `group_offsets`.
            {**own, **kafka, "auto.offset.reset": "earliest"},
            table.group,
            [names.mitigation],
            codec,
            self._notifier.handle,
            deadletter_topic=names.deadletter,
            publisher=publisher,
            metrics=self._notifier.metrics,
            max_attempts=settings.consumers.max_attempts,
            between_records=self._turn,
            before_commit=self._settle,
        )
        try:
            while not self._stopping.is_set() and not self._recall(kafka, codec):
                self.iterated_at = monotonic()
                self._stopping.wait(_RETRY)
            if not self._stopping.is_set():
                self._loop.run()
        finally:
            self._notifier.close(table.timeout)
            publisher.close()

    def stop(self) -> None:
        """Request the end of `run`; may be called from a signal handler."""
        self._stopping.set()
        if self._loop is not None:
            self._loop.stop()

    def health(self) -> tuple[bool, Mapping[str, object]]:
        """Return whether it works, or will work without a person's help; values."""
        problem = self._problem or (self._loop.problem if self._loop else "")
        return not problem, {"problem": problem}

    def _turn(self) -> float:
        self.iterated_at = monotonic()
        return self._notifier.turn()

    def _settle(self) -> None:
        if self._stopping.is_set():
            self._notifier.close(self._settings.consumers.notifier.timeout)
        self._notifier.settle()

    def _recall(self, kafka: Mapping[str, str], codec: Codec) -> bool:
        topic = self._settings.topics.mitigation
        try:
            group = group_offsets(kafka, self._settings.consumers.notifier.group, topic)
            records = reported_records(kafka, topic, codec, group.offsets)
        except BrokerUnavailable as exc:
            log.warning("topic_unreadable", topic=topic, error=exc)
            self._problem = str(exc) if isinstance(exc, ConnectionRejected) else ""
            return False
        self._problem = ""
        self._notifier.recall(
            record
            for record in records
            if not group.is_new
            or (isinstance(record.event, Mitigation) and record.event.kind == PAUSE)
        )
        return True


def main(settings: FullSettings) -> None:
    """Send notices until a signal arrives.

    Raises:
        ConfigError: a sink's or Kafka's settings are invalid.
        TopicRefused: the mitigation topic does not exist, or may not be read.
    """
    table = settings.consumers.notifier
    metrics = NotifierMetrics()
    queues = [
        DeliveryQueue(sink, table.retry_timeout, metrics.notices)
        for sink in sinks_of(table, dry_run=settings.dry_run)
    ]
    storms = StormGrouper(table.group_wait, table.group_interval)
    service = Service(settings, Notifier(storms, queues, metrics))
    serving.serve(settings, service, metrics.registry())
