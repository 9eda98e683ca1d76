"""Names of entries."""

import pytest

from fnm_bus.spool.entry_name import (
    boot_of,
    clock_of,
    is_entry_name,
    pid_of,
    ticks_of,
)

BOOT = "b" * 32
CLOCK_BOOT = "0" * 20 + "179500000000"


def name(boot: str = BOOT, ticks: int = 1) -> str:
    return f"{boot}-{ticks:012d}-0000007-0000000a"


@pytest.mark.parametrize(
    "text",
    [name(), name(ticks=99_999_999_999)],
)
def test_a_name_has_the_form_of_the_hooks(text: str) -> None:
    assert is_entry_name(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        name() + "\n",
        name().upper(),
        name()[:-1],
        f"../{name()}",
        name().replace("0", "٠"),  # noqa: RUF001 - an Arabic digit
        "full",
        ".hidden",
        name(ticks=100_000_000_000),
        name("0" * 32, 179_500_000_000),
    ],
)
def test_other_texts_are_not_names(text: str) -> None:
    assert not is_entry_name(text)


def test_a_name_has_boot_start_and_pid() -> None:
    assert (boot_of(name()), ticks_of(name()), pid_of(name())) == (BOOT, 1, 7)


@pytest.mark.parametrize(
    ("boot", "ticks"),
    [(CLOCK_BOOT, 179_500_000_000), (BOOT, None), ("0" * 20 + "abcdef012345", None)],
)
def test_a_boot_id_without_proc_has_the_clock(boot: str, ticks: int | None) -> None:
    assert clock_of(boot) == ticks
