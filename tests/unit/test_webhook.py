from datetime import UTC, datetime, timedelta
from math import inf, isinf
from pathlib import Path
from typing import Any

import pytest

from consumers.mitigation.clock import now as boottime
from consumers.settings import WebhookSettings
from consumers.webhook.outbox import Logged, Outbox
from consumers.webhook.recall import ends_of, members_of
from consumers.webhook.service import Place, Webhook, sending_of
from consumers.webhook.storm import Storms
from fnm_bus.errors import ConfigError
from fnm_bus.event import HostEvent, Mitigation, Receipt
from fnm_bus.handling import Hold
from fnm_bus.reader import Read

NOW = datetime.now(UTC)


def mitigation(state: str = "wanted", **other: Any) -> Mitigation:
    cause = "unban by fra1" if state == "ended" else "ban by fra1: rule any"
    facts = {"key": "blackhole|192.0.2.1/32", "kind": "blackhole", "cause": cause}
    times = {"started_at": NOW, "changed_at": NOW}
    return Mitigation(**{**facts, **times, "state": state, **other})


def read(offset: int, event: Any, at: datetime = NOW) -> Read:
    return Read("m", 0, offset, at, b"k", (), b"v", event, "")


class Watched:
    """A hold and whether it was released."""

    def __init__(self, hold: Hold | None) -> None:
        self.released = False
        assert hold is not None
        hold.then(self._note)

    def _note(self) -> None:
        self.released = True


@pytest.fixture
def webhook() -> Webhook:
    storms: Storms[Place] = Storms(0, 0)
    return Webhook(storms, Logged())


def test_a_change_is_held_until_it_was_told_of(webhook: Webhook) -> None:
    held = Watched(webhook.handle(read(0, mitigation())))
    webhook.turn()
    assert not held.released
    webhook.turn()
    assert held.released


def test_a_renewal_is_done_at_once(webhook: Webhook) -> None:
    webhook.handle(read(0, mitigation()))
    assert webhook.handle(read(1, mitigation())) is None


def test_records_of_another_kind_are_passed_over(webhook: Webhook) -> None:
    other = HostEvent(receipt=Receipt(event_id="id"), action="ban", ip="192.0.2.1")
    assert webhook.handle(read(0, other)) is None


def test_what_is_read_again_says_nothing_new_and_is_held_as_before(
    webhook: Webhook,
) -> None:
    first = Watched(webhook.handle(read(0, mitigation())))
    second = Watched(webhook.handle(read(1, mitigation("ended"))))
    # The partition was taken away and given back.
    third = Watched(webhook.handle(read(0, mitigation())))
    fourth = Watched(webhook.handle(read(1, mitigation("ended"))))
    webhook.turn()
    webhook.turn()
    assert all(it.released for it in (first, second, third, fourth))
    assert webhook.handle(read(0, mitigation())) is None
    assert isinf(webhook.storms.next())


def test_a_topic_that_was_made_anew_is_read(webhook: Webhook) -> None:
    webhook.handle(read(7, mitigation()))
    later = NOW + timedelta(seconds=1)
    assert webhook.handle(read(0, mitigation("ended"), later)) is not None


def test_a_lease_runs_from_the_brokers_time() -> None:
    it = mitigation(lease_ms=900_000)
    at = datetime.now(UTC) - timedelta(seconds=600)
    assert 295 < ends_of(it, at) - boottime() <= 300
    assert abs(ends_of(it, NOW - timedelta(days=1)) - boottime()) < 5
    assert ends_of(mitigation(), NOW) == inf


def test_what_was_told_before_a_restart_is_known_again() -> None:
    told = members_of(
        [
            read(0, mitigation(lease_ms=900_000)),
            read(1, mitigation("ended")),
            read(2, mitigation(key="pause", kind="pause")),
            read(3, None),
        ]
    )
    assert [it.over for it in told] == ["", "unban", ""]


def test_a_lease_that_ran_out_long_ago_is_forgotten() -> None:
    old = mitigation(lease_ms=900_000)
    assert members_of([read(0, old, NOW - timedelta(days=2))]) == []
    assert len(members_of([read(0, old, NOW - timedelta(hours=2))])) == 1


def test_a_dry_run_needs_no_address() -> None:
    assert isinstance(sending_of(WebhookSettings(), dry_run=True), Logged)


def test_without_a_dry_run_an_address_is_wanted() -> None:
    with pytest.raises(ConfigError, match=r"\[consumers\.webhook\] url: wanted"):
        sending_of(WebhookSettings(), dry_run=False)


def test_an_address_may_stand_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text("https://hooks.example.net/T0/B0/x\n")
    assert isinstance(sending_of(WebhookSettings(url_file=path), dry_run=False), Outbox)


@pytest.mark.parametrize("name", ["url_file", "secret_file"])
def test_a_file_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "missing"
    settings = WebhookSettings.model_validate(
        {"url": "https://example.net/", name: path}
    )
    with pytest.raises(ConfigError, match=rf"webhook\] {name}: {path}"):
        sending_of(settings, dry_run=False)
