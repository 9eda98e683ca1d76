"""Gives a Python program a wall clock that is WRONG_CLOCK_SECONDS ahead.

Put this directory on PYTHONPATH. The clocks since boot are left alone, as they are when
a machine's date is wrong. (libfaketime stops librdkafka's timers.)
"""

import datetime  # noqa: ICN001 - the module is what is changed
import os
import sys
import time
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_AHEAD = float(os.environ["WRONG_CLOCK_SECONDS"])
_time = time.time
_real = datetime.datetime


class _Meta(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _real)


class _Wrong(_real, metaclass=_Meta):
    def __new__(cls, *values: Any, **more: Any) -> Any:
        return _real(*values, **more)

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return _real.now(tz) + datetime.timedelta(seconds=_AHEAD)


class _Finder(PathFinder):
    """Replaces `datetime` in every module of ours after it was imported."""

    @classmethod
    def find_spec(
        cls,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        spec = super().find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        if not fullname.startswith("consumers."):
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            if getattr(module, "datetime", None) is _real:
                vars(module)["datetime"] = _Wrong

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


time.time = lambda: _time() + _AHEAD
sys.meta_path.insert(0, _Finder)
