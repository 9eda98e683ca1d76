"""A reader of a partition that has no leader."""

import pytest

from fnm_bus.avro.codec import Codec
from fnm_bus.errors import BrokerUnavailable
from fnm_bus.kafka.embedded_broker import EmbeddedBroker
from fnm_bus.kafka.reader import TopicReader


def test_a_partition_without_a_leader_is_no_endless_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with EmbeddedBroker() as broker:
        broker.create_topics("t")
        settings = {"bootstrap.servers": broker.bootstrap}
        with TopicReader(settings, ["t"], Codec(), from_beginning=True) as reader:
            reader._open_ends["t", 99] = 0.0
            while len(reader._open_ends) > 1:
                assert not list(reader.read(0.5))
            reader.check()
            monkeypatch.setattr("fnm_bus.kafka.reader._STALLED", 0.0)
            with pytest.raises(BrokerUnavailable, match=r"t\[99\]"):
                reader.check()
