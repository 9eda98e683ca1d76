"""The doctor says what is wrong, and what to do."""

import os
from itertools import islice
from pathlib import Path

import pytest

from fnm_bus import doctor, schema
from fnm_bus.doctor import Finding
from fnm_bus.pins import Pins
from fnm_bus.route import Topics
from fnm_bus.settings import Settings
from fnm_bus.spool import Spool


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


def test_a_missing_spool_is_told_with_its_remedy(settings: Settings) -> None:
    found = next(doctor._spool(settings))
    assert not found.ok
    assert str(settings.spool.directory) in found.what
    assert "hook install" in found.remedy


def test_a_spool_as_it_should_be_passes(settings: Settings, spool: Spool) -> None:
    del spool  # it is there
    assert all(it.ok for it in doctor._spool(settings))


def test_a_spool_with_wrong_rights_fails(settings: Settings, spool: Spool) -> None:
    (spool.root / "quarantine").chmod(0o777)
    assert not all(it.ok for it in doctor._spool(settings))


def test_it_sees_whether_a_relay_drains(settings: Settings, spool: Spool) -> None:
    assert [it.ok for it in doctor._relay(settings)] == [False]
    with spool.lock() or pytest.fail("somebody else holds the lock"):
        assert [it.ok for it in doctor._relay(settings)] == [True]


def test_one_part_that_fails_does_not_hide_the_others(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = list(doctor.examine(settings))  # no spool, no Kafka
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
    wrong = [it for it in doctor._fastnetmon(settings) if not it.ok]
    assert wrong == [
        Finding(
            ok=False,
            what="FastNetMon notify_script_format: text",
            remedy="sudo fcli set main notify_script_format json && sudo fcli commit",
        )
    ]


def test_ids_that_are_not_pinned_yet_are_reported_with_their_remedy(
    tmp_path: Path,
) -> None:
    wanted = Topics().of_events()
    ids = {f"{topic}-value": 70 + n for n, topic in enumerate(wanted)}
    texts = {70 + n: schema.text(name) for n, name in enumerate(wanted.values())}
    Pins("http://registry", ids, {}, texts).write(tmp_path / "ids.json")
    settings = Settings.model_validate(
        {"registry": {"url": "http://127.0.0.1:1", "pins": tmp_path / "ids.json"}}
    )
    fits, audit, deadletter = islice(doctor._registry(settings), 3)
    assert fits.ok
    for finding, topic in ((audit, Topics().audit), (deadletter, Topics().deadletter)):
        assert not finding.ok
        assert finding.what.startswith(f"no schema id is pinned for {topic}-value")
        assert finding.remedy.startswith("run `fnm-bus schemas register`")
