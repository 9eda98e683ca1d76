"""Read the configuration: defaults, then a file, then the environment.

This uses pydantic alone: pydantic-settings reads the same sources, but neither reports
the source of each value nor refuses a misspelt variable.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from fnm_bus.config import mistakes
from fnm_bus.config.secrets import MASK, is_secret, without_user_info
from fnm_bus.config.settings import Settings
from fnm_bus.config.spool_paths import CONFIG, FILE, PREFIX
from fnm_bus.errors import ConfigError

_OTHER: Final = frozenset(
    {CONFIG, "FNM_BUS_LOCK_FD", "FNM_BUS_TEST_KAFKA", "FNM_BUS_TEST_REGISTRY"}
)
"""Variables with our prefix that are not settings."""
_DOTTED: Final = frozenset({("kafka",), ("kafka_files",), ("registry", "client")})
"""Tables whose keys have dots; a variable has underscores instead."""
_FILES: Final = frozenset(
    {
        "consumers.notifier.url_file",
        "consumers.notifier.secret_file",
        "consumers.notifier.apprise_file",
    }
)
"""Settings with names of secret files."""
_ADDRESSES: Final = frozenset({"consumers.notifier.url"})
"""Addresses that are secrets: a program that has one can post there."""
DEFAULT: Final = "default"
Key = tuple[str, ...]


S = TypeVar("S", bound=Settings)


class LoadedSettings(NamedTuple, Generic[S]):
    """The configuration.

    Attributes:
        settings: all settings.
        sources: dotted key → source of its value, without defaults.
    """

    settings: S
    sources: Mapping[str, str]


class SettingRow(NamedTuple):
    """One setting for people, with its source."""

    key: str
    value: object
    source: str


def load(
    path: Path | None = None, environ: Mapping[str, str] = os.environ
) -> LoadedSettings[Settings]:
    """Return the configuration of fnm-bus, as `load_as` does."""
    return load_as(Settings, path, environ)


def load_as(
    model: type[S],
    path: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> LoadedSettings[S]:
    """Return the configuration.

    Args:
        model: the settings; consumers have tables of their own.
        path: the file; else FNM_BUS_CONFIG; else `FILE` if it exists.
        environ: the environment.

    Raises:
        ConfigError: lists all problems, one per line, each with its source.
    """
    values: dict[str, Any] = {}
    sources: dict[Key, str] = {}
    problems: list[str] = []
    file = path or (Path(environ[CONFIG]) if environ.get(CONFIG) else None)
    if file is not None or FILE.exists():
        _read(file or FILE, values, sources)
    for name, key in _variables(environ):
        kind = _kind(key, model)
        if kind is None:
            written = name.removeprefix(PREFIX)
            text = mistakes.describe_unknown(written, _variable_names(model), PREFIX)
            problems.append(f"{name}: {text}")
            continue
        text = environ[name]
        items = [item.strip() for item in text.split(",") if item.strip()]
        _put(values, key, items if mistakes.is_list(kind) else text)
        sources[key] = name
    try:
        settings = model.model_validate(values)
    except ValidationError as exc:
        problems += [_problem(error, sources, model) for error in exc.errors()]
    if problems:
        raise ConfigError("\n".join(problems))
    return LoadedSettings(
        settings, {".".join(key): source for key, source in sources.items()}
    )


def setting_rows(loaded: LoadedSettings[S]) -> Iterator[SettingRow]:
    """Yield every setting with its value and source; secrets are masked."""
    for key, value in _leaves(loaded.settings.model_dump(mode="json")):
        name = ".".join(key)
        source = loaded.sources.get(name, DEFAULT)
        yield SettingRow(name, mask_value(name, value), source)


def mask_value(name: str, value: object) -> object:
    """Return a setting's value for people: stars if the value may be a secret.

    Args:
        name: dotted key of the setting.
        value: its value.
    """
    if not value or isinstance(value, bool | int | float):
        return value
    table, _, option = name.partition(".")
    if table == "registry":
        option = option.removeprefix("client.")
    if table == "kafka_files" or name in _FILES:
        # A file's name is not a secret, but a misplaced secret is.
        return value if str(value).startswith("/") else MASK
    if is_secret(option) or name in _ADDRESSES:
        return MASK
    if isinstance(value, list | tuple):
        return [mask_value(name, item) for item in value]
    return without_user_info(value) if isinstance(value, str) else value


def _read(file: Path, values: dict[str, Any], sources: dict[Key, str]) -> None:
    try:
        values.update(tomllib.loads(file.read_text("utf-8")))
    except OSError as exc:
        raise ConfigError(f"{file}: {exc.strerror}") from exc
    except ValueError as exc:  # bad TOML, or not UTF-8
        raise ConfigError(f"{file}: {exc}") from exc
    for key, _value in _leaves(values):
        sources[key] = str(file)


def _variables(environ: Mapping[str, str]) -> Iterator[tuple[str, Key]]:
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in _OTHER:
            table, *rest = name.removeprefix(PREFIX).lower().split("__")
            key = (table, *rest)
            if rest and key[:-1] in _DOTTED:
                key = (*key[:-1], key[-1].replace("_", "."))
            yield name, key


def _kind(key: Key, model: Any) -> Any:
    """Return the type of the value at *key*; None for a table or an unknown key."""
    for number, part in enumerate(key):
        field = model.model_fields.get(part)
        if field is None:
            return None
        kind = field.annotation
        last = len(key) == number + 1
        if kind is Any:  # tables of the consumers, unknown to fnm_bus
            return None if last else Any
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            if getattr(kind, "__origin__", None) is dict:
                return str if len(key) == number + 2 else None
            return kind if last else None
        model = kind
    return None


def _variable_names(model: Any, above: str = "") -> Iterator[str]:
    """Yield the variables of all settings with fixed names, without PREFIX."""
    for name, field in model.model_fields.items():
        kind, variable = field.annotation, f"{above}{name.upper()}"
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _variable_names(kind, f"{variable}__")
        elif kind is not Any and getattr(kind, "__origin__", None) is not dict:
            yield variable


def _put(values: dict[str, Any], key: Key, value: str | list[str]) -> None:
    table: Any = values
    for part in key[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):  # a mistake in the file, which pydantic reports
            return
    table[key[-1]] = value


def _leaves(values: Mapping[str, Any], above: Key = ()) -> Iterator[tuple[Key, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key), value


def _problem(error: Any, sources: Mapping[Key, str], model: Any) -> str:
    key = tuple(str(part) for part in error["loc"])
    name = ".".join(key)
    within = (source for at, source in sources.items() if at[: len(key)] == key)
    above = (source for at, source in sources.items() if key[: len(at)] == at)
    source = next(within, None) or next(above, None) or DEFAULT
    text = mistakes.describe(error, mask_value(name, error["input"]), model)
    return f"{source}: {name}: {text}"
