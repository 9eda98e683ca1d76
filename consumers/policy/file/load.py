"""Load a policy file: TOML ▶ tables ▶ the policy; all problems at once."""

import hashlib
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from consumers.mitigation.measure import Network
from consumers.policy.file.check import find_problems
from consumers.policy.file.field_types import parse_route_target
from consumers.policy.file.problems import Key, Problem, describe, format_problems
from consumers.policy.file.tables import (
    ActionTable,
    HostgroupTable,
    MatchTable,
    PolicyTables,
    RuleTable,
)
from consumers.policy.model import Action, Customer, Limits, Match, Policy, Rule
from fnm_bus.errors import ConfigError
from fnm_bus.event import FlowThen

_SEPARABLE: Final = frozenset({"rule", "customer"})
"""Tables that can be left out while the others are checked."""
_DIGEST_LENGTH: Final = 16


def load(path: Path) -> Policy:
    """Return the policy of a file.

    Raises:
        ConfigError: the file cannot be read; or a list of all problems, one a line.
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

    Raises:
        ConfigError: a list of all problems, one a line.
    """
    try:
        data = tomllib.loads(text)
    except RecursionError as exc:
        raise ConfigError(f"{name}: nested too deeply") from exc
    except ValueError as exc:  # also from int() and datetime()
        raise ConfigError(f"{name}: not valid TOML: {exc}") from exc
    try:
        tables = PolicyTables.model_validate(data)
    except ValidationError as exc:
        errors = exc.errors(include_url=False)
        problems = [Problem(error["loc"], describe(error)) for error in errors]
        problems += _remaining_problems(data, {error["loc"][:2] for error in errors})
    else:
        policy = build_policy(tables)
        problems = find_problems(tables, policy)
        if not problems:
            return policy
    raise ConfigError(format_problems(problems, data, name))


def build_policy(tables: PolicyTables) -> Policy:
    """Return the policy of valid tables."""
    guardrails = tables.guardrails
    return Policy(
        rules=tuple(
            Rule(
                name=rule.name,
                match=_build_match(rule.match),
                action=_build_rule_action(rule),
            )
            for rule in tables.rule
        ),
        limits=Limits(own_networks=tables.own_networks, **dict(guardrails)),
        hostgroups={
            group.name: _build_hostgroup_action(group) for group in tables.hostgroup
        },
        customers=tuple(
            Customer(
                name=customer.name,
                networks=customer.networks,
                max_active=guardrails.max_per_customer
                if customer.max_active is None
                else customer.max_active,
            )
            for customer in tables.customer
        ),
        digest=_digest(tables),
    )


def _digest(tables: PolicyTables) -> str:
    content = json.dumps(tables.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:_DIGEST_LENGTH]


def _build_match(table: MatchTable) -> Match:
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


def _build_rule_action(rule: RuleTable) -> Action:
    then = rule.then
    return _build_action(
        then,
        then.action,
        then.prefixes or (),
        when_limited=then.when_limited,
        document_targets=then.document_targets,
        document_redirect=then.document_redirect,
    )


def _build_hostgroup_action(group: HostgroupTable) -> Action:
    return _build_action(group, group.action, group.prefixes)


def _build_action(
    table: ActionTable, action: str, prefixes: tuple[Network, ...], **more: Any
) -> Action:
    return Action(
        action=action,
        flowspec_action=_build_flowspec_action(table),
        lease=table.lease,
        enforcers=table.enforcers or (),
        communities=table.communities,
        prefixes=prefixes,
        dry_run=table.dry_run,
        approval=table.approval,
        any_protocol=table.any_protocol,
        **more,
    )


def _build_flowspec_action(table: ActionTable) -> FlowThen | None:
    if table.flowspec_action is None:
        return None
    number, value = (
        parse_route_target(table.redirect) if table.redirect else (None, None)
    )
    return FlowThen(
        action=table.flowspec_action,
        rate=table.rate,
        redirect_as=number,
        redirect_value=value,
    )


def _remaining_problems(data: dict[str, Any], bad: set[Key]) -> Iterator[Problem]:
    """Yield the problems of a file without its bad rules and customers.

    Yields none if another table is bad, since rules and customers depend on it.
    """
    if any(len(key) < 2 or key[0] not in _SEPARABLE for key in bad):  # noqa: PLR2004 - table and number
        return
    indexes = {
        name: [
            index
            for index in range(len(data.get(name, ())))
            if (name, index) not in bad
        ]
        for name in _SEPARABLE
    }
    good = {name: [data[name][index] for index in indexes[name]] for name in indexes}
    if not good["rule"]:
        return
    tables = PolicyTables.model_validate({**data, **good})
    for problem in find_problems(tables, build_policy(tables)):
        table, number, *keys = problem.path
        if table in indexes:  # the number in the file
            number = indexes[str(table)][int(number)]
        yield Problem((table, number, *keys), problem.text)
