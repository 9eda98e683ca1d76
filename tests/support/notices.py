"""A notice to send."""

from datetime import UTC, datetime

import msgspec

from consumers.notifier.notice import notice_of
from consumers.notifier.sink import (
    OutgoingNotice,
)
from consumers.storms.group import GroupRef
from consumers.storms.update import STARTED, ChangeId, StormUpdate


def outgoing(key: str = "key-1") -> OutgoingNotice:
    update = StormUpdate(STARTED, GroupRef(), ChangeId(), 0, ())
    notice = notice_of(update, datetime.now(UTC))
    notice = msgspec.structs.replace(notice, key=key, title="1 mitigation started")
    return OutgoingNotice(notice, b'{"version":1}', 0)
