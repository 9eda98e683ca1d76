"""Flow Spec rules of a document: which of them are wholly understood, and their names.

A rule of which something is in the event's `extra` would match more than FastNetMon
meant: it is refused with the reason, and nothing takes its place.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from consumers.mitigation.reason_key import ATTACK, OPERATOR
from fnm_bus.event import Check, FlowSpecRule
from fnm_bus.event.extra import shorten
from fnm_bus.kafka.route import rule_identity

MAX_RULES: Final = 256
"""Flow Spec rules of one document that may start measures."""
MAX_PART: Final = 500
"""Characters of the name of a part; a digest replaces a longer name."""

MAX_TEXT: Final = 200
"""Characters of a text that a document has a part in."""

_POINTER: Final = "/flow_spec_rules"
_INDEX: Final = re.compile(r"[0-9]{1,9}")


class ReadRule(NamedTuple):
    """One rule of a document.

    Attributes:
        rule: as it is in the event.
        extra: what of it is not understood, by JSON Pointer within the rule.
        refusal: why it is not acted on; None when it is wholly understood.
    """

    rule: FlowSpecRule
    extra: Mapping[str, str] = {}
    refusal: Check | None = None


class RuleReading(NamedTuple):
    """The rules of a document.

    Attributes:
        parts: the rules, in their order; a single one without a match when there are
            too many, or when the document's list itself is not understood.
        present: whether the document had rules.
    """

    parts: tuple[ReadRule, ...]
    present: bool

    @property
    def understood(self) -> tuple[FlowSpecRule, ...]:
        """The rules that are wholly understood."""
        return tuple(part.rule for part in self.parts if part.refusal is None)

    @property
    def refusals(self) -> tuple[Check, ...]:
        """Why the others are not acted on."""
        return tuple(part.refusal for part in self.parts if part.refusal is not None)


def read_rules(
    rules: Sequence[FlowSpecRule], extra: Mapping[str, str], *, unlimited: bool
) -> RuleReading:
    """Return the rules of a document.

    Args:
        rules: the event's rules.
        extra: the event's extra.
        unlimited: whether more than MAX_RULES are read, because they end measures.
    """
    faults = _faults(extra, len(rules))
    if len(rules) > MAX_RULES and not unlimited:
        text = f"{len(rules)} Flow Spec rules, allowed are {MAX_RULES}"
        return _refused_whole("too_many_measures", text)
    if -1 in faults:
        return _refused_whole("rule_not_understood", "the list is not understood")
    return RuleReading(
        tuple(
            ReadRule(rule, faults[index], _refusal(index, faults[index]))
            if index in faults
            else ReadRule(rule)
            for index, rule in enumerate(rules)
        ),
        present=bool(rules) or bool(faults),
    )


def without_rules() -> ReadRule:
    """Return what stands for the rules of a partial block that has none."""
    text = "a partial block or unblock without Flow Spec rules"
    refusal = _check("flow_spec_rules", "no_rules", text)
    return ReadRule(FlowSpecRule(), {"": text}, refusal)


def part_of(read: ReadRule) -> str:
    """Return the name of a rule's part; it is never the attack's or an operator's.

    A rule that is not understood and has no uuid is named by a digest of all that was
    sent, so that it does not have the name of a rule that is understood.
    """
    name = rule_identity(read.rule)
    if read.extra and not read.rule.uuid:
        whole = json.dumps([name, sorted(read.extra.items())])
    elif len(name) > MAX_PART or name in {ATTACK, OPERATOR, ""}:
        whole = name
    else:
        return name
    return f"sha256:{hashlib.sha256(whole.encode('utf-8', 'replace')).hexdigest()}"


def _faults(extra: Mapping[str, str], count: int) -> dict[int, dict[str, str]]:
    """Return index of a rule → what of it is in extra; -1 for the list itself."""
    faults: dict[int, dict[str, str]] = {}
    for pointer, value in extra.items():
        if pointer != _POINTER and not pointer.startswith(f"{_POINTER}/"):
            continue
        number, _, rest = pointer[len(_POINTER) + 1 :].partition("/")
        index = int(number) if _INDEX.fullmatch(number) else count
        faults.setdefault(index if index < count else -1, {})[rest] = value
    return faults


def _refusal(index: int, extra: Mapping[str, str]) -> Check:
    path, value = next(iter(extra.items()))
    more = f", and {len(extra) - 1} more" if len(extra) > 1 else ""
    text = shorten(f"not understood: {path or 'the rule'} = {value}", MAX_TEXT)
    return _check(f"flow_spec_rules/{index}", "rule_not_understood", f"{text}{more}")


def _refused_whole(code: str, text: str) -> RuleReading:
    refusal = _check("flow_spec_rules", code, text)
    return RuleReading((ReadRule(FlowSpecRule(), {"": text}, refusal),), present=True)


def _check(name: str, code: str, text: str) -> Check:
    return Check(stage="policy", name=name, code=code, verdict="refuse", text=text)
