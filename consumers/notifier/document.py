"""The document of a notice; docs/reference/notice.md describes every field."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from fnm_bus.event import ReasonSummary

VERSION: Final = 1


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """The storm's group: kind is hostgroup, customer or all."""

    kind: str
    name: str | None


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """The mitigator's sentence, and the number of mitigations that have it."""

    cause: str
    count: int


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One mitigation; `ended_because` is null while it is active."""

    key: str
    kind: str
    state: str
    prefix: str
    customer: str | None
    dry_run: bool
    reasons: int
    by: str | None
    created_at: datetime
    started_at: datetime | None
    expires_at: datetime | None
    ended_at: datetime | None
    ended_because: str | None
    cause: str


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One notice, version 1."""

    version: int = VERSION
    key: str = ""
    storm: str = ""
    status: str
    paused: bool
    group: Group
    at: datetime
    title: str = ""
    text: str = ""
    since: datetime
    until: datetime | None
    ended_at: datetime | None
    seconds: int
    total: int
    active: int
    proposed: int
    started: int
    ended: int
    changed: int
    dry_run: int
    pending: int
    notify_only: int
    notify_only_active: int
    kinds: Mapping[str, int]
    live: Mapping[str, int]
    ended_because: Mapping[str, int]
    causes: tuple[Cause, ...]
    largest: tuple[ReasonSummary, ...]
    prefixes: tuple[str, ...]
    more_prefixes: int
    rules: tuple[str, ...]
    sensors: tuple[str, ...]
    mitigations: tuple[Item, ...]
    more_mitigations: int
