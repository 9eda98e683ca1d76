"""The settings of a native hook are written to its binary, and read from there."""

from pathlib import Path

import pytest

from fnm_bus.errors import ConfigError
from fnm_bus.setup import native_binary
from fnm_bus.setup.hook_settings import settings

BINARY = (
    b"\x7fELF head" + native_binary.MAGIC.ljust(native_binary.BLOCK, b"\0") + b"end"
)
SOURCE = b"int main(void) { return 0; }\n"
VALUES = settings(Path("/var/spool/fnm-bus"), Path("/run/fnm-bus/spool"))


def block(content: bytes) -> bytes:
    start = content.index(native_binary.MAGIC)
    return content[start : start + native_binary.BLOCK]


def test_the_block_has_the_keys_in_the_order_that_the_hook_reads() -> None:
    filled = native_binary.fill(BINARY, VALUES, SOURCE)
    magic, *lines = block(filled).rstrip(b"\0").split(b"\0")
    assert magic + b"\0" == native_binary.MAGIC
    assert [line.split(b"=")[0].decode() for line in lines] == [
        *("SPOOL", "FALLBACK", "RESERVE_BYTES", "RESERVE_INODES"),
        *("FALLBACK_FILES", "FALLBACK_BYTES", "SOURCE", "CODE"),
    ]
    assert lines[0] == b"SPOOL=/var/spool/fnm-bus"
    assert lines[2] == b"RESERVE_BYTES=8388608"


def test_only_the_block_of_the_binary_changes() -> None:
    filled = native_binary.fill(BINARY, VALUES, SOURCE)
    assert len(filled) == len(BINARY)
    assert filled.replace(block(filled), block(BINARY)) == BINARY


@pytest.mark.parametrize(
    "spool", ["/a", "/a b", "/a=b", "/it's", "/$(id)", "/é", "/\udcff", "/a\nb", "/"]
)
def test_settings_are_read_as_they_were_written(spool: str) -> None:
    values = {**VALUES, "SPOOL": spool, "FALLBACK_FILES": 7}
    hook = native_binary.read(native_binary.fill(BINARY, values, SOURCE))
    assert hook.settings == values
    assert native_binary.is_compiled_from(hook, SOURCE)


def test_another_binary_may_be_filled_again() -> None:
    first = native_binary.fill(BINARY, {**VALUES, "SPOOL": "/" + "a" * 999}, b"old")
    assert native_binary.fill(first, VALUES, SOURCE) == native_binary.fill(
        BINARY, VALUES, SOURCE
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"SPOOL": "spool"}, "spool: spool is not an absolute path"),
        ({"FALLBACK": ""}, "fallback:  is not an absolute path"),
        ({"DRAIN": ("fnm-bus", "drain")}, "never drains"),
        ({"SPOOL": "/" + "a" * 4000}, "more than 4096 bytes"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    changes: dict[str, object], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        native_binary.fill(BINARY, {**VALUES, **changes}, SOURCE)


@pytest.mark.parametrize("binary", [b"", b"\x7fELF", BINARY[:-100], BINARY + BINARY])
def test_a_binary_without_exactly_one_block_is_refused(binary: bytes) -> None:
    with pytest.raises(ConfigError, match="not an fnm-bus hook"):
        native_binary.fill(binary, VALUES, SOURCE)
    with pytest.raises(ConfigError, match="not an fnm-bus hook"):
        native_binary.read(binary)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"FALLBACK_FILES=2000", b"FALLBACK_FILES=many"),
        (b"FALLBACK_FILES=2000", b"FALLBACK_LIMIT=2000"),
        (b"FALLBACK_FILES=2000", b"FALLBACK_FILES:2000"),
        (b"SOURCE=", b"XOURCE="),
        (native_binary.MAGIC + b"SPOOL", native_binary.MAGIC + b"spool"),
    ],
)
def test_changed_settings_are_reported(old: bytes, new: bytes) -> None:
    filled = native_binary.fill(BINARY, VALUES, SOURCE)
    assert old in filled
    with pytest.raises(ConfigError, match="were changed"):
        native_binary.read(filled.replace(old, new, 1))


def test_a_binary_before_its_installation_has_no_readable_settings() -> None:
    with pytest.raises(ConfigError, match="were changed"):
        native_binary.read(BINARY)


@pytest.mark.parametrize(
    ("old", "new"), [(b"head", b"hEad"), (b"end", b"enD"), (b"end", b"end.")]
)
def test_changed_code_is_not_of_this_version(old: bytes, new: bytes) -> None:
    filled = native_binary.fill(BINARY, VALUES, SOURCE)
    hook = native_binary.read(filled.replace(old, new))
    assert hook.settings == VALUES
    assert not native_binary.is_compiled_from(hook, SOURCE)


def test_another_source_is_another_version() -> None:
    hook = native_binary.read(native_binary.fill(BINARY, VALUES, SOURCE))
    assert not native_binary.is_compiled_from(hook, SOURCE + b"\n")
