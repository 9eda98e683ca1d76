"""Ports as ExaBGP's terms, and back.

ExaBGP accepts numbers and lists names, and uses one name for several ports: 8008 and
8080 are both `http-alt`. Such a port is sent as the range between its neighbors.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module

from consumers.enforcers.backend import UnsupportedMeasure
from consumers.enforcers.exabgp.vocabulary import look_up, strip_operator


def port_terms(field: str, ports: Sequence[int]) -> list[str]:
    """Return ports as terms.

    Raises:
        UnsupportedMeasure: a port is listed like another port.
    """
    terms = []
    for port in ports:
        name = _names_by_port().get(port)
        term = f"={port}"
        if name and len(_ports_by_name()[name]) > 1:
            term = f">{port - 1}&<{port + 1}"
            between = _ports_between(
                _ports_listed_as(port - 1), _ports_listed_as(port + 1)
            )
            if len(between) != 1:
                raise UnsupportedMeasure(
                    f"{field}: ExaBGP lists port {port} and another port alike"
                )
        terms.append(term)
    return terms


def port_numbers(terms: Iterable[str]) -> tuple[int, ...]:
    """Return terms of a listing as ports.

    Raises:
        ValueError: a term is not one of `port_terms`.
    """
    return tuple(map(_listed_port, terms))


def _listed_port(term: str) -> int:
    lower, is_range, upper = term.partition("&<")
    if is_range:
        (port,) = _ports_between(
            _ports_of(strip_operator(">", lower)), _ports_of(upper)
        )
    else:
        (port,) = _ports_of(strip_operator("=", term))
    return port


def _ports_of(text: str) -> Sequence[int]:
    return [int(text)] if text.isdecimal() else look_up(_ports_by_name(), text)


def _ports_listed_as(port: int) -> Sequence[int]:
    """Return the ports that are listed with the same text as *port*."""
    name = _names_by_port().get(port)
    return _ports_by_name()[name] if name else [port]


def _ports_between(lower: Sequence[int], upper: Sequence[int]) -> Sequence[int]:
    return [port + 1 for port in lower if port + 2 in upper]


@cache
def _names_by_port() -> Mapping[int, str]:
    """Return the port names of the installed ExaBGP."""
    return dict(import_module("exabgp.protocol.ip.port").Port.names)


@cache
def _ports_by_name() -> Mapping[str, Sequence[int]]:
    ports: defaultdict[str, list[int]] = defaultdict(list)
    for port, name in _names_by_port().items():
        ports[name].append(port)
    return dict(ports)
