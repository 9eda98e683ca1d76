"""Hatch's build hook: a wheel for one kind of machine, with the native hook compiled.

`FNM_BUS_HOOK_CC` is the compiler's command. Without the variable the wheel is for any
machine, and `fnm-bus hook install --native` compiles the hook there.
"""

import os
import shlex
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_MACHINES: Final = {62: "x86_64", 183: "aarch64"}
"""Machines by `e_machine` of an ELF header (elf(5))."""
_LOADER: Final = 3
"""`PT_INTERP`: the program header of a binary that needs a dynamic loader."""
# A static binary needs no C library. These tags are the oldest that exist for both
# machines, so each installer of Python 3.11 or later accepts the wheel.
_TAG: Final = "py3-none-manylinux_2_17_{0}.musllinux_1_1_{0}"


class NativeWheel(BuildHookInterface):
    """Adds the binary to the wheel, and names the machine in the wheel's tag."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the hook if a compiler is named."""
        command = shlex.split(os.environ.get("FNM_BUS_HOOK_CC", ""))
        if version == "editable" or not command:
            return
        sys.path.insert(0, self.root)
        from fnm_bus.setup import compile_hook  # noqa: PLC0415 - of this tree

        binary = compile_hook.compile_hook([*command, "-static"])
        machine = _machine(binary)
        self._directory = tempfile.TemporaryDirectory(prefix="fnm-bus-")
        file = Path(self._directory.name, "hook")
        file.write_bytes(binary)
        build_data["force_include"][str(file)] = f"fnm_bus/hook/native-{machine}"
        build_data["pure_python"] = False
        build_data["tag"] = _TAG.format(machine)


def _machine(binary: bytes) -> str:
    """Return the machine of a static binary.

    Raises:
        ValueError: the wheel's tag would promise too much.
    """
    if binary[:6] != b"\x7fELF\x02\x01":
        raise ValueError("the compiled hook is not a little-endian ELF file of 64 bits")
    (number,) = struct.unpack_from("<H", binary, 18)
    (start,) = struct.unpack_from("<Q", binary, 32)
    size, count = struct.unpack_from("<HH", binary, 54)
    headers = range(start, start + size * count, size)
    kinds = {struct.unpack_from("<I", binary, header)[0] for header in headers}
    if number not in _MACHINES or _LOADER in kinds:
        raise ValueError(f"the compiled hook is not static, or for machine {number}")
    return _MACHINES[number]
