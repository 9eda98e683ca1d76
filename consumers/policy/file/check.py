"""Check of a policy: problems of a key in combination with other keys."""

from collections.abc import Iterator, Sequence
from typing import Final

from consumers.mitigation.measure import BLACKHOLE, FIREWALL, FLOWSPEC, Measure, Network
from consumers.policy import guardrails
from consumers.policy.file.problems import Key, Problem
from consumers.policy.file.reach import impossible_conditions, unreachable_rules
from consumers.policy.file.tables import ActionTable, PolicyTables, ThenTable
from consumers.policy.measures import MAX_MEASURES
from consumers.policy.model import HOSTGROUP, IGNORE, Limits, Policy
from consumers.policy.networks import is_within

_SUPPORTED: Final = {"exabgp": {BLACKHOLE, FLOWSPEC}, "nftables": {FIREWALL}}
"""Enforcer → supported kinds of measures; other enforcers may support any."""
_FLOWSPEC_KEYS: Final = (
    *("flowspec_action", "rate", "redirect", "any_protocol"),
    *("document_targets", "document_redirect"),
)


def find_problems(tables: PolicyTables, policy: Policy) -> list[Problem]:
    """Return the problems of *tables*."""
    problems: list[Problem] = []
    for kind in ("customer", "hostgroup", "rule"):
        problems += _check_names(kind, [row.name for row in getattr(tables, kind)])
    problems += _check_networks(policy.limits)
    problems += _check_customers(policy)
    for number, group in enumerate(tables.hostgroup):
        at: Key = ("hostgroup", number)
        problems += _check_action(group, group.action, at)
        problems += _check_prefixes(group.prefixes, policy.limits, (*at, "prefixes"))
    for number, rule in enumerate(tables.rule):
        at = ("rule", number, "then")
        problems += _check_action(rule.then, rule.then.action, at)
        problems += _check_hostgroup(rule.then, rule.match.hostgroup, policy, at)
        problems += _check_prefixes(
            rule.then.prefixes or (), policy.limits, (*at, "prefixes")
        )
    return [*problems, *impossible_conditions(policy), *unreachable_rules(policy)]


def _check_names(kind: str, names: Sequence[str]) -> Iterator[Problem]:
    for number, name in enumerate(names):
        if name in names[:number]:
            yield Problem((kind, number, "name"), f"an earlier {kind} has this name")


def _check_networks(limits: Limits) -> Iterator[Problem]:
    for number, own in enumerate(limits.own_networks):
        for name, text in _refusals(own, limits):
            if name == "special_address":
                yield Problem(("own_networks", number), text)
    for name in ("protected_prefixes", "infrastructure"):
        for number, network in enumerate(getattr(limits, name)):
            for own in limits.own_networks:
                if is_within(own, network):
                    yield Problem(
                        ("guardrails", name, number),
                        f"{network} covers all of your network {own}: every measure"
                        " there would be refused",
                    )


def _check_customers(policy: Policy) -> Iterator[Problem]:
    for number, customer in enumerate(policy.customers):
        at = ("customer", number, "networks")
        for place, network in enumerate(customer.networks):
            if policy.limits.own.containing(network) is None:
                yield Problem(
                    (*at, place), f"{network} is not within your own networks"
                )
            for earlier in policy.customers[:number]:
                if any(is_within(network, outer) for outer in earlier.networks):
                    yield Problem(
                        (*at, place),
                        f'{network} is within a network of customer "{earlier.name}",'
                        " which is tried before; move this customer up",
                    )


def _check_prefixes(
    prefixes: tuple[Network, ...], limits: Limits, path: Key
) -> Iterator[Problem]:
    if len(prefixes) > MAX_MEASURES:
        text = f"{len(prefixes)} prefixes, allowed are {MAX_MEASURES}"
        yield Problem(path, text)
    for number, prefix in enumerate(prefixes):
        for _, text in _refusals(prefix, limits):
            yield Problem((*path, number), f"{text}; it would always be refused")


def _refusals(network: Network, limits: Limits) -> Iterator[tuple[str, str]]:
    """Yield name and text of each guardrail that would refuse a measure."""
    measure = Measure(kind=BLACKHOLE, prefix=str(network))
    for result in guardrails.check_measure(measure, limits, named=(network,)):
        if result.verdict == guardrails.REFUSE:
            yield result.name, result.text


def _check_action(table: ActionTable, action: str, path: Key) -> Iterator[Problem]:
    """Yield the keys of a rule or hostgroup that its action does not support."""
    written = table.model_fields_set
    if action == HOSTGROUP:
        for key in sorted(written - {"action"}):
            yield Problem(
                (*path, key),
                'a rule with action "hostgroup" takes the action of the [[hostgroup]]:'
                " write this key there",
            )
        return
    if action != FLOWSPEC:
        for key in _FLOWSPEC_KEYS:
            if key in written:
                text = f'only action "flowspec" has this key, and this is "{action}"'
                yield Problem((*path, key), text)
    else:
        yield from _check_flowspec(table, path)
    if table.communities and action != BLACKHOLE:
        text = f'only action "blackhole" has this key, and this is "{action}"'
        yield Problem((*path, "communities"), text)
    enforcers = table.enforcers or ()
    supported = [_SUPPORTED.get(name, {action}) for name in enforcers]
    if enforcers and action != IGNORE and not any(action in s for s in supported):
        yield Problem(
            (*path, "enforcers"),
            f'none of {", ".join(enforcers)} supports action "{action}": exabgp'
            " supports blackhole and flowspec, nftables firewall",
        )


def _check_flowspec(table: ActionTable, path: Key) -> Iterator[Problem]:
    for key, action, remedy in (
        ("rate", "rate-limit", "write it, in bytes/s"),
        ("redirect", "redirect", 'write the route target, as "64500:100"'),
    ):
        present = getattr(table, key) is not None
        if table.flowspec_action == action and not present:
            text = f'is missing for flowspec_action "{action}"; {remedy}'
            yield Problem((*path, key), text)
        elif present and table.flowspec_action != action:
            text = f'needs flowspec_action = "{action}" beside it'
            yield Problem((*path, key), text)


def _check_hostgroup(
    then: ThenTable, hostgroups: tuple[str, ...] | None, policy: Policy, path: Key
) -> Iterator[Problem]:
    """Yield a problem when a rule refers to a hostgroup that has no table."""
    key = "action" if then.action == HOSTGROUP else "when_limited"
    if getattr(then, key) != HOSTGROUP:
        return
    if not policy.hostgroups:
        text = '"hostgroup" needs a [[hostgroup]], and the file has none'
        yield Problem((*path, key), text)
    elif missing := sorted(set(hostgroups or ()) - set(policy.hostgroups)):
        text = f"there is no [[hostgroup]] with the name {' or '.join(missing)}"
        yield Problem((*path, key), text)
