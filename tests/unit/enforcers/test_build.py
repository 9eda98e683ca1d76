"""An enforcer from the settings, and its health."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from consumers.enforcers.backend import MemoryBackend
from consumers.enforcers.build import allowed_networks, build_enforcer, check_enforcer
from consumers.metrics import EnforcerMetrics
from consumers.mitigation.enforcer_names import ENFORCERS
from consumers.settings import ConsumerSettings, FullSettings, GuardSettings


def settings(*own: str, dry_run: bool = False, **kafka: str) -> FullSettings:
    consumers = ConsumerSettings(
        enforcer=GuardSettings(own_networks=own), metrics_port=9_999
    )
    bootstrap = {"bootstrap.servers": "127.0.0.1:1"}
    return FullSettings(
        consumers=consumers, dry_run=dry_run, kafka={**bootstrap, **kafka}
    )


def test_live_enforcer_needs_own_networks() -> None:
    config = settings()
    for build in (
        lambda: check_enforcer(config, config.consumers.exabgp),
        lambda: build_enforcer(
            config, config.consumers.exabgp, MemoryBackend(), EnforcerMetrics()
        ),
    ):
        with pytest.raises(Exception, match=r"consumers\.enforcer\.own_networks"):
            build()


def test_dry_run_without_own_networks_warns(caplog: pytest.LogCaptureFixture) -> None:
    assert allowed_networks(settings(dry_run=True)) is None
    assert "consumers.enforcer.own_networks" in caplog.text


def test_own_networks_are_parsed() -> None:
    result = allowed_networks(settings("203.0.113.0/24", "2001:db8::/32"))
    assert list(map(str, result or ())) == ["203.0.113.0/24", "2001:db8::/32"]


@pytest.mark.parametrize(
    "value",
    [7, "203.0.113.7/24", "0.0.0.0/0", "::/0", "203.0.113.7", "2001:DB8::/32", "x", ""],
)
def test_value_that_is_not_a_network_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError):
        GuardSettings(own_networks=(value,))


@pytest.mark.parametrize("setting", ["no.such.thing", "auto.offset.reset"])
def test_settings_refused_by_librdkafka_fail_the_check(
    setting: str, tmp_path: Path
) -> None:
    config = settings("203.0.113.0/24", **{setting: "x"})
    own_settings = config.consumers.exabgp.model_copy(
        update={"snapshot": tmp_path / "s.json"}
    )
    with pytest.raises(Exception, match=setting):
        check_enforcer(config, own_settings)
    check_enforcer(settings("203.0.113.0/24"), own_settings)


def test_the_enforcers_are_those_of_the_backends() -> None:
    assert ENFORCERS == ("exabgp", "nftables")
