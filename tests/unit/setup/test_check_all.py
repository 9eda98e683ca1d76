"""Each check has a result, with a remedy if result failed."""

import os
from itertools import islice
from pathlib import Path

import pytest

from fnm_bus.avro import schema
from fnm_bus.avro.schema_ids import SchemaIds
from fnm_bus.config.settings import Settings
from fnm_bus.hook import python_hook
from fnm_bus.kafka.addressing import Topics
from fnm_bus.setup import check_all
from fnm_bus.spool import layout
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


def test_a_missing_spool_is_reported_with_a_remedy(settings: Settings) -> None:
    result = next(check_all._spool(settings))
    assert not result.ok
    assert str(settings.spool.directory) in result.text
    assert "hook install" in result.remedy


def test_a_correct_spool_passes(settings: Settings, spool: Spool) -> None:
    del spool  # only made
    assert all(result.ok for result in check_all._spool(settings))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a spool away")
def test_entries_unreadable_for_the_relay_are_listed(
    settings: Settings, spool: Spool
) -> None:
    spool.make(1234, 2345)
    names = [f"{'b' * 32}-{ticks:012d}-0000007-00000000" for ticks in range(2)]
    for name, mode in zip(names, (0o640, 0o600), strict=True):
        python_hook.store_entry(
            str(spool.root), name, python_hook.encode_entry((), b"{}")
        )
        spool.path(name).chmod(mode)
    [fault] = [result for result in check_all._spool(settings) if not result.ok]
    assert "1 entries" in fault.text
    assert f"{spool.path(names[1])} (0:2345, mode 600)" in fault.text
    assert "chmod 640" in fault.remedy


@pytest.mark.parametrize(
    ("user", "group", "mode", "readable"),
    [
        (0, 0, 0o600, False),
        (7, 0, 0o600, True),
        (7, 8, 0o040, False),
        (0, 8, 0o640, True),
        (0, 9, 0o640, False),
        (0, 9, 0o644, True),
        (0, 8, 0o604, False),
    ],
)
def test_rights_are_counted_as_the_kernel_counts_them(
    user: int, group: int, mode: int, *, readable: bool
) -> None:
    facts = os.stat_result((mode, 0, 0, 1, user, group, 0, 0, 0, 0))
    assert layout._may_read(facts, 7, {8}) is readable


def test_a_spool_with_wrong_rights_fails(settings: Settings, spool: Spool) -> None:
    (spool.root / "quarantine").chmod(0o777)
    assert not all(result.ok for result in check_all._spool(settings))


def test_the_relay_check_detects_a_relay(settings: Settings, spool: Spool) -> None:
    assert [result.ok for result in check_all._relay(settings)] == [False]
    with spool.lock() or pytest.fail("somebody else holds the lock"):
        assert [result.ok for result in check_all._relay(settings)] == [True]


def test_missing_schema_ids_are_reported_with_a_remedy(
    tmp_path: Path,
) -> None:
    wanted = Topics().of_events()
    ids = {f"{topic}-value": 70 + n for n, topic in enumerate(wanted)}
    texts = {70 + n: schema.text(name) for n, name in enumerate(wanted.values())}
    SchemaIds("http://registry", ids, {}, texts).write(tmp_path / "ids.json")
    settings = Settings.model_validate(
        {
            "registry": {
                "url": "http://127.0.0.1:1",
                "schema_ids_file": tmp_path / "ids.json",
            }
        }
    )
    fits, audit, deadletter = islice(check_all._registry(settings), 3)
    assert fits.ok
    for finding, topic in ((audit, Topics().audit), (deadletter, Topics().deadletter)):
        assert not finding.ok
        assert finding.text.startswith(f"no schema id is pinned for {topic}-value")
        assert finding.remedy.startswith("run `fnm-bus schemas register`")
