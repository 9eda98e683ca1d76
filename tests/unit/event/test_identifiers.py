"""Addresses, networks and names."""

import pytest

from fnm_bus.errors import InvalidNotification
from fnm_bus.event.identifiers import parse_address, parse_name, parse_network


@pytest.mark.parametrize(
    ("sent", "canonical"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("0.0.0.0", "0.0.0.0"),  # noqa: S104 - an address in a document, nothing listens
        ("2001:db8::7", "2001:db8::7"),
        ("2001:DB8:0:0:0:0:0:7", "2001:db8::7"),
        ("2001:0db8:0000:0000:0000:0000:0000:0007", "2001:db8::7"),
        ("fd00::0001", "fd00::1"),  # Community's spelling
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
        ("::", "::"),
        ("64:ff9b::192.0.2.1", "64:ff9b::c000:201"),
        ("::FFFF:192.0.2.1", "::ffff:192.0.2.1"),
        ("::ffff:c000:0201", "::ffff:192.0.2.1"),
    ],
)
def test_an_address_is_returned_in_canonical_text(sent: str, canonical: str) -> None:
    assert parse_address(sent, "/ip") == canonical


def test_canonical_text_stays_as_it_is() -> None:
    for text in ("192.0.2.1", "2001:db8::7", "::ffff:192.0.2.1", "::"):
        assert parse_address(parse_address(text, "/ip"), "/ip") == text


def test_a_refused_address_names_its_field() -> None:
    with pytest.raises(InvalidNotification) as caught:
        parse_address("192.0.2.1/32", "argument 1")
    assert caught.value.field == "argument 1"
    assert caught.value.actual == "the text '192.0.2.1/32'"


@pytest.mark.parametrize(
    ("sent", "canonical"),
    [
        ("10.10.1.2/16", "10.10.0.0/16"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("192.0.2.1", "192.0.2.1/32"),
        ("2001:DB8::1/32", "2001:db8::/32"),
        ("::ffff:192.0.2.1/120", "::ffff:192.0.2.0/120"),
        ("10.0.0.0/", None),
        ("10.0.0.0/33", None),
        ("10.0.0.0/-1", None),
        ("10.0.0.0/8/8", None),
        ("10.0.0.0/255.0.0.0", None),
        ("10.0.0.0/٨", None),
        ("010.0.0.0/8", None),
        ("fe80::1%eth0/64", None),
        (" 10.0.0.0/8", None),
        ("10.0.0.0/8\n", None),
        ("", None),
        ("servers", None),
    ],
)
def test_a_network_has_no_host_bits_or_is_none(
    sent: str, canonical: str | None
) -> None:
    assert parse_network(sent) == canonical


@pytest.mark.parametrize("text", ["ban", "a b", "Сервера", "x" * 1024, "<&'\">"])
def test_a_name_may_be_any_text(text: str) -> None:
    assert parse_name(text, "/action", "an action") == text


@pytest.mark.parametrize(
    "value",
    ["", " ", "\t", "a\n", "\x00", "a\x7fb", "a\x85b", "\ud800", "x" * 1025, 1, None],
)
def test_an_unfit_name_is_refused(value: object) -> None:
    with pytest.raises(InvalidNotification) as caught:
        parse_name(value, "/action", "an action")
    assert caught.value.reason.isprintable()
