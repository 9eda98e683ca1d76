"""Policy check: mistakes that no key has by itself, but with others."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from consumers.mitigation.measure import BLACKHOLE, FIREWALL, FLOWSPEC, Measure, Network
from consumers.policy import guardrails
from consumers.policy.model import GROUP, NOTHING, Limits, Policy, within
from consumers.policy.file.mistakes import Problem
from consumers.policy.file.reach import impossible, unreachable
from consumers.policy.file.tables import DeedTable, PolicyTables, ThenTable
from consumers.policy.file.toml_lines import Path

_ABLE: Final = {"exabgp": {BLACKHOLE, FLOWSPEC}, "nftables": {FIREWALL}}
"""Enforcer → the kinds of measures that it knows; others may know any."""


def check(tables: PolicyTables, policy: Policy) -> list[Problem]:
    """Return the mistakes in *tables*, of which *policy* was made."""
    found: list[Problem] = []
    for kind in ("customer", "group", "rule"):
        names = [it.name for it in getattr(tables, kind)]
        found += _twice(kind, names)
    found += _networks(policy.limits)
    found += _customers(policy)
    for number, group in enumerate(tables.group):
        at: Path = ("group", number)
        found += _deed(group, group.outcome, at)
        found += _prefixes(group.prefixes, policy.limits, (*at, "prefixes"))
    for number, rule in enumerate(tables.rule):
        at = ("rule", number, "then")
        found += _deed(rule.then, rule.then.outcome, at)
        found += _group(rule.then, rule.match.hostgroup, policy, at)
        found += _prefixes(rule.then.prefixes or (), policy.limits, (*at, "prefixes"))
    return [*found, *impossible(policy), *unreachable(policy)]


def _twice(kind: str, names: Sequence[str]) -> Iterator[Problem]:
    for number, name in enumerate(names):
        if name in names[:number]:
            yield Problem(
                (kind, number, "name"), f"there is a {kind} of this name before"
            )


def _networks(limits: Limits) -> Iterator[Problem]:
    at: Path = ("own", "networks")
    for number, own in enumerate(limits.own):
        special = _refused(own, limits, lambda name: name == "special")
        for text in special:
            yield Problem((*at, number), text)
    for name in ("never", "addresses"):
        for number, it in enumerate(getattr(limits, name)):
            for own in limits.own:
                if within(own, it):
                    yield Problem(
                        ("guardrails", name, number),
                        f"{it} covers all of your network {own}: every measure there"
                        " would be refused; name less",
                    )


def _customers(policy: Policy) -> Iterator[Problem]:
    for number, customer in enumerate(policy.customers):
        at = ("customer", number, "networks")
        for place, network in enumerate(customer.networks):
            if not any(within(network, own) for own in policy.limits.own):
                yield Problem(
                    (*at, place), f"{network} is not within your own networks"
                )
            for before in policy.customers[:number]:
                if any(within(network, it) for it in before.networks):
                    yield Problem(
                        (*at, place),
                        f'{network} is within a network of customer "{before.name}",'
                        " which is asked before; move this customer up",
                    )


def _prefixes(
    prefixes: tuple[Network, ...], limits: Limits, path: Path
) -> Iterator[Problem]:
    for number, prefix in enumerate(prefixes):
        for text in _refused(prefix, limits, lambda _: True):
            yield Problem((*path, number), f"{text}; it would always be refused")


def _refused(
    network: Network, limits: Limits, asked: Callable[[str], bool]
) -> Iterator[str]:
    """Yield why the guardrails would refuse a measure about *network*."""
    measure = Measure(kind=BLACKHOLE, prefix=str(network))
    for it in guardrails.allowed(measure, limits):
        if it.verdict == guardrails.REFUSE and asked(it.name):
            yield it.text if str(network) in it.text else f"{network}: {it.text}"


def _deed(deed: DeedTable, outcome: str, path: Path) -> Iterator[Problem]:
    """Yield what a rule's or a group's keys say that its outcome does not do."""
    written = deed.model_fields_set
    if outcome == GROUP:
        for key in sorted(written - {"outcome"}):
            yield Problem(
                (*path, key),
                'a rule with outcome "group" does what the [[group]] says: write it'
                " there",
            )
        return
    for key in ("action", "rate", "redirect"):
        if key in written and outcome != FLOWSPEC:
            yield Problem(
                (*path, key), f'only outcome "flowspec" has it, and this is "{outcome}"'
            )
    if outcome == FLOWSPEC:
        yield from _flowspec(deed, path)
    if deed.communities and outcome != BLACKHOLE:
        yield Problem(
            (*path, "communities"),
            f'only outcome "blackhole" has them, and this is "{outcome}"',
        )
    able = [_ABLE.get(it, {outcome}) for it in deed.enforcers or ()]
    if able and outcome != NOTHING and not any(outcome in it for it in able):
        yield Problem(
            (*path, "enforcers"),
            f'none of {", ".join(deed.enforcers or ())} knows outcome "{outcome}":'
            " exabgp knows blackhole and flowspec, nftables firewall",
        )


def _flowspec(deed: DeedTable, path: Path) -> Iterator[Problem]:
    for key, action, lacks in (
        ("rate", "rate-limit", "write it, in bytes/s"),
        ("redirect", "redirect", 'write where to, as "64500:100"'),
    ):
        there = getattr(deed, key) is not None
        if deed.action == action and not there:
            yield Problem((*path, key), f'is missing for action "{action}"; {lacks}')
        elif there and deed.action != action:
            yield Problem((*path, key), f'wants action = "{action}" beside it')


def _group(
    then: ThenTable, hostgroups: tuple[str, ...] | None, policy: Policy, path: Path
) -> Iterator[Problem]:
    """Yield where a rule leads to a group that is not there."""
    key = "outcome" if then.outcome == GROUP else "at_cap"
    if getattr(then, key) != GROUP:
        return
    if not policy.groups:
        yield Problem((*path, key), '"group" needs a [[group]], and there is none')
    elif missing := sorted(set(hostgroups or ()) - set(policy.groups)):
        yield Problem(
            (*path, key), f"there is no [[group]] with the name {' or '.join(missing)}"
        )
