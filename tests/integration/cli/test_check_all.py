"""Checks of a host without Kafka, and of FastNetMon's settings."""

import os
from pathlib import Path

import pytest

from fnm_bus.config.settings import Settings
from fnm_bus.setup import check_all
from fnm_bus.setup.check_all import CheckResult


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


def test_a_failed_group_of_checks_does_not_hide_others(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    results = list(check_all.examine(settings))  # no spool, no Kafka
    assert results[-1].text.startswith("FastNetMon: fcli is not installed")
    assert any(
        "Kafka" in result.remedy or "[kafka]" in result.remedy for result in results
    )
    assert all(result.remedy for result in results if not result.ok)


def test_fastnetmon_s_settings_are_read_by_fcli(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fcli = tmp_path / "fcli"
    fcli.write_text('#!/bin/sh\n[ "$3" = notify_script_format ] && echo text && exit\n')
    with fcli.open("a") as file:
        file.write("echo enable\n")
    fcli.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    wrong = [result for result in check_all._fastnetmon(settings) if not result.ok]
    assert wrong == [
        CheckResult(
            ok=False,
            text="FastNetMon notify_script_format: text",
            remedy="sudo fcli set main notify_script_format json && sudo fcli commit",
        )
    ]
