"""Gives a Python program a wall clock that is WRONG_CLOCK_SECONDS ahead.

Put this directory on PYTHONPATH. The clocks since boot are left alone, as they are when
a machine's date is wrong. (libfaketime stops librdkafka's timers.)
"""

import datetime
import os
import sys
import time
from importlib.machinery import PathFinder

_AHEAD = float(os.environ["WRONG_CLOCK_SECONDS"])
_time = time.time
_real = datetime.datetime


class _Meta(type):
    def __instancecheck__(cls, value):
        return isinstance(value, _real)


class _Wrong(_real, metaclass=_Meta):
    def __new__(cls, *values, **more):
        return _real(*values, **more)

    @classmethod
    def now(cls, tz=None):
        return _real.now(tz) + datetime.timedelta(seconds=_AHEAD)


class _Finder(PathFinder):
    """Replaces `datetime` in every module of ours after it was imported."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = super().find_spec(name, path, target)
        if spec is None or spec.loader is None or not name.startswith("consumers."):
            return spec
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            if getattr(module, "datetime", None) is _real:
                module.datetime = _Wrong

        spec.loader.exec_module = exec_module
        return spec


time.time = lambda: _time() + _AHEAD
sys.meta_path.insert(0, _Finder)
