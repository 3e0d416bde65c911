"""The Mathematics Dataset as examples: split, duplicates, characters, published files."""

import re

import numpy as np
import pytest

from jaxmod.data import mathematics, tokens
from jaxmod.data.mathematics import LEVELS, VOCABULARY, digits, load_mathematics, text_of

SMALL = {"count": 40, "held_out": 8, "entropy": (1.0, 4.0)}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load_mathematics("add_or_sub", **SMALL, data_dir=tmp_path_factory.mktemp("data"))


def pairs_of(examples, rows=slice(None)):
    return list(
        zip(
            *(text_of(examples[x][rows], examples[f"{x}_length"][rows]) for x in ("source", "target")),
            strict=True,
        )
    )


def write_published(folder, texts, module="comparison__sort"):
    for level, pairs in zip(LEVELS, texts, strict=True):
        file = folder / f"train-{level}" / f"{module}.txt"
        file.parent.mkdir(parents=True)
        file.write_text("".join(f"{question}\n{answer}\n" for question, answer in pairs))


def sort_pairs(level, count):
    return [(f"Sort {level}{i}, 1.", f"1, {level}{i}") for i in range(count)]


def test_a_part_of_each_difficulty_is_held_out(loaded):
    assert np.bincount(loaded.valid_level).tolist() == [8, 8, 8]
    questions = [{q for q, _ in pairs_of(part)} for part in (loaded.train, loaded.valid)]
    assert not questions[0] & questions[1]
    assert len(questions[0]) == len(loaded.train_level) == 120 - 24 - loaded.duplicates


def test_the_draw_is_fixed(tmp_path):
    texts = [sort_pairs(level, 10) for level in (1, 2, 3)]
    write_published(tmp_path, texts)
    found = load_mathematics("sort", 10, 3, data_dir=tmp_path)
    drawn = sorted(np.random.RandomState(1234).permutation(10)[:3])
    for level in range(3):
        assert pairs_of(found.valid, found.valid_level == level) == [texts[level][i] for i in drawn]
        rest = [pair for i, pair in enumerate(texts[level]) if i not in drawn]
        assert pairs_of(found.train, found.train_level == level) == rest


def test_examples_are_padded_characters(loaded):
    for part in (loaded.train, loaded.valid):
        assert part["source"].dtype == part["target"].dtype == np.uint8
        assert part["source"].max() < len(VOCABULARY)
        padding = np.arange(part["source"].shape[1]) >= part["source_length"][:, None]
        assert not part["source"][padding].any()
    # The longest question gives the steps of both parts, so that they are one shape.
    lengths = [part["source_length"].max() for part in (loaded.train, loaded.valid)]
    assert loaded.train["source"].shape[1] == loaded.valid["source"].shape[1] == max(lengths)
    assert set(loaded.characters) == set("".join(q + a for part in loaded[:3:2] for q, a in pairs_of(part)))
    assert loaded.source == "40 questions of each difficulty, generated with seed 0, entropy 1 to 4"


def test_published_files_are_read(tmp_path):
    texts = [sort_pairs(level, 5) for level in (1, 2, 3)]
    texts[1][2] = texts[0][4]  # an easy question again, and one that occurs twice
    texts[2][1] = (texts[2][0][0], "another answer")
    write_published(tmp_path / "mathematics_dataset-v1.0", texts)
    found = load_mathematics("sort", 100, 1, data_dir=tmp_path)
    assert found.source == "the first 5 + 5 + 5 published questions"
    assert found.duplicates == 2
    kept = {level: {q for part, of in ((found.train, found.train_level), (found.valid, found.valid_level))
                    for q, _ in pairs_of(part, of == level)} for level in range(3)}  # fmt: skip
    assert texts[0][4][0] in kept[0] and texts[0][4][0] not in kept[1]
    answers = dict(pairs_of(found.train) + pairs_of(found.valid))
    assert answers[texts[2][0][0]] == texts[2][0][1]
    assert (
        load_mathematics("sort", 3, 1, data_dir=tmp_path).source == "the first 3 + 3 + 3 published questions"
    )


def test_published_files_are_looked_for_and_not_read(tmp_path, monkeypatch):
    write_published(tmp_path, [sort_pairs(level, 5) for level in (1, 2, 3)])
    monkeypatch.setattr(mathematics, "_read_published", lambda *_: pytest.fail("read"))
    mathematics.check_mathematics("sort", 5, 1, data_dir=tmp_path)
    with pytest.raises(ValueError, match="held_out=5 of 5 questions"):
        mathematics.check_mathematics("sort", 5, 5, data_dir=tmp_path)
    (tmp_path / "train-hard" / "comparison__sort.txt").unlink()
    with pytest.raises(FileNotFoundError, match="train-hard/comparison__sort.txt is not"):
        mathematics.check_mathematics("sort", 5, 1, data_dir=tmp_path)


def test_hard_questions_in_the_easy_range(tmp_path):
    easy = [(f"Sort {i}, 1.", "x") for i in range(10, 30)]  # 3 digits
    hard = [("Sort 1, 2.", "x"), ("Sort 1, 23.", "x"), ("Sort 111, 2.", "x"), ("Sort 1111, 2.", "x")]
    write_published(tmp_path, [easy, sort_pairs(5, 3), hard])
    assert load_mathematics("sort", 50, 1, data_dir=tmp_path).hard_in_easy_range == 0.5
    assert digits(["Solve 126*q = 110*q + 80 for q.", "no number"]).tolist() == [8, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"level": "easy", "text": "Sort 2, 1.\n"},
            r"comparison__sort.txt: line 1, 'Sort 2, 1.', is a question",
        ),
        (
            {"level": "hard", "text": "Sort" + " 1," * 60 + "\n1\n"},
            "line 1 has 184 characters and its answer 1",
        ),
        (
            {"level": "hard", "text": "Sort 2\N{MINUS SIGN}1.\n1\nSort 1.\n1\n"},
            "has '\N{MINUS SIGN}' at position 7",
        ),
    ],
)
def test_damaged_published_files_are_named(change, message, tmp_path):
    write_published(tmp_path, [sort_pairs(level, 5) for level in (1, 2, 3)])
    (tmp_path / f"train-{change['level']}" / "comparison__sort.txt").write_text(change["text"], "utf-8")
    with pytest.raises(ValueError, match=message):
        load_mathematics("sort", 5, 1, data_dir=tmp_path)


def test_a_missing_difficulty_is_named(tmp_path):
    write_published(tmp_path, [sort_pairs(level, 5) for level in (1, 2, 3)])
    (tmp_path / "train-medium" / "comparison__sort.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"but .*train-medium/comparison__sort.txt is not; all three"):
        load_mathematics("sort", 5, 1, data_dir=tmp_path)


def test_text_there_and_back():
    text = ["What is (2/3 - -1.5)**2?", "Z~"]
    numbers, length = tokens.encode(text, VOCABULARY)
    assert text_of(numbers, length) == text
    ended = np.where(np.arange(numbers.shape[1]) < length[:, None], numbers, len(VOCABULARY))
    assert text_of(ended) == text


def test_without_a_data_directory_the_cache_is_the_users(tmp_path, monkeypatch):
    monkeypatch.delenv("JAXMOD_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load_mathematics("sort", 3, 1, entropy=(1, 4))
    assert len(list((tmp_path / "jaxmod" / "mathematics").glob("sort-*-seed0.npz"))) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"module": "sorting"}, "module='sorting': expected one of sort, add_or_sub"),
        ({"held_out": 40}, re.escape("held_out=40 of 40 different easy questions: expected 1 or more")),
        ({"held_out": 0}, "held_out=0 of"),
    ],
)
def test_what_cannot_work_is_named(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_mathematics(**{"module": "sort", **SMALL, **arguments}, data_dir=tmp_path)
