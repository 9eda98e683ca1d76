"""Settings as the text of a configuration file."""

from collections.abc import Mapping

Value = str | int


def toml_text(
    values: Mapping[str, Value], tables: Mapping[str, Mapping[str, Value]]
) -> str:
    """Return a TOML document.

    Args:
        values: the keys above all tables.
        tables: the keys of each table, by its name.
    """
    lines = _lines(values)
    for name, table in tables.items():
        lines += ["", f"[{name}]", *_lines(table)]
    return "\n".join(lines) + "\n"


def _lines(values: Mapping[str, Value]) -> list[str]:
    return [
        f"{key if key.isidentifier() else _quote(key)} = "
        f"{value if isinstance(value, int) else _quote(value)}"
        for key, value in values.items()
    ]


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    # TOML forbids control characters in a string, except for tabs.
    return '"' + "".join(c if c >= " " else f"\\u{ord(c):04x}" for c in escaped) + '"'
