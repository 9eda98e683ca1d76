"""Checks of a host without Kafka, and of FastNetMon's settings."""

import os
from pathlib import Path

import pytest

from fnm_bus.config.settings import Settings
from fnm_bus.setup import check_all
from fnm_bus.setup.check_all import CheckResult
from fnm_bus.spool.spool import Spool


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "spool": {
                "directory": tmp_path / "spool",
                "fallback": tmp_path / "fallback",
            },
            "kafka": {"bootstrap.servers": "127.0.0.1:1"},
        }
    )


@pytest.fixture
def spool(settings: Settings) -> Spool:
    for root in (settings.spool.directory, settings.spool.fallback):
        Spool(root).make(os.getuid(), os.getgid())
    return Spool(settings.spool.directory)


def test_one_part_that_fails_does_not_hide_the_others(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = list(check_all.examine(settings))  # no spool, no Kafka
    assert found[-1].what.startswith("FastNetMon: no fcli here")
    assert any("Kafka" in it.remedy or "[kafka]" in it.remedy for it in found)
    assert all(it.remedy for it in found if not it.ok)


def test_fastnetmons_settings_are_looked_at_where_fcli_is(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fcli = tmp_path / "fcli"
    fcli.write_text('#!/bin/sh\n[ "$3" = notify_script_format ] && echo text && exit\n')
    with fcli.open("a") as file:
        file.write("echo enable\n")
    fcli.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    wrong = [it for it in check_all._fastnetmon(settings) if not it.ok]
    assert wrong == [
        CheckResult(
            ok=False,
            what="FastNetMon notify_script_format: text",
            remedy="sudo fcli set main notify_script_format json && sudo fcli commit",
        )
    ]
