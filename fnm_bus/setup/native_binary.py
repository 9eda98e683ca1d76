"""The settings that a binary of the native hook contains.

The binary reserves a block for them, so that FastNetMon gets one path without
arguments and a call opens no configuration file. The block begins with `MAGIC`, which
occurs once in the binary. `KEY=VALUE` strings follow, each with a NUL at its end, then
NULs. The hook reads the first six keys in this order and ignores the others.
"""

import hashlib
import os
from collections.abc import Mapping
from typing import Final, NamedTuple

from fnm_bus.errors import ConfigError

MAGIC: Final = b"fnm-bus native hook 1\0"
BLOCK: Final = 4096
"""Bytes of the block, with the magic."""
_PATHS: Final = ("SPOOL", "FALLBACK")
_NUMBERS: Final = (
    "RESERVE_BYTES",
    "RESERVE_INODES",
    "FALLBACK_FILES",
    "FALLBACK_BYTES",
)
_SOURCE: Final = "SOURCE"
_CODE: Final = "CODE"


class NativeHook(NamedTuple):
    """The content of an installed native hook.

    Attributes:
        settings: as `hook_settings.settings` returns them.
        source: SHA-256 of the source that the binary was compiled from.
        is_intact: whether the code is that of the installation.
    """

    settings: dict[str, object]
    source: str
    is_intact: bool


def is_native(content: bytes) -> bool:
    """Return whether a file's content is a native hook, of any version."""
    return MAGIC in content


def is_compiled_from(hook: NativeHook, source: bytes) -> bool:
    """Return whether a hook is an intact binary of this source."""
    return hook.is_intact and hook.source == hashlib.sha256(source).hexdigest()


def fill(binary: bytes, settings: Mapping[str, object], source: bytes) -> bytes:
    """Return the binary with its settings.

    Args:
        binary: a compiled native hook.
        settings: see `hook_settings.settings`; a native hook has no use for DRAIN.
        source: the content of the file that the binary was compiled from.

    Raises:
        ConfigError: the binary has no block, a path is not absolute, the settings do
            not fit into the block, or the hook would drain.
    """
    head, tail = _split(binary)
    faults = [
        f"{name.lower()}: {settings[name]} is not an absolute path"
        for name in _PATHS
        if not str(settings[name]).startswith("/")
    ]
    if settings["DRAIN"]:
        faults.append("drain: the native hook never drains")
    values = {name: settings[name] for name in (*_PATHS, *_NUMBERS)}
    values[_SOURCE] = hashlib.sha256(source).hexdigest()
    values[_CODE] = _digest(head, tail)
    lines = [os.fsencode(f"{name}={value}") + b"\0" for name, value in values.items()]
    block = MAGIC + b"".join(lines)
    if len(block) >= BLOCK:
        faults.append(f"spool, fallback: the paths have more than {BLOCK} bytes")
    if faults:
        raise ConfigError("\n".join(faults))
    return head + block.ljust(BLOCK, b"\0") + tail


def read(content: bytes) -> NativeHook:
    """Return the settings in a native hook.

    Raises:
        ConfigError: the file has no complete block, or the settings were changed.
    """
    head, tail = _split(content)
    block = content[len(head) + len(MAGIC) : len(content) - len(tail)]
    try:
        lines = os.fsdecode(block.rstrip(b"\0")).split("\0")
        values = dict(line.split("=", 1) for line in lines)
        numbers = {name: int(values[name]) for name in _NUMBERS}
        paths = {name: values[name] for name in _PATHS}
        code = values[_CODE]
        source = values[_SOURCE]
    except (KeyError, ValueError) as exc:
        raise ConfigError(f"the settings of this hook were changed: {exc}") from exc
    settings = {**paths, "DRAIN": (), **numbers}
    return NativeHook(settings, source, code == _digest(head, tail))


def _split(binary: bytes) -> tuple[bytes, bytes]:
    """Return the bytes before and after the block."""
    start = binary.find(MAGIC)
    if start < 0 or binary.find(MAGIC, start + 1) >= 0 or len(binary) < start + BLOCK:
        raise ConfigError("is not an fnm-bus hook")
    return binary[:start], binary[start + BLOCK :]


def _digest(head: bytes, tail: bytes) -> str:
    return hashlib.sha256(head + tail).hexdigest()
