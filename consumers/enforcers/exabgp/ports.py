"""Ports in ExaBGP's words, and back.

ExaBGP takes numbers and lists names, and gives one name to several ports: 8008 and 8080
are both `http-alt`. Such a port is said as what lies between its neighbors.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module

from consumers.enforcers.backend import UnsupportedMeasure
from consumers.enforcers.exabgp.vocabulary import after, known, numbers


def ports(field: str, numbers_: Sequence[int]) -> list[str]:
    """Return ports as terms.

    Raises:
        UnsupportedMeasure: one is no port, or is listed like another port.
    """
    found = []
    for it in numbers(field, numbers_):
        name = _names().get(it)
        term = f"={it}"
        if name and len(_named()[name]) > 1:
            term = f">{it - 1}&<{it + 1}"
            if len(_between(_maybe(it - 1), _maybe(it + 1))) != 1:
                raise UnsupportedMeasure(
                    f"{field}: ExaBGP cannot tell port {it} from another of its name"
                )
        found.append(term)
    return found


def port_numbers(terms: Iterable[str]) -> tuple[int, ...]:
    """Return terms of a listing as ports.

    Raises:
        ValueError: it is no term of ours.
    """
    return tuple(map(_listed_port, terms))


def _listed_port(term: str) -> int:
    below, joined, above = term.partition("&<")
    if joined:
        (found,) = _between(_numbers(after(">", below)), _numbers(above))
        return found
    (found,) = _numbers(after("=", term))
    return found


def _numbers(text: str) -> Sequence[int]:
    return [int(text)] if text.isdecimal() else known(_named(), text)


def _maybe(number: int) -> Sequence[int]:
    """Return the ports that are listed as *number* is."""
    name = _names().get(number)
    return _named()[name] if name else [number]


def _between(below: Sequence[int], above: Sequence[int]) -> Sequence[int]:
    return [it + 1 for it in below if it + 2 in above]


@cache
def _names() -> Mapping[int, str]:
    """Return the names of ports, of the very ExaBGP that runs."""
    return dict(import_module("exabgp.protocol.ip.port").Port.names)


@cache
def _named() -> Mapping[str, Sequence[int]]:
    found: defaultdict[str, list[int]] = defaultdict(list)
    for number, name in _names().items():
        found[name].append(number)
    return dict(found)
