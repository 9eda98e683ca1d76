"""Words of FlowSpec values as ExaBGP's terms, and back."""

import pytest

from consumers.enforcers.exabgp import vocabulary


@pytest.mark.parametrize("word", sorted(vocabulary.PROTOCOLS))
def test_term_of_protocol_leads_back_to_its_word(word: str) -> None:
    terms = vocabulary.protocol_terms([word])
    assert vocabulary.protocol_words(terms) == (word,)
