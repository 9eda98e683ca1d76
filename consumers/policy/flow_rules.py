"""Flow Spec rules of a document: those that were parsed completely, and their names.

If a part of a rule is in the event's `extra`, the rule would match more traffic than
FastNetMon's own. Such a rule is refused with a reason and is not replaced.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from consumers.mitigation.reason_key import ATTACK, OPERATOR
from fnm_bus.event import Check, FlowSpecRule
from fnm_bus.event.extra import shorten
from fnm_bus.kafka.addressing import rule_identity

MAX_RULES: Final = 256
"""Flow Spec rules of one document that may start measures."""
MAX_PART: Final = 500
"""Characters of the name of a part; a digest replaces a longer name."""

MAX_TEXT: Final = 200
"""Characters of a text with words from a document."""

_POINTER: Final = "/flow_spec_rules"
_INDEX: Final = re.compile(r"[0-9]{1,9}")


class ParsedRule(NamedTuple):
    """One rule of a document.

    Attributes:
        rule: as it is in the event.
        extra: the parts that were not parsed, by JSON Pointer within the rule.
        refusal: why the rule is refused; None when it was parsed completely.
    """

    rule: FlowSpecRule
    extra: Mapping[str, str] = {}
    refusal: Check | None = None


class ParsedRules(NamedTuple):
    """The rules of a document.

    Attributes:
        rules: the rules, in their order; a single one without a match when there are
            too many, or when the document's list itself is invalid.
        present: whether the document had rules.
    """

    rules: tuple[ParsedRule, ...]
    present: bool

    @property
    def valid(self) -> tuple[FlowSpecRule, ...]:
        """The rules that were parsed completely."""
        return tuple(parsed.rule for parsed in self.rules if parsed.refusal is None)

    @property
    def refusals(self) -> tuple[Check, ...]:
        """The refusals of all other rules."""
        return tuple(parsed.refusal for parsed in self.rules if parsed.refusal)


def refusal(name: str, code: str, text: str, stage: str = "policy") -> Check:
    """Return a check that refuses."""
    return Check(stage=stage, name=name, code=code, verdict="refuse", text=text)


def parse_rules(
    rules: Sequence[FlowSpecRule], extra: Mapping[str, str], *, unlimited: bool
) -> ParsedRules:
    """Return the rules of a document.

    Args:
        rules: the event's rules.
        extra: the event's extra.
        unlimited: whether more than MAX_RULES are allowed, because they end measures.
    """
    faults = _faults(extra, len(rules))
    if len(rules) > MAX_RULES and not unlimited:
        text = f"{len(rules)} Flow Spec rules, allowed are {MAX_RULES}"
        return _refused_whole("too_many_measures", text)
    if -1 in faults:
        return _refused_whole("rule_not_understood", "the list is not understood")
    return ParsedRules(
        tuple(
            ParsedRule(rule, faults[index], _refuse_rule(index, faults[index]))
            if index in faults
            else ParsedRule(rule)
            for index, rule in enumerate(rules)
        ),
        present=bool(rules) or bool(faults),
    )


def missing_rules() -> ParsedRule:
    """Return the refused rule of a partial block without Flow Spec rules."""
    text = "a partial block or unblock without Flow Spec rules"
    check = refusal("flow_spec_rules", "no_rules", text)
    return ParsedRule(FlowSpecRule(), {"": text}, check)


def part_of(parsed: ParsedRule) -> str:
    """Return the name of a rule's part; it is never the attack's or an operator's.

    The name of an invalid rule without uuid is a digest of all its content. So it
    differs from the name of each valid rule.
    """
    name = rule_identity(parsed.rule)
    if parsed.extra and not parsed.rule.uuid:
        whole = json.dumps([name, sorted(parsed.extra.items())])
    elif len(name) > MAX_PART or name in {ATTACK, OPERATOR, ""}:
        whole = name
    else:
        return name
    return f"sha256:{hashlib.sha256(whole.encode('utf-8', 'replace')).hexdigest()}"


def _faults(extra: Mapping[str, str], count: int) -> dict[int, dict[str, str]]:
    """Return index of a rule → its part of *extra*; -1 for the list itself."""
    faults: dict[int, dict[str, str]] = {}
    for pointer, value in extra.items():
        if pointer != _POINTER and not pointer.startswith(f"{_POINTER}/"):
            continue
        number, _, rest = pointer[len(_POINTER) + 1 :].partition("/")
        index = int(number) if _INDEX.fullmatch(number) else count
        faults.setdefault(index if index < count else -1, {})[rest] = value
    return faults


def _refuse_rule(index: int, extra: Mapping[str, str]) -> Check:
    path, value = next(iter(extra.items()))
    more = f", and {len(extra) - 1} more" if len(extra) > 1 else ""
    text = shorten(f"not understood: {path or 'the rule'} = {value}", MAX_TEXT)
    return refusal(f"flow_spec_rules/{index}", "rule_not_understood", f"{text}{more}")


def _refused_whole(code: str, text: str) -> ParsedRules:
    check = refusal("flow_spec_rules", code, text)
    return ParsedRules((ParsedRule(FlowSpecRule(), {"": text}, check),), present=True)
