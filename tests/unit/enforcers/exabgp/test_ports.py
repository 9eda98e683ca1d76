"""Ports: every port is listed with a term that leads back to it, or refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.enforcers.backend import UnsupportedMeasure
from consumers.enforcers.exabgp import ports

REFUSED = {454, 3365}
"""Ports whose term would be listed like another port's."""


def test_ports_with_a_shared_name_are_distinguished() -> None:
    names = ports._names_by_port()
    shared = [
        port
        for same_name in ports._ports_by_name().values()
        if len(same_name) > 1
        for port in same_name
    ]
    assert {7, 8008, 8080} <= set(shared)
    refused = set()
    for port in shared:
        try:
            (term,) = ports.port_terms("source_ports", [port])
        except UnsupportedMeasure:
            refused.add(port)
            continue
        lower, upper = (names.get(int(n), n) for n in term[1:].split("&<"))
        assert ports.port_numbers([f">{lower}&<{upper}"]) == (port,)
    assert refused == REFUSED


@given(st.integers(0, 65535).filter(lambda port: port not in REFUSED))
def test_listed_port_leads_back_to_its_number(port: int) -> None:
    (term,) = ports.port_terms("source_ports", [port])
    name = ports._names_by_port().get(port)
    listed = f"={name}" if name and term.startswith("=") else term
    assert ports.port_numbers([listed]) == (port,)


@pytest.mark.parametrize("port", sorted(REFUSED))
def test_ambiguous_port_is_refused(port: int) -> None:
    with pytest.raises(UnsupportedMeasure, match="source_ports"):
        ports.port_terms("source_ports", [port])
