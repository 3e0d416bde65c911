"""SCAN (Lake and Baroni 2018): commands of a small grammar, and the actions that they mean.

    jump around left twice and turn opposite right  ->  I_TURN_LEFT I_JUMP ... I_TURN_RIGHT I_TURN_RIGHT

All 20,910 commands come from the grammar, and all splits but `simple` from a rule. The official files, as
TensorFlow Datasets has prepared them, are read on request, and have to agree.
"""

import functools
import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from jaxmod.configs import check_choice
from jaxmod.data import sources
from jaxmod.data.tokens import encode_pairs

__all__ = [
    "ACTIONS",
    "KINDS",
    "SOURCES",
    "SPLITS",
    "WORDS",
    "Rows",
    "Scan",
    "interpret",
    "load_scan",
    "split_rows",
    "template",
]

ACTIONS = ("I_TURN_LEFT", "I_TURN_RIGHT", "I_JUMP", "I_WALK", "I_RUN", "I_LOOK")
"""The output tokens by their frequency over the four splits of the paper, which is their number."""

WORDS = (
    "left", "right", "twice", "thrice", "opposite", "around", "and", "after", "jump", "walk", "run", "look",
    "turn",
)  # fmt: skip
"""The input tokens, likewise."""

SPLITS = (
    "simple", "length", "addprim_jump", "addprim_turn_left", "template_around_right",
    "template_opposite_right", "template_right", "template_jump_around_right", "filler_num0", "filler_num1",
    "filler_num2", "filler_num3",
)  # fmt: skip
SOURCES = ("grammar", "tfds")

KINDS = ("X", "X D", "X opposite D", "X around D")
"""Of phrases: a verb X and perhaps a direction D, however often."""

_VERBS = ("walk", "look", "run", "jump")
_DIRECTIONS = ("left", "right")
_TIMES = {"twice": 2, "thrice": 3}
_ADDED = {"addprim_jump": "jump", "addprim_turn_left": "turn left"}
_FILLERS = ("look", "walk", "run")


class Scan(NamedTuple):
    """All commands with their actions, in the order of the alphabet."""

    commands: list[str]
    actions: list[str]
    examples: dict[str, np.ndarray]
    """`source`, `source_length`, `target`, `target_length`: numbers of `WORDS` and `ACTIONS`."""


class Rows(NamedTuple):
    """A split: rows of `Scan`. Some primitives occur many times in the training part."""

    train: Int32[np.ndarray, " train"]
    test: Int32[np.ndarray, " test"]


def load_scan(without: Sequence[str] = ()) -> Scan:
    """Returns all commands, or those of a smaller grammar.

    Args:
      without: words whose commands are left out. Without "around" and "thrice", say, there are 4,656
        commands, and none has more than 12 actions.

    Raises:
      ValueError: a word is none of the grammar's, or no command is left.
    """
    return _load_scan(tuple(without))


@functools.lru_cache(maxsize=4)
def _load_scan(without: tuple[str, ...]) -> Scan:
    for word in without:
        check_choice("word to do without", word, WORDS)
    commands = sorted(c for c in _all_commands() if not set(without) & set(c.split()))
    if not commands:
        raise ValueError(f"no command of SCAN is without {' and '.join(map(repr, without))}.")
    actions = [interpret(command) for command in commands]
    words, meanings = ([text.split() for text in side] for side in (commands, actions))
    return Scan(commands, actions, encode_pairs(words, meanings, (WORDS, ACTIONS)))


def interpret(command: str) -> str:
    """Returns the actions that a command means.

    >>> interpret("walk after turn opposite left")
    'I_TURN_LEFT I_TURN_LEFT I_WALK'

    Raises:
      ValueError: the command is none of the grammar; an unknown word is named with its position.
    """
    words = command.split()
    for position, word in enumerate(words, start=1):
        if word not in WORDS:
            raise ValueError(
                f"command {command!r}: {word!r} at position {position} is no word of SCAN; expected "
                f"{', '.join(WORDS)}."
            )
    for join in ("and", "after"):
        if join in words:
            at = words.index(join)
            parts = [_phrase(command, part) for part in (words[:at], words[at + 1 :])]
            return " ".join(parts[0] + parts[1] if join == "and" else parts[1] + parts[0])
    return " ".join(_phrase(command, words))


def _phrase(command: str, words: list[str]) -> list[str]:
    """Returns the actions of a command without `and` and `after`."""
    times = _TIMES.get(words[-1], 1) if words else 1
    match words[:-1] if times > 1 else words:
        case [verb] if verb in _VERBS:
            return [f"I_{verb.upper()}"] * times
        case [verb, *how, ("left" | "right") as direction] if verb in (*_VERBS, "turn"):
            turn = [f"I_TURN_{direction.upper()}"]
            verbs = [] if verb == "turn" else [f"I_{verb.upper()}"]
            match how:
                case []:
                    return (turn + verbs) * times
                case ["opposite"]:
                    return (2 * turn + verbs) * times
                case ["around"]:
                    return 4 * (turn + verbs) * times
    raise ValueError(
        f"command {command!r}: {' '.join(words)!r} is no phrase of SCAN; expected one such as 'walk', "
        "'turn left' or 'look around right thrice', or two joined by 'and' or 'after'."
    )


def template(command: str) -> tuple[str, str]:
    """Returns the kinds of the first and the second phrase of a command; "alone" if there is no second.

    >>> template("jump around left twice and turn right")
    ('X around D', 'X D')
    """
    first, *second = re.split(" and | after ", command)
    return _kind(first), _kind(second[0]) if second else "alone"


def _kind(phrase: str) -> str:
    words = [word for word in phrase.split() if word not in _TIMES]
    return " ".join(["X", *words[1:-1], "D"]) if len(words) > 1 else "X"


def _all_commands() -> list[str]:
    ways = [f"{way}{direction}" for way in ("", "opposite ", "around ") for direction in _DIRECTIONS]
    verbs = [*_VERBS, *(f"{verb} {way}" for verb in (*_VERBS, "turn") for way in ways)]
    phrases = [f"{verb}{times}" for verb in verbs for times in ("", " twice", " thrice")]
    joined = (f"{a} {join} {b}" for a in phrases for join in ("and", "after") for b in phrases)
    return [*phrases, *joined]


def split_rows(
    split: str,
    scan: Scan,
    *,
    length_cut: int = 22,
    seed: int = 0,
    source: str = "grammar",
    data_dir: str | os.PathLike[str] | None = None,
) -> Rows:
    """Returns the rows of a split.

    The rules are those of the official files, whose lines they give exactly, copies of the primitives
    included. `simple` is a random draw of 80% there: the grammar's is another one.

    Args:
      split: one of `SPLITS`.
      scan: from `load_scan`.
      length_cut: the most actions of a training command of the split `length`.
      seed: of the draw of the split `simple`.
      source: "grammar", or "tfds": what TensorFlow Datasets prepared of the official files.
      data_dir: where TFDS has its data, by default its own folder.

    Raises:
      ValueError: no such split or source, a part of the split is empty, or the official files disagree
        with the grammar.
      FileNotFoundError: TFDS has not prepared the split; the command that does is named.
    """
    check_choice("split", split, SPLITS)
    check_choice("source", source, SOURCES)
    rows = _rows_by_rule(split, scan, length_cut, seed)
    for part, of in zip(Rows._fields, rows, strict=True):
        if not of.size:
            raise ValueError(
                f"split {split!r} has no {part} commands among these {len(scan.commands)}; choose a larger "
                "grammar, or another length to cut at."
            )
    if source == "grammar":
        return rows
    official = _official_rows(split, scan, data_dir)
    if split == "simple":
        _check_simple(official, rows)
    elif any(not np.array_equal(a, b) for a, b in zip(official, rows, strict=True)):
        sizes = [f"{len(a)} and {len(b)}" for a, b in zip(official, rows, strict=True)]
        raise ValueError(
            f"split {split!r}: the official files and the grammar give different commands, {sizes[0]} to "
            f"train and {sizes[1]} to test. Only the whole grammar, cut at 22 actions, has official files."
        )
    return official


def _rows_by_rule(split: str, scan: Scan, length_cut: int, seed: int) -> Rows:
    if split == "simple":
        order = np.random.default_rng(seed).permutation(len(scan.commands))
        count = round(0.8 * len(order))
        drawn = np.zeros(len(order), bool)
        drawn[order[:count]] = True
        return _rows(drawn, ~drawn)
    if split == "length":
        short = scan.examples["target_length"] <= length_cut
        return _rows(short, ~short)
    if split in _ADDED:
        added = _has(scan, _ADDED[split])
        base, test = _rows(~added, added)
        if (primitive := _row_of(scan).get(_ADDED[split])) is None:
            return Rows(base, test)
        # A tenth of the training lines are the primitive, alone.
        copies = np.full(len(base) // 9, primitive, np.int32)
        return Rows(np.sort(np.concatenate([base, copies])), test[test != primitive])
    how = split.removeprefix("template_").replace("_", " ")
    if split.startswith("filler"):
        how, allowed = "around right", _FILLERS[: int(split[-1])]
    elif how == "jump around right":
        how, allowed = "around right", _FILLERS
    else:
        allowed = ()
    turn = _has(scan, f"turn {how}")
    held_out = {verb: _has(scan, f"{verb} {how}") for verb in _VERBS if verb not in allowed}
    tested = held_out if split.startswith("template") and not allowed else {"jump": held_out["jump"]}
    any_of = functools.partial(functools.reduce, np.logical_or)
    return _rows(~any_of([turn, *held_out.values()]), any_of([*tested.values()]) & ~turn)


def _has(scan: Scan, phrase: str) -> np.ndarray:
    return np.array([f" {phrase} " in f" {command} " for command in scan.commands])


def _rows(train: np.ndarray, test: np.ndarray) -> Rows:
    return Rows(np.flatnonzero(train).astype(np.int32), np.flatnonzero(test).astype(np.int32))


def _row_of(scan: Scan) -> dict[str, int]:
    return {command: row for row, command in enumerate(scan.commands)}


def _official_rows(split: str, scan: Scan, data_dir: str | os.PathLike[str] | None) -> Rows:
    """Returns the rows of the lines that TFDS prepared, sorted."""
    if (found := sources.tfds_records(f"scan/{split}", data_dir)) is None:
        raise FileNotFoundError(
            f"TensorFlow Datasets has not prepared scan/{split} on this computer. Run: "
            f"pip install 'jaxmod[tfds]' && tfds build scan/{split} --file_format=array_record; or choose "
            "source='grammar'."
        )
    records, folder = found
    row_of = _row_of(scan)

    def rows(part: str) -> np.ndarray:
        lines = []
        for record in records[part]:
            command, actions = (_text(record[name]) for name in ("commands", "actions"))
            row = row_of.get(command)
            if row is None or scan.actions[row] != actions:
                expected = "none of these commands" if row is None else f"by grammar {scan.actions[row]!r}"
                raise ValueError(
                    f"{folder} has {command!r} as {actions!r}, which is {expected}. Only the whole grammar "
                    "has official files."
                )
            lines.append(row)
        return np.sort(np.array(lines, np.int32))

    return Rows(rows("train"), rows("test"))


def _text(given: Any) -> str:
    return given.decode() if isinstance(given, bytes) else str(given)


def _check_simple(official: Rows, drawn: Rows) -> None:
    """Raises ValueError unless the split is a draw without copies of as many commands, and the others."""
    lines = Counter(np.concatenate(official).tolist())
    sizes = [len(part) for part in drawn]
    if [len(part) for part in official] != sizes or len(lines) != sum(sizes):
        raise ValueError(
            f"split 'simple': the official files have {len(official.train)} and {len(official.test)} lines "
            f"of {len(lines)} commands, expected {sizes[0]} and {sizes[1]} without copies. Only the whole "
            "grammar has official files."
        )
