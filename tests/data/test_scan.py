"""SCAN against its published counts, a second interpreter, and files that TFDS prepared."""

from collections import Counter

import numpy as np
import pytest

from jaxmod.data.scan import ACTIONS, KINDS, SPLITS, WORDS, interpret, load_scan, split_rows, template
from jaxmod.data.tokens import decode
from tests.data.stored import prepare_scan

SIZES = {
    "simple": (16_728, 4_182),
    "length": (16_990, 3_920),
    "addprim_jump": (14_670, 7_706),
    "addprim_turn_left": (21_890, 1_208),
    "template_around_right": (15_225, 4_476),
    "template_opposite_right": (15_225, 4_476),
    "template_right": (15_225, 4_476),
    "template_jump_around_right": (18_528, 1_173),
    "filler_num0": (15_225, 1_173),
    "filler_num1": (16_290, 1_173),
    "filler_num2": (17_391, 1_173),
    "filler_num3": (18_528, 1_173),
}
SMALL = ("around", "thrice", "opposite", "look")


@pytest.fixture(scope="module")
def everything():
    return load_scan()


@pytest.fixture(scope="module")
def rows(everything):
    return {split: split_rows(split, everything) for split in SPLITS}


def rewritten(command):
    """Returns the actions by rules of rewriting, as the paper of SCAN has them, the outermost first."""
    for join, order in ((" and ", (0, 1)), (" after ", (1, 0))):
        if join in command:
            parts = command.split(join)
            return " ".join(rewritten(parts[i]) for i in order)
    for word, times in ((" twice", 2), (" thrice", 3)):
        if command.endswith(word):
            return " ".join([rewritten(command.removesuffix(word))] * times)
    for direction in ("left", "right"):
        turn = f"I_TURN_{direction.upper()}"
        for way, rest in ((" around ", "{turn} {verb} " * 4), (" opposite ", "{turn} {turn} {verb}")):
            if command.endswith(way + direction):
                return " ".join(
                    rest.format(turn=turn, verb=rewritten(command.removesuffix(way + direction))).split()
                )
        if command.endswith(f" {direction}"):
            return f"{turn} {rewritten(command.removesuffix(f' {direction}'))}".strip()
    return "" if command == "turn" else f"I_{command.upper()}"


def test_all_commands_and_what_they_mean(everything):
    assert len(everything.commands) == len(set(everything.commands)) == 20_910
    assert everything.commands == sorted(everything.commands)
    assert everything.actions == [rewritten(command) for command in everything.commands]
    words, actions = everything.examples["source_length"], everything.examples["target_length"]
    assert (words.min(), words.max(), actions.min(), actions.max()) == (1, 9, 1, 48)
    assert round(words.mean(), 1) == 7.3 and round(actions.mean(), 1) == 14.3
    assert 23 not in actions


def test_examples_are_the_texts(everything):
    for side, vocabulary, texts in (
        ("source", WORDS, everything.commands),
        ("target", ACTIONS, everything.actions),
    ):
        tokens, length = everything.examples[side], everything.examples[f"{side}_length"]
        ended = np.where(np.arange(tokens.shape[1]) < length[:, None], tokens, len(vocabulary))
        assert [" ".join(words) for words in decode(ended, vocabulary)] == texts


@pytest.mark.parametrize("split", SPLITS)
def test_published_sizes(rows, split):
    assert tuple(map(len, rows[split])) == SIZES[split]


def test_parts_of_a_split_are_disjoint(everything, rows):
    for split, (train, test) in rows.items():
        assert not set(train) & set(test), split
        assert len(set(test)) == len(test), split
    for split in ("simple", "length", "addprim_jump", "addprim_turn_left"):
        assert len(set(np.concatenate(rows[split]))) == len(everything.commands), split


def commands_of(everything, part):
    return Counter(everything.commands[row] for row in part)


def test_the_official_rules(everything, rows):
    length = everything.examples["target_length"]
    assert length[rows["length"].train].max() == 22 and length[rows["length"].test].min() == 24
    for split, primitive, copies in (
        ("addprim_jump", "jump", 1467),
        ("addprim_turn_left", "turn left", 2189),
    ):
        train, test = (commands_of(everything, part) for part in rows[split])
        assert train.pop(primitive) == copies == 0.1 * SIZES[split][0]
        assert set(train.values()) == {1}
        assert not any(f" {primitive} " in f" {command} " for command in train)
        assert all(f" {primitive} " in f" {command} " for command in test)
    turn_left = commands_of(everything, rows["addprim_turn_left"].train)
    assert "turn opposite left" in turn_left and "turn around left" in turn_left


@pytest.mark.parametrize(
    ("split", "turned", "tested", "allowed"),
    [
        ("template_right", "right", "walk look run jump", ""),
        ("template_opposite_right", "opposite right", "walk look run jump", ""),
        ("template_around_right", "around right", "walk look run jump", ""),
        ("template_jump_around_right", "around right", "jump", "look walk run"),
        ("filler_num0", "around right", "jump", ""),
        ("filler_num1", "around right", "jump", "look"),
        ("filler_num2", "around right", "jump", "look walk"),
        ("filler_num3", "around right", "jump", "look walk run"),
    ],
)
def test_the_rules_of_templates_and_fillers(everything, rows, split, turned, tested, allowed):
    def has(command, verbs):
        return any(f" {verb} {turned} " in f" {command} " for verb in verbs)

    unseen = {"walk", "look", "run", "jump", "turn"} - set(allowed.split())
    train = [c for c in everything.commands if not has(c, unseen)]
    test = [c for c in everything.commands if has(c, tested.split()) and not has(c, ["turn"])]
    found = ([everything.commands[row] for row in part] for part in rows[split])
    assert list(found) == [train, test]


def test_tokens_are_numbered_by_their_frequency(everything, rows):
    paper = ("simple", "length", "addprim_jump", "addprim_turn_left")
    lines = np.concatenate([part for split in paper for part in rows[split]])
    for side, vocabulary in (("source", WORDS), ("target", ACTIONS)):
        tokens, length = (everything.examples[name][lines] for name in (side, f"{side}_length"))
        counts = np.bincount(tokens[np.arange(tokens.shape[1]) < length[:, None]], minlength=len(vocabulary))
        assert len(counts) == len(vocabulary) and (np.diff(counts) <= 0).all()


def test_simple_is_another_draw_for_another_seed(everything, rows):
    again, other = (split_rows("simple", everything, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(again.test, rows["simple"].test)
    both = set(again.test) & set(other.test)
    assert abs(len(both) - 4182**2 / 20_910) < 5 * np.sqrt(4182 * 0.2 * 0.8)


def test_templates_of_commands(everything):
    found = Counter(map(template, everything.commands))
    phrases = {"X": 4, "X D": 10, "X opposite D": 10, "X around D": 10}
    assert list(phrases) == list(KINDS)
    for first, count in phrases.items():
        assert found[first, "alone"] == 3 * count
        for second, other in phrases.items():
            assert found[first, second] == 2 * 3 * count * 3 * other


def test_a_smaller_grammar():
    small = load_scan(SMALL)
    assert not any(set(SMALL) & set(command.split()) for command in small.commands)
    phrases = 3 + 2 * 4  # verbs; with a direction, turn too
    assert len(small.commands) == 2 * phrases + 2 * (2 * phrases) ** 2
    train, test = split_rows("length", small, length_cut=4)
    assert small.examples["target_length"][train].max() == 4 and len(test)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_scan(("hop",)), "word to do without='hop': expected one of"),
        (lambda: load_scan(WORDS), "no command of SCAN is without 'left' and"),
        (lambda: split_rows("add_jump", load_scan(SMALL)), "split='add_jump': expected one of addprim_jump"),
        (lambda: split_rows("simple", load_scan(SMALL), source="web"), "source='web': expected one of"),
        (lambda: split_rows("length", load_scan(SMALL)), "split 'length' has no test commands among these"),
        (lambda: split_rows("length", load_scan(SMALL), length_cut=0), "no train commands"),
        (lambda: interpret("walk and hop left"), "'hop' at position 3 is no word of SCAN"),
        (lambda: interpret("walk twice twice"), "'walk twice twice' is no phrase"),
        (lambda: interpret("walk and run and look"), "'run and look' is no phrase"),
        (lambda: interpret("walk and"), "'' is no phrase"),
        (lambda: interpret("turn"), "'turn' is no phrase"),
    ],
)
def test_what_cannot_be_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """TFDS's folder with two splits of a smaller grammar, shuffled and stored as the official ones are."""
    folder, small = tmp_path_factory.mktemp("tfds"), load_scan(SMALL)
    for split in ("addprim_jump", "simple"):
        parts = split_rows(split, small, seed=5)
        random = np.random.default_rng(1)
        lines = {
            name: [(small.commands[row], small.actions[row]) for row in random.permutation(part)]
            for name, part in zip(parts._fields, parts, strict=True)
        }
        prepare_scan(split, lines, folder)
    return folder


def test_official_files_agree_with_the_rules(prepared):
    small = load_scan(SMALL)
    for split, seed in (("addprim_jump", 0), ("simple", 5)):
        official = split_rows(split, small, source="tfds", data_dir=prepared)
        for ours, theirs in zip(split_rows(split, small, seed=seed), official, strict=True):
            np.testing.assert_array_equal(theirs, ours)


def test_official_files_that_disagree_are_refused(prepared):
    small = load_scan(SMALL)
    with pytest.raises(ValueError, match="has .* which is none of these commands"):
        split_rows("simple", load_scan((*SMALL, "twice")), source="tfds", data_dir=prepared)
    wrong = small._replace(actions=["I_WALK"] * len(small.actions))
    with pytest.raises(ValueError, match="which is by grammar 'I_WALK'"):
        split_rows("simple", wrong, source="tfds", data_dir=prepared)
    more = load_scan(SMALL[:3])
    with pytest.raises(ValueError, match="'simple': the official files have 792 and 198 lines of 990"):
        split_rows("simple", more, source="tfds", data_dir=prepared)
    with pytest.raises(ValueError, match="addprim_jump': the official files and the grammar give different"):
        split_rows("addprim_jump", more, source="tfds", data_dir=prepared)
    with pytest.raises(FileNotFoundError, match="tfds build scan/length --file_format=array_record"):
        split_rows("length", small, length_cut=4, source="tfds", data_dir=prepared)
