"""The Mathematics Dataset (Saxton et al. 2019): questions and answers as characters, at three difficulties.

    Calculate 1419 + 2.                  ->  1421
    Sort -2, 13, 15.                     ->  -2, 13, 15

The five modules of Csordas et al. 2021 are generated, or read from the published files, where the data
directory has them. A part of every difficulty is held out for validation.
"""

import os
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Integer

from jaxmod.configs import check_choice
from jaxmod.data import mathematics_generator, sources, tokens
from jaxmod.data.mathematics_cache import Pairs, generated, split_lines
from jaxmod.data.mathematics_generator import LEVELS, LONGEST_ANSWER, LONGEST_QUESTION, MODULES

__all__ = [
    "LEVELS",
    "MODULES",
    "VOCABULARY",
    "Mathematics",
    "check_mathematics",
    "digits",
    "load_mathematics",
    "text_of",
]

VOCABULARY = tuple(" " + string.ascii_letters + string.digits + string.punctuation)
"""All characters that the package lists for its questions; the published files have no others."""

_SPLIT_SEED = 1234
_RELEASE = "mathematics_dataset-v1.0"


class Mathematics(NamedTuple):
    """A module's examples: `source` and `target`, characters by their place in `VOCABULARY`, and lengths."""

    train: dict[str, np.ndarray]
    train_level: Int[np.ndarray, " train"]
    """The place of each example's difficulty in `LEVELS`."""
    valid: dict[str, np.ndarray]
    """As many of each difficulty; no question of the training part is among them."""
    valid_level: Int[np.ndarray, " valid"]
    source: str
    """Where the questions come from: for reports."""
    characters: str
    """Those that occur."""
    duplicates: int
    """Questions left out, because they occurred before."""
    easy_range: int
    """The number of digits that 95% of the easy questions have at most."""
    hard_in_easy_range: float
    """The part of the hard questions that have no more digits than that."""


def load_mathematics(
    module: str,
    count: int,
    held_out: int = 10_000,
    *,
    seed: int = 0,
    entropy: tuple[float, float] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    processes: int = 1,
    progress: bool = False,
) -> Mathematics:
    """Returns the examples of a module.

    The published files are read, if `train-easy`, `train-medium` and `train-hard` lie in `data_dir` or else
    in `$JAXMOD_DATA`, or in a folder `mathematics_dataset-v1.0` there. Else the questions are made, once:
    they are kept in the folder `mathematics` there or, if neither is given, in `~/.cache/jaxmod`.

    Questions that occur again are left out; easy ones come first, then medium ones.

    Args:
      module: one of `MODULES`.
      count: of questions of each difficulty, before duplicates are left out; of published files the first.
        They have 666,666.
      held_out: questions of each difficulty that are for validation.
      seed: of questions that are made.
      entropy: range of difficulty of questions that are made, as `mathematics_generator.generate_part` takes
        it. If it is given, published files are not read.
      data_dir: see above.
      processes: as in `mathematics_cache.generated`.
      progress: report what has been made.

    Raises:
      ValueError: an unknown module, not more questions than are held out, a published file that is damaged,
        or questions are to be made and the package that makes them is not installed.
      FileNotFoundError: the data directory is no folder, or has only some of the published files.
    """
    check_choice("module", module, MODULES)
    folder = sources.data_folder(data_dir)
    published = None if entropy else _published(folder, module)
    if published is None:
        kept = (folder or _own_folder()) / "mathematics"
        texts = generated(
            kept, module, count, seed=seed, entropy=entropy, processes=processes, progress=progress
        )
        source = f"{count:,} questions of each difficulty, generated with seed {seed}"
        if entropy:
            source += f", entropy {entropy[0]:g} to {entropy[1]:g}"
    else:
        texts = [_read_published(path, count) for path in published]
        source = f"the first {' + '.join(f'{len(pairs):,}' for pairs in texts)} published questions"
    return _split(texts, held_out, source)


def check_mathematics(module: str, count: int, held_out: int, **options: Any) -> None:
    """Raises as `load_mathematics` would, whose options it takes, where that can be told in seconds.

    Published files are looked for, not read. Of questions that are to be made one of each difficulty is: the
    packages may not work, or the module have none of this range.
    """
    check_choice("module", module, MODULES)
    if not 0 < held_out < count:
        raise ValueError(
            f"held_out={held_out} of {count} questions: expected 1 or more, and some left to train on."
        )
    folder = sources.data_folder(options.get("data_dir"))
    entropy = options.get("entropy")
    if not entropy and _published(folder, module):
        return
    if mathematics_generator.versions() is None:  # all questions may have been made elsewhere
        load_mathematics(module, count, held_out, **options)
        return
    for level in LEVELS:
        mathematics_generator.generate_part(module, level, 0, 1, options.get("seed", 0), entropy)


def text_of(
    characters: Integer[np.ndarray, "texts steps"], length: Integer[np.ndarray, " texts"] | None = None
) -> list[str]:
    """Returns texts of characters of `VOCABULARY`.

    Args:
      characters: rows that end with their length or with the first number beyond the vocabulary.
      length: of each, if it says where it ends.
    """
    texts = ["".join(row) for row in tokens.decode(characters, VOCABULARY)]
    return texts if length is None else [text[:end] for text, end in zip(texts, length, strict=True)]


def digits(questions: Sequence[str]) -> Int[np.ndarray, " questions"]:
    """Returns how many digits each question has: about the entropy that it was made with.

    >>> digits(["Sum 12 and -3.5."]).tolist()
    [4]
    """
    return np.array([sum(c in string.digits for c in question) for question in questions], np.int64)


def _split(texts: Sequence[Pairs], held_out: int, source: str) -> Mathematics:
    """Returns the examples of the three difficulties, a part of them held out."""
    unique, seen = [], set()
    for pairs in texts:
        unique.append([])
        for pair in pairs:
            if pair[0] not in seen:
                seen.add(pair[0])
                unique[-1].append(pair)
    for level, pairs in zip(LEVELS, unique, strict=True):
        if not 0 < held_out < len(pairs):
            raise ValueError(
                f"held_out={held_out} of {len(pairs)} different {level} questions: expected 1 or more, and "
                "some left to train on."
            )
    flat = [pair for pairs in unique for pair in pairs]
    levels = np.repeat(np.arange(len(LEVELS)), [len(pairs) for pairs in unique])
    is_valid = np.zeros(len(flat), bool)
    for level in range(len(LEVELS)):
        rows = np.flatnonzero(levels == level)
        is_valid[np.random.RandomState(_SPLIT_SEED).permutation(rows)[:held_out]] = True
    questions, answers = ([pair[side] for pair in flat] for side in (0, 1))
    examples = tokens.encode_pairs(questions, answers, (VOCABULARY, VOCABULARY))
    easy, _, hard = (digits([pair[0] for pair in pairs]) for pairs in unique)
    easy_range = int(np.quantile(easy, 0.95, method="higher"))
    train, valid = ({name: x[rows] for name, x in examples.items()} for rows in (~is_valid, is_valid))
    return Mathematics(
        train=train,
        train_level=levels[~is_valid],
        valid=valid,
        valid_level=levels[is_valid],
        source=source,
        characters="".join(sorted(set("".join(questions)) | set("".join(answers)))),
        duplicates=sum(map(len, texts)) - len(flat),
        easy_range=easy_range,
        hard_in_easy_range=float(np.mean(hard <= easy_range)),
    )


def _published(folder: Path | None, module: str) -> list[Path] | None:
    """Returns the published files of the three difficulties, None if the folder has none of them."""
    name = f"{MODULES[module]}__{module}.txt"
    for place in (folder, folder / _RELEASE) if folder else ():
        paths = [place / f"train-{level}" / name for level in LEVELS]
        there = [path for path in paths if path.exists()]
        if len(there) == len(paths):
            return paths
        if there:
            missing = next(path for path in paths if path not in there)
            raise FileNotFoundError(
                f"{there[0]} is there but {missing} is not; all three difficulties are needed."
            )
    return None


def _read_published(path: Path, count: int) -> Pairs:
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text: {error}.") from error
    pairs = split_lines(text, str(path), count)
    for number, (question, answer) in enumerate(pairs):
        if len(question) > LONGEST_QUESTION or len(answer) > LONGEST_ANSWER:
            raise ValueError(
                f"{path}: line {2 * number + 1} has {len(question)} characters and its answer {len(answer)}, "
                f"expected at most {LONGEST_QUESTION} and {LONGEST_ANSWER}."
            )
    return pairs


def _own_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxmod"
