"""Questions kept in files: made once, by however many processes, and anew where a file cannot be trusted."""

import concurrent.futures

import numpy as np
import pytest

from jaxmod.data import mathematics_cache, mathematics_generator
from jaxmod.data.mathematics_cache import generated, join_lines, split_lines
from jaxmod.data.mathematics_generator import LEVELS, generate_part

SIZES = {"module": "sort", "count": 10, "entropy": (1.0, 4.0)}


@pytest.fixture(scope="module", autouse=True)
def small_parts():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mathematics_cache, "PART", 4)
        yield


@pytest.fixture(scope="module")
def expected():
    return [
        [
            pair
            for part, count in enumerate((4, 4, 2))
            for pair in generate_part("sort", level, part, count, 0, (1, 4))
        ]
        for level in LEVELS
    ]


def no_more(monkeypatch):
    """Makes the making of questions a failure."""
    monkeypatch.setattr(mathematics_cache, "generate_part", lambda *_: pytest.fail("made again"))


def test_questions_are_made_once(tmp_path, expected, monkeypatch, capsys):
    assert generated(tmp_path / "new", **SIZES, progress=True) == expected
    assert "questions of sort: step 30 of 30" in capsys.readouterr().err
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == sorted(
        f"sort-{level}-entropy1to4-seed0.npz" for level in LEVELS
    )
    no_more(monkeypatch)
    assert generated(tmp_path / "new", **SIZES) == expected
    monkeypatch.setattr(mathematics_generator, "versions", lambda: None)  # nor is the package needed
    assert generated(tmp_path / "new", **SIZES) == expected


def test_fewer_questions_are_the_first_of_more(tmp_path, expected, monkeypatch):
    generated(tmp_path, "sort", 6, entropy=(1.0, 4.0))
    made = []
    monkeypatch.setattr(
        mathematics_cache, "generate_part", lambda *job: made.append(job) or generate_part(*job)
    )
    assert generated(tmp_path, **SIZES) == expected
    assert [job[2] for job in made] == [1, 2] * 3  # the first four of each were there
    no_more(monkeypatch)
    assert generated(tmp_path, "sort", 7, entropy=(1.0, 4.0)) == [pairs[:7] for pairs in expected]
    assert len(list(tmp_path.iterdir())) == 3


def test_several_processes_make_the_same(tmp_path, expected, monkeypatch):
    monkeypatch.setattr(mathematics_cache, "WORTH", 1)
    assert generated(tmp_path, **SIZES, processes=2) == expected
    monkeypatch.setattr(mathematics_cache, "WORTH", 31)  # of 30: too few for two
    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", lambda *_, **__: pytest.fail("started"))
    assert generated(tmp_path / "alone", **SIZES, processes=2) == expected


def test_what_was_made_before_a_stop_is_kept(tmp_path, expected, monkeypatch):
    made = []

    def stopped(*job):
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(job)
        return generate_part(*job)

    monkeypatch.setattr(mathematics_cache, "generate_part", stopped)
    with pytest.raises(KeyboardInterrupt):
        generated(tmp_path, **SIZES)
    parts = sorted(tmp_path.glob("*.parts/*.npz"))
    assert len(parts) == 5
    parts[0].write_bytes(parts[0].read_bytes()[:-30])
    again = []
    monkeypatch.setattr(
        mathematics_cache, "generate_part", lambda *job: again.append(job) or generate_part(*job)
    )
    with pytest.warns(UserWarning, match=rf"{parts[0].name} is damaged and is made anew"):
        assert generated(tmp_path, **SIZES) == expected
    assert len(again) == 9 - 4
    assert not list(tmp_path.glob("*.parts"))


def test_fewer_questions_leave_parts_of_more(tmp_path, expected, monkeypatch):
    def stopped(*job):
        if job[2] == 2:
            raise KeyboardInterrupt
        return generate_part(*job)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mathematics_cache, "generate_part", stopped)
        with pytest.raises(KeyboardInterrupt):
            generated(tmp_path, **SIZES)
    assert len(list(tmp_path.glob("*.parts/*.npz"))) == 2
    generated(tmp_path, "sort", 3, entropy=(1.0, 4.0))
    assert [path.name for path in tmp_path.glob("*.parts/*.npz")] == ["00001.npz"]
    made = []
    monkeypatch.setattr(
        mathematics_cache, "generate_part", lambda *job: made.append(job) or generate_part(*job)
    )
    assert generated(tmp_path, **SIZES) == expected
    assert [job[1:3] for job in made][:2] == [("easy", 0), ("easy", 2)]
    assert not list(tmp_path.glob("*.parts"))


@pytest.mark.parametrize("keep", [0, 10, -20])
def test_a_file_cut_short_is_made_anew(keep, tmp_path, expected):
    generated(tmp_path, **SIZES)
    file = tmp_path / "sort-hard-entropy1to4-seed0.npz"
    whole = file.read_bytes()
    file.write_bytes(whole[:keep])
    with pytest.warns(UserWarning, match="sort-hard.* is damaged and is made anew"):
        assert generated(tmp_path, **SIZES) == expected
    assert file.stat().st_size == len(whole)


def test_a_flipped_bit_is_found(tmp_path, expected):
    generated(tmp_path, **SIZES)
    file = tmp_path / "sort-easy-entropy1to4-seed0.npz"
    content = bytearray(file.read_bytes())
    content[len(content) // 4] ^= 4
    file.write_bytes(content)
    with pytest.warns(UserWarning, match="sort-easy.* is damaged and is made anew"):
        assert generated(tmp_path, **SIZES) == expected


def test_other_versions_are_made_anew(tmp_path, expected, monkeypatch):
    generated(tmp_path, **SIZES)
    now = mathematics_generator.versions()
    assert now is not None
    monkeypatch.setattr(mathematics_generator, "versions", lambda: now | {"sympy": "2.0"})
    with pytest.warns(
        UserWarning, match=rf"made by other versions .*\(sympy {now['sympy']}, now 2.0\)"
    ) as said:
        assert generated(tmp_path, **SIZES) == expected
    assert len(said) == 3
    assert generated(tmp_path, **SIZES) == expected


def test_lines_in_turn():
    pairs = [("Sum 1 and 2.", "3"), ("Sort 2, 1.", "1, 2")]
    text = "Sum 1 and 2.\n3\nSort 2, 1.\n1, 2\n"
    assert join_lines(pairs) == text
    assert (
        split_lines(text, "x")
        == split_lines(text[:-1], "x")
        == split_lines(text.replace("\n", "\r\n"), "x")
        == pairs
    )
    assert split_lines(text, "x", 1) == pairs[:1]
    assert split_lines("", "x") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Sum 1 and 2.\n3\nSort 2, 1.\n", "here.txt: line 3, 'Sort 2, 1.', is a question without an answer"),
        ("Sum 1 and 2.\n\n", "here.txt: line 2 is empty"),
    ],
)
def test_lines_that_are_no_pairs_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        split_lines(text, "here.txt")


def test_text_is_kept_as_it_is(tmp_path):
    pairs = [("What is 1 - -2.5?", "3.5")] * 3
    mathematics_cache._write(tmp_path / "x.npz", pairs)
    assert mathematics_cache._read(tmp_path / "x.npz") == pairs
    with np.load(tmp_path / "x.npz") as file:
        assert file["text"].tobytes().decode() == join_lines(pairs)
