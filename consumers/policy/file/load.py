"""Policy file: TOML ▶ tables ▶ the policy; all mistakes at once, each with its line."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from consumers.mitigation.measure import Network
from consumers.policy.model import Action, Customer, Limits, Match, Policy, Rule
from consumers.policy.file.check import check
from consumers.policy.file.mistakes import Problem, said, told
from consumers.policy.file.tables import (
    DeedTable,
    GroupTable,
    MatchTable,
    PolicyTables,
    RuleTable,
)
from consumers.policy.file.toml_lines import Path as Key
from consumers.policy.file.words import route_target
from fnm_bus.errors import ConfigError
from fnm_bus.event import FlowThen

_APART: Final = frozenset({"rule", "customer"})
"""Tables that can be left out while the others are looked at."""
_AT_LINE: Final = re.compile(r"at line (\d+)")


def load(path: Path) -> Policy:
    """Return the policy of a file.

    Raises:
        ConfigError: it cannot be read; or lists every mistake, one a line.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: not UTF-8: {exc}") from exc
    return loads(text, str(path))


def loads(text: str, name: str = "policy.toml") -> Policy:
    """Return the policy of a text.

    Args:
        text: TOML.
        name: what mistakes are told with.

    Raises:
        ConfigError: lists every mistake, one a line.
    """
    try:
        data = tomllib.loads(text)
    except RecursionError as exc:
        raise ConfigError(f"{name}: nested too deeply") from exc
    except ValueError as exc:  # also what int() and datetime() refuse
        at = _AT_LINE.search(str(exc))
        line = at.group(1) if at else text.count("\n") + 1
        raise ConfigError(f"{name}:{line}: {exc}") from exc
    try:
        tables = PolicyTables.model_validate(data)
    except ValidationError as exc:
        found = exc.errors(include_url=False)
        problems = [Problem(it["loc"], said(it)) for it in found]
        problems += _rest(data, {it["loc"][:2] for it in found})
    else:
        policy = policy_of(tables)
        problems = check(tables, policy)
        if not problems:
            return policy
    raise ConfigError(told(problems, data, text, name))


def policy_of(tables: PolicyTables) -> Policy:
    """Return the policy that valid tables mean."""
    rails = tables.guardrails
    return Policy(
        rules=tuple(
            Rule(name=it.name, match=_match(it.match), action=_rule_action(it))
            for it in tables.rule
        ),
        limits=Limits(own=tables.own.networks, named=_named(tables), **dict(rails)),
        groups={it.name: _group_action(it) for it in tables.group},
        customers=tuple(
            Customer(
                name=it.name,
                networks=it.networks,
                cap=rails.per_customer if it.cap is None else it.cap,
            )
            for it in tables.customer
        ),
    )


def _named(tables: PolicyTables) -> frozenset[Network]:
    """Return the prefixes that somebody wrote down on purpose, however wide."""
    of_rules = (it.then.prefixes or () for it in tables.rule)
    of_groups = (it.prefixes for it in tables.group)
    return frozenset(one for all_ in (*of_rules, *of_groups) for one in all_)


def _match(table: MatchTable) -> Match:
    return Match(
        scopes=frozenset(table.scope or ()),
        actions=frozenset(table.action or ()),
        hostgroups=frozenset(table.hostgroup or ()),
        prefixes=table.prefix or (),
        directions=frozenset(table.direction or ()),
        protocols=frozenset(table.protocol or ()),
        thresholds=frozenset(table.threshold or ()),
        severities=frozenset(table.severity or ()),
        sensors=frozenset(table.sensor or ()),
        flow_spec=table.flow_spec,
        min_pps=table.min_pps,
        max_pps=table.max_pps,
        min_bits=table.min_bits,
        max_bits=table.max_bits,
    )


def _rule_action(rule: RuleTable) -> Action:
    then = rule.then
    return _action(then, then.outcome, then.prefixes or (), at_cap=then.at_cap)


def _group_action(group: GroupTable) -> Action:
    return _action(group, group.outcome, group.prefixes)


def _action(deed: DeedTable, outcome: str, prefixes: Any, **more: str) -> Action:
    return Action(
        outcome=outcome,
        then=_then(deed),
        lease=deed.lease,
        enforcers=deed.enforcers or (),
        communities=deed.communities,
        prefixes=prefixes,
        dry_run=deed.dry_run,
        approval=deed.approval,
        **more,
    )


def _then(deed: DeedTable) -> FlowThen | None:
    if deed.action is None:
        return None
    number, value = route_target(deed.redirect) if deed.redirect else (None, None)
    return FlowThen(
        action=deed.action, rate=deed.rate, redirect_as=number, redirect_value=value
    )


def _rest(data: dict[str, Any], bad: set[Key]) -> Iterator[Problem]:
    """Yield the mistakes of what is left without the rules and customers that are bad.

    Nothing, when something is bad on which the others depend.
    """
    if any(len(it) < 2 or it[0] not in _APART for it in bad):  # noqa: PLR2004 - as said
        return
    kept = {
        name: [at for at in range(len(data.get(name, ()))) if (name, at) not in bad]
        for name in _APART
    }
    less = {name: [data[name][at] for at in kept[name]] for name in kept}
    if not less["rule"]:
        return
    tables = PolicyTables.model_validate({**data, **less})
    for it in check(tables, policy_of(tables)):
        table, number, *keys = it.path
        if table in kept:  # as it is numbered in the file
            number = kept[str(table)][int(number)]
        yield Problem((table, number, *keys), it.text)
