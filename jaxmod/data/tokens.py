"""Text as padded integers: sequences of words or characters, numbered by a vocabulary.

The end token is no part of the data; models add it (`jaxmod.sequences`).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Integer, UInt8

__all__ = ["decode", "encode", "encode_pairs"]

_SHOWN = 60


def encode(
    texts: Sequence[Sequence[str]], vocabulary: Sequence[str], limit: int | None = None
) -> tuple[UInt8[np.ndarray, "texts steps"], Int32[np.ndarray, " texts"]]:
    """Returns `(tokens, length)`: the place of each word in the vocabulary, 0 in the padding.

    >>> tokens, length = encode([["run", "left"], ["left"]], ["left", "run"])
    >>> tokens.tolist(), length.tolist()
    ([[1, 0], [0, 0]], [2, 1])

    Args:
      texts: words each; a string is a text of characters.
      vocabulary: at most 255 different words: one more number is left for the end token.
      limit: the steps, and the longest text that is taken; default: as long as the longest.

    Raises:
      ValueError: no texts, a word that the vocabulary lacks (text, word and position are named), a text
        longer than the limit.
    """
    number = {word: i for i, word in enumerate(vocabulary)}
    if len(number) != len(vocabulary) or len(number) > 255:
        raise ValueError(f"a vocabulary of {len(vocabulary)} words: expected at most 255 different ones.")
    if not len(texts):
        raise ValueError("there are no texts to encode.")
    length = np.array([len(text) for text in texts], np.int32)
    steps = int(length.max()) if limit is None else limit
    if (longer := np.flatnonzero(length > steps)).size:
        first = int(longer[0])
        raise ValueError(
            f"text {first} has {length[first]} tokens, the limit is {steps}: {_shown(texts[first])}."
        )
    tokens = np.zeros((len(texts), steps), np.uint8)
    try:
        flat = np.fromiter((number[word] for text in texts for word in text), np.uint8, int(length.sum()))
    except KeyError as error:
        raise _unknown(texts, number, error.args[0]) from None
    tokens[np.arange(steps) < length[:, None]] = flat
    return tokens, length


def encode_pairs(
    sources: Sequence[Sequence[str]],
    targets: Sequence[Sequence[str]],
    vocabularies: tuple[Sequence[str], Sequence[str]],
    limits: tuple[int | None, int | None] = (None, None),
) -> dict[str, np.ndarray]:
    """Returns `source`, `source_length`, `target`, `target_length`: examples of a sequence model.

    Args:
      sources: a text for each example.
      targets: likewise.
      vocabularies: of sources and of targets.
      limits: likewise, as `encode` takes them.

    Raises:
      ValueError: as `encode`; not one target for each source.
    """
    if len(sources) != len(targets):
        raise ValueError(f"there are {len(sources)} sources and {len(targets)} targets; expected pairs.")
    pairs = {}
    for side, texts, vocabulary, limit in zip(
        ("source", "target"), (sources, targets), vocabularies, limits, strict=True
    ):
        try:
            pairs[side], pairs[f"{side}_length"] = encode(texts, vocabulary, limit)
        except ValueError as error:
            raise ValueError(f"{side}: {error}") from None
    return pairs


def decode(tokens: Integer[np.ndarray, "texts steps"], vocabulary: Sequence[str]) -> list[list[str]]:
    """Returns the words of each row before its first number that is none of the vocabulary, the end token.

    >>> decode(np.array([[1, 0, 2, 0]]), ["left", "run"])
    [['run', 'left']]
    """
    words = np.array([*vocabulary, ""], object)
    ended = np.logical_or.accumulate(np.asarray(tokens) >= len(vocabulary), axis=1)
    rows = words[np.minimum(tokens, len(vocabulary))]
    return [row[~end].tolist() for row, end in zip(rows, ended, strict=True)]


def _unknown(texts: Sequence[Sequence[str]], number: dict[str, int], word: str) -> ValueError:
    i, text = next((i, text) for i, text in enumerate(texts) if word in list(text))
    position = list(text).index(word) + 1
    known = ", ".join(map(repr, list(number)[:20])) + (", ..." if len(number) > 20 else "")
    return ValueError(
        f"text {i} has {word!r} at position {position}: {_shown(text)}; the vocabulary is {known}."
    )


def _shown(text: Sequence[str]) -> str:
    joined = text if isinstance(text, str) else " ".join(text)
    return repr(joined if len(joined) <= _SHOWN else f"{joined[:_SHOWN]}...")
