"""Records of mitigations, and a notice to send."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from consumers.notifier.notice import notice_of
from consumers.notifier.sink import OutgoingNotice
from consumers.storms.group import GroupRef
from consumers.storms.update import STARTED, ChangeId, StormUpdate
from fnm_bus.event import Mitigation
from fnm_bus.kafka.reader import ConsumedRecord

NOW = datetime.now(UTC)


def mitigation(state: str = "wanted", **other: Any) -> Mitigation:
    fields = {
        "key": "blackhole|192.0.2.1/32",
        "kind": "blackhole",
        "prefix": "192.0.2.1/32",
        "ended_because": "unban" if state == "ended" else "",
    }
    times = {"created_at": NOW, "started_at": NOW, "changed_at": NOW}
    return Mitigation(**{**fields, **times, "state": state, **other})


def read(offset: int, event: Any, at: datetime = NOW) -> ConsumedRecord:
    return ConsumedRecord("m", 0, offset, at, b"k", (), b"v", event, "")


def outgoing(key: str = "key-1") -> OutgoingNotice:
    update = StormUpdate(STARTED, GroupRef(), ChangeId(), 0, ())
    notice = notice_of(update, datetime.now(UTC))
    notice = msgspec.structs.replace(notice, key=key, title="1 mitigation started")
    return OutgoingNotice(notice, b'{"version":1}', 0)
