"""Actions in the words of security formats."""

import pytest

from consumers.siem.effect import effect_of


@pytest.mark.parametrize("action", ["ban", "partial_block", "in-force"])
def test_block_is_a_start(action: str) -> None:
    assert effect_of(action).types == ("start", "denied")


@pytest.mark.parametrize("action", ["unban", "partial_unblock", "withdrawn"])
def test_end_of_a_block_is_an_end(action: str) -> None:
    assert effect_of(action).types == ("end", "allowed")


def test_failure_of_an_enforcer_is_the_most_severe() -> None:
    assert effect_of("failed").outcome == "failure"
    assert effect_of("failed").severity > effect_of("ban").severity


def test_unknown_word_is_information() -> None:
    assert effect_of("a word of tomorrow") == (("info",), 3, "")
