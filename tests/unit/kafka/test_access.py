"""The rights of each program, as the documentation lists them."""

import re
from pathlib import Path

import pytest

from fnm_bus.errors import ConfigError
from fnm_bus.kafka.access import (
    PROGRAMS,
    Resources,
    Right,
    acl_commands,
    principal_names,
    resource_names,
    rights_of,
)
from fnm_bus.kafka.addressing import Topics

ROOT = Path(__file__).parents[3]
NAMES = Topics(**{kind: kind for kind in Topics.__dataclass_fields__})
RESOURCES = Resources(
    NAMES,
    "`transactional_id`",
    "`[consumers.notifier] group`",
    "`[consumers.jsonlines] group`",
)


def documented(program: str) -> set[Right]:
    """Return the rights of a program in the table of docs/security.md."""
    text = (ROOT / "docs/security.md").read_text()
    found = set()
    for programs, operations, resources in re.findall(
        r"^\| ([a-z, ]+) \| ([A-Z][A-Za-z, ]+) \| (.+) \|$", text, re.MULTILINE
    ):
        kind, _, names = resources.partition(": ")
        if program in programs.split(", "):
            found |= {
                Right(operation, kind, name)
                for operation in operations.split(", ")
                for name in names.split(", ")
            }
    return found


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_documentation_lists_exactly_the_rights(program: str) -> None:
    assert documented(program) == set(rights_of(program, RESOURCES))


def test_names_come_from_the_consumers_tables() -> None:
    tables = {
        "mitigator": {"transactional_id": "m"},
        "notifier": {"group": "w"},
        "jsonlines": {"group": "j", "topics": "a, b"},
    }
    assert resource_names(NAMES, tables) == Resources(NAMES, "m", "w", "j", ("a", "b"))


@pytest.mark.parametrize("tables", [{}, None, {"mitigator": 3}, {"notifier": {}}])
def test_without_tables_the_names_are_the_defaults(tables: object) -> None:
    assert resource_names(NAMES, tables) == Resources(NAMES)


def test_the_defaults_are_those_of_the_consumers_settings() -> None:
    from consumers.check_all import resources_of  # noqa: PLC0415 - of another package
    from consumers.settings import FullSettings  # noqa: PLC0415 - as above

    assert resources_of(FullSettings()) == Resources()


def test_a_principal_may_hold_the_name_of_a_certificate() -> None:
    assert principal_names(["relay=User:CN=relay,O=x"]) == {
        "relay": "User:CN=relay,O=x"
    }


@pytest.mark.parametrize("text", ["relay", "relay=x", "relay=User:", "ralay=User:x"])
def test_an_invalid_principal_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--principal"):
        principal_names([text])


def test_unusual_names_are_quoted_for_the_shell() -> None:
    [line] = acl_commands(
        {"relay": "User:a b"}, Resources(Topics("$h", "g", "s")), "kafka:9092"
    )
    assert "--allow-principal 'User:a b'" in line
    assert "--topic '$h' --topic g" in line
