"""Text as numbers and back, and what cannot be encoded."""

import numpy as np
import pytest

from jaxmod.data.tokens import decode, encode, encode_pairs

CHARACTERS = "abc "


def test_text_comes_back_and_padding_is_nothing():
    texts = ["cab", "", "a b", "bb"]
    tokens, length = encode(texts, CHARACTERS, limit=5)
    assert tokens.shape == (4, 5) and tokens.dtype == np.uint8 and length.tolist() == [3, 0, 3, 2]
    for row, text in zip(tokens, texts, strict=True):
        assert row[: len(text)].tolist() == [CHARACTERS.index(c) for c in text]
        assert not row[len(text) :].any()
    ended = np.where(np.arange(5) < length[:, None], tokens, len(CHARACTERS))
    assert ["".join(words) for words in decode(ended, CHARACTERS)] == texts


def test_what_follows_the_end_is_not_read():
    assert decode(np.array([[0, 2, 1, 0], [2, 0, 0, 0]]), ["left", "run"]) == [["left"], []]


def test_pairs_are_as_long_as_their_longest():
    pairs = encode_pairs([["go"], ["go", "on"]], ["ab", "c"], (["on", "go"], "abc"), (4, None))
    assert pairs["source"].tolist() == [[1, 0, 0, 0], [1, 0, 0, 0]] and pairs["target"].shape == (2, 2)
    assert pairs["source_length"].tolist() == [1, 2] and pairs["target_length"].tolist() == [2, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: encode(["ab", "cab!"], CHARACTERS), "text 1 has '!' at position 4: 'cab!'; .* 'a', 'b'"),
        (lambda: encode([["go", "up"]], ["go"]), "text 0 has 'up' at position 2: 'go up'"),
        (lambda: encode(["a", "abcab"], CHARACTERS, 4), "text 1 has 5 tokens, the limit is 4: 'abcab'"),
        (lambda: encode([], CHARACTERS), "no texts"),
        (lambda: encode(["a"], "aab"), "a vocabulary of 3 words"),
        (lambda: encode(["0"], [str(i) for i in range(256)]), "at most 255"),
        (lambda: encode_pairs(["a"], ["a", "b"], ("a", "ab")), "1 sources and 2 targets"),
        (lambda: encode_pairs(["a"], ["b"], ("a", "a")), "target: text 0 has 'b'"),
    ],
)
def test_what_cannot_be_encoded_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
