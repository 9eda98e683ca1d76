"""Random documents: faults of any size, and damaged real documents."""

import json
import random
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

SAMPLES: Final = Path(__file__).parents[1] / "unit" / "samples"
TEXT_ARGUMENTS: Final = ("192.0.2.1", "incoming", "1000", "ban")

Call = tuple[bytes, tuple[str, ...]]
"""A document and the arguments of its call."""

_OPEN: Final = b'{"action":"ban","ip":"192.0.2.1","x":'


def _many(head: bytes, member: bytes, end: bytes) -> Callable[[int], bytes]:
    return lambda size: head + member * (size // len(member)) + end


def _keys(size: int) -> bytes:
    names = b",".join(b'"k%d":1' % number for number in range(size // 10))
    return b'{"action":"ban","ip":"192.0.2.1",' + names + b"}"


def _networks(size: int) -> bytes:
    names = b",".join(b'"%d/x"' % number for number in range(size // 10))
    head = b'{"action":"ban","alert_scope":"hostgroup","hostgroup_name":"x",'
    return head + b'"hostgroup_networks":[' + names + b"]}"


FAULTS: Final[Mapping[str, Callable[[int], bytes]]] = {
    "an open string of escaped quotes": _many(_OPEN + b'"', b'\\"', b""),
    "an open string of backslashes": _many(_OPEN + b'"', b"\\", b""),
    "an open string of escapes": _many(_OPEN + b'"', b"\\u0041", b""),
    "quotes": _many(_OPEN, b'"', b""),
    "open lists": _many(_OPEN, b"[", b""),
    "a list without an end": _many(_OPEN + b"[", b"{},", b""),
    "a list with a fault at its end": _many(_OPEN + b"[", b'"a",', b"?"),
    "line breaks before a fault": _many(_OPEN, b"\n", b"?"),
    "digits": _many(_OPEN, b"9", b"}"),
    "large integers": _many(_OPEN + b"[", b"9" * 4_000 + b",", b"1]}"),
    "deep large integers": _many(
        _OPEN + b"[" * 150 + b"9" * 30 + b',"', b"a", b'"' + b"]" * 150 + b"}"
    ),
    "unknown fields": _keys,
    "objects": _many(_OPEN + b"[", b"{},", b"{}]}"),
    "misfit rules": _many(
        b'{"action":"ban","ip":"192.0.2.1","flow_spec_rules":[', b'{"x":1},', b"{}]}"
    ),
    "misfit samples": _many(
        b'{"action":"ban","ip":"192.0.2.1","packet_dump_detailed":[',
        b'{"a":1},',
        b"{}]}",
    ),
    "misfit lines": _many(
        b'{"action":"ban","ip":"192.0.2.1","packet_dump":[', b"1,", b"1]}"
    ),
    "misfit networks": _networks,
}
"""JSON documents about as large as asked for, by what is wrong with them."""

TEXT_FAULTS: Final[Mapping[str, Callable[[int], bytes]]] = {
    "misfit figures": _many(b"", b"Incoming syn tcp pps: x\n", b""),
    "one long label": _many(b"A", b"a ", b""),
    "blanks and letters": _many(b"Aa", b" a", b""),
    "unknown labels": _many(b"", b"Aa a a a a: x\n", b""),
    "packets": _many(b"", b"a > b protocol: \n", b""),
    "half packets": _many(b"", b"a > ", b""),
    "digits of a figure": _many(b"Incoming syn tcp pps: ", b"9", b""),
    "no UTF-8": _many(b"", b"\xff", b""),
    "line breaks": _many(b"", b"\n", b""),
}
"""The same for reports of the text mode."""

_BITS: Final = (
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b'\\"', b"\0", b"\xff", b"\n"),
    *(b"null", b"true", b"-1", b"1e999", b"9" * 400, b"\\ud800", b"\xef\xbb\xbf"),
    *(b'"ip"', b'"action"', b'"hostgroup"', b'"attack_details"', b"\xe2\x80\xae"),
    b'"flow_spec_rules":[{"destination_prefix":"0.0.0.0/0"}]',
)
_WORDS: Final = (
    "ip",
    "alert_scope",
    "hostgroup_name",
    "new",
    "",
    "~/",
    "\u202e",
    "a" * 999,
)
_VALUES: Final[tuple[Any, ...]] = (
    *(None, True, 0, -1, 2**31, 2**63, 10**400, 1.5, 1e300, "", "x", "\u202e\x1b[31m"),
    *("192.0.2.1", "2001:DB8::1", "0.0.0.0/0", "host", "hostgroup", "unban", "\ud800"),
    *(
        [],
        {},
        [[]],
        [None],
        [{}],
        {"": {}},
        ["x"] * 1_000,
        {"k": [1, "2"]},
        "y" * 9_999,
    ),
)


class Mutator:
    """Makes one document after another out of *seeds*; the same ones for each *seed*.

    Args:
        seed: of the random numbers.
        seeds: documents with their arguments.
    """

    def __init__(self, seed: int, seeds: list[Call]) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a test's
        self._seeds = seeds

    def __call__(self) -> Call:
        """Return a damaged document, and the arguments of its call."""
        random = self._random
        if random.random() < 0.05:
            size = random.choice((100, 10_000, 100_000))
            if random.random() < 0.7:
                return random.choice(tuple(FAULTS.values()))(size), ()
            return random.choice(tuple(TEXT_FAULTS.values()))(size), TEXT_ARGUMENTS
        document, arguments = random.choice(self._seeds)
        if random.random() < 0.6:
            document = self._changed(document)
        else:
            for _ in range(random.randint(1, 4)):
                document = self._damaged(document)
        if random.random() < 0.1:
            arguments = random.choice(((), TEXT_ARGUMENTS, ("ban", "192.0.2.1")))
        return document, arguments

    def _changed(self, document: bytes) -> bytes:
        """Return the document with other values here and there; JSON if it was."""
        try:
            value = json.loads(document)
        except ValueError:
            return self._damaged(document)
        for _ in range(self._random.randint(1, 3)):
            self._change(value)
        return json.dumps(value, ensure_ascii=self._random.random() < 0.5).encode(
            "utf-8", "surrogatepass"
        )

    def _change(self, value: Any) -> None:
        random = self._random
        keys = list(value) if isinstance(value, dict) else range(len(value))
        if not keys:
            return
        key = random.choice(keys)
        if isinstance(value[key], dict | list) and random.random() < 0.8:
            self._change(value[key])
        elif isinstance(value, dict) and random.random() < 0.2:
            value[random.choice(_WORDS)] = deepcopy(random.choice(_VALUES))
        elif random.random() < 0.2:
            del value[key]
        else:
            value[key] = deepcopy(random.choice(_VALUES))

    def _damaged(self, document: bytes) -> bytes:
        random = self._random
        start = random.randint(0, len(document))
        end = min(len(document), start + random.choice((0, 1, 8, 200)))
        match random.randrange(6):
            case 0:
                return document[:start]
            case 1:
                return document[:start] + document[end:]
            case 2:
                return document[:start] + random.choice(_BITS) + document[end:]
            case 3:
                return document[:start] + random.randbytes(3) + document[start:]
            case 4:
                part = document[start:end] * random.choice((2, 50))
                return document[:start] + part + document[end:]
        other, _arguments = random.choice(self._seeds)
        return document[:start] + other[random.randint(0, len(other)) :]


def real() -> list[Call]:
    """Return the samples of FastNetMon's documents, with their calls' arguments."""
    calls: list[Call] = [
        (path.read_bytes(), ()) for path in sorted(SAMPLES.glob("*.json"))
    ]
    calls += [
        (path.read_bytes(), TEXT_ARGUMENTS) for path in sorted(SAMPLES.glob("*.txt"))
    ]
    return calls
