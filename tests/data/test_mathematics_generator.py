"""Generated questions: their answers worked out anew, and their text whatever the process."""

import hashlib
import itertools
import os
import random
import re
import subprocess
import sys
import types
from fractions import Fraction

import numpy as np
import pytest
import sympy

from jaxmod.data import mathematics_generator
from jaxmod.data.mathematics_generator import LEVELS, MODULES, generate_part

COUNT = 12


@pytest.fixture(scope="module")
def made():
    """Returns questions of every module and level."""
    return {m: [generate_part(m, level, 0, COUNT) for level in LEVELS] for m in MODULES}


def matched(pattern, text):
    """Returns the groups of a pattern that the whole text has."""
    found = re.fullmatch(pattern, text)
    assert found is not None, text
    return found.groups()


def value(expression, **at):
    """Returns an expression of the text at integer values, exactly."""
    return eval(expression, {"__builtins__": {}}, at)


def is_sum(question, answer):
    p, q = (Fraction(number) for number in re.findall(r"-?\d+(?:\.\d+)?", question))
    return Fraction(answer) in {p + q, p - q, q - p, abs(p - q)}


def solves(question, answer):
    left, right, symbol = matched(r"Solve (.+) = (.+) for (\w)\.", question)
    return value(left, **{symbol: int(answer)}) == value(right, **{symbol: int(answer)})


def is_derivative(question, answer):
    order = 1
    for number, word in enumerate(("first", "second", "third"), start=1):
        order = number if word in question else order
    text, symbol = matched(
        r"(?:.*derivative of|Differentiate) (.+?)(?: (?:wrt|with respect to) (\w))?[.?]", question
    )
    expression = sympy.sympify(text, {s: sympy.Symbol(s) for s in re.findall("[a-z]", text)})
    symbol = symbol or str(next(iter(expression.free_symbols)))
    found = sympy.sympify(answer, {s: sympy.Symbol(s) for s in re.findall("[a-z]", answer)})
    return sympy.expand(sympy.diff(expression, sympy.Symbol(symbol), order) - found) == 0


def is_in_order(question, answer):
    listed, way = matched(r"(?:Put|Sort) (.+?)(?: in (\w+) order)?\.", question)
    falls = way in ("decreasing", "descending")
    assert falls or way in (None, "increasing", "ascending")
    return answer.split(", ") == sorted(listed.split(", "), key=Fraction, reverse=falls)


def is_collected(question, answer):
    (terms,) = matched(r"Collect the terms in (.+)\.", question)
    (symbol,) = set(re.findall("[a-z]", terms))
    powers = re.findall(r"[a-z](?:\*\*\d+)?", answer)
    same = all(value(terms, **{symbol: x}) == value(answer, **{symbol: x}) for x in (-3, 0, 1, 7))
    return same and len(powers) == len(set(powers))


ORACLES = {
    "add_or_sub": is_sum,
    "linear_1d": solves,
    "differentiate": is_derivative,
    "sort": is_in_order,
    "collect": is_collected,
}


@pytest.mark.parametrize("module", MODULES)
def test_answers_are_right(module, made):
    pairs = [pair for level in made[module] for pair in level]
    assert len(pairs) == 3 * COUNT
    for question, answer in pairs:
        assert ORACLES[module](question, answer), (question, answer)


def test_the_oracles_refuse_wrong_answers():
    assert not is_sum("Sum 12 and -3.5.", "9")
    assert not solves("Solve 126*q = 110*q + 80 for q.", "4")
    assert not is_derivative("What is the second derivative of 3*a**3 - a wrt a?", "18*a + 1")
    assert not is_in_order("Sort -2, 13, 15 in decreasing order.", "-2, 13, 15")
    assert not is_collected("Collect the terms in 2*y + 3*y - 1.", "2*y + 3*y - 1")


@pytest.mark.parametrize("module", MODULES)
def test_levels_are_thirds_of_the_range(module, made):
    easy, medium, hard = (
        np.mean([len(re.findall(r"\d", question)) for question, _ in pairs]) for pairs in made[module]
    )
    assert easy < medium < hard
    whole = generate_part(module, "easy", 0, 3, entropy=(4, 16) if module == "add_or_sub" else (3, 10))
    assert whole == made[module][0][:3]
    assert generate_part(module, "easy", 0, 3, entropy=(1, 2)) != whole


def test_fewer_questions_are_the_first_of_more(made):
    for module in MODULES:
        assert generate_part(module, "medium", 0, 2) == made[module][1][:2]
    assert generate_part("sort", "medium", 1, 2) != made["sort"][1][:2]
    assert generate_part("sort", "medium", 0, 2, seed=1) != made["sort"][1][:2]


def test_the_text_does_not_depend_on_the_process(made):
    random.seed(3)
    np.random.seed(3)
    program = (
        "from jaxmod.data.mathematics_generator import *\n"
        f"print([[generate_part(m, level, 0, {COUNT}) for level in LEVELS[::-1]][::-1] for m in MODULES])"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    ours = str(list(made.values()))
    for process in processes:
        text, _ = process.communicate()
        assert process.returncode == 0
        assert text.strip() == ours


def test_text_of_this_sympy(made):
    """Anchors the text: caches keep it for as long as the versions stay."""
    if sympy.__version__ != "1.14.0":
        pytest.skip("SymPy's own text differs between versions")
    assert made["add_or_sub"][0][0] == ("Sum 2.8 and 0.1246.", "2.9246")
    assert made["sort"][0][0] == ("Put -547, 1/8, -2/9 in decreasing order.", "1/8, -2/9, -547")
    text = "".join(
        question + answer for levels in made.values() for pairs in levels for question, answer in pairs
    )
    assert hashlib.md5(text.encode()).hexdigest() == "b554b6b30623de32d3532f8200bed956"


def test_nothing_global_changes(made):
    import sympy.solvers.diophantine as package

    assert not hasattr(package, "base_solution_linear")
    assert "object" not in vars(np)
    assert not hasattr(np.zeros(2), "itemset")
    random.seed(3)  # not around `generate_part`: the checks of its types draw numbers, too
    np.random.seed(3)
    with mathematics_generator._seeded(np.array([1, 2])):
        drawn = random.random(), np.random.rand()
    after = random.random(), np.random.rand()
    assert after == (random.Random(3).random(), np.random.RandomState(3).rand())
    assert drawn == (random.Random(1).random(), np.random.RandomState(2).rand())


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="module='sorting': expected one of sort, add_or_sub"):
        generate_part("sorting", "easy", 0)
    with pytest.raises(ValueError, match="level='easier': expected one of easy, medium, hard"):
        generate_part("sort", "easier", 0)


def test_a_range_without_questions_is_named(monkeypatch):
    monkeypatch.setattr(mathematics_generator, "_MOST_REFUSED", 5)
    with pytest.raises(ValueError, match=r"sort has no easy .* entropy=30,60 \(longer than 160 or 30 char"):
        generate_part("sort", "easy", 0, 1, entropy=(30, 60))
    with pytest.raises(ValueError, match="linear_1d has no hard .* entropy=60,90 .*choose a lower range"):
        generate_part("linear_1d", "hard", 0, 1, entropy=(60, 90))


def test_a_draw_that_fails_is_drawn_again(monkeypatch):
    samplers = mathematics_generator._samplers("easy", (2, 3))
    turns = itertools.count()

    def now_and_then():
        if next(turns) % 2:
            raise ValueError("no such number")
        return samplers["sort"]()

    given = {**samplers, "sort": now_and_then}
    monkeypatch.setattr(mathematics_generator, "_samplers", lambda *_: given)
    assert len(generate_part("sort", "easy", 0, 3, entropy=(2, 3))) == 3 and next(turns) == 5


def test_packages_that_do_not_work_together_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sympy.solvers.diophantine.diophantine", types.ModuleType("changed"))
    mathematics_generator._package.cache_clear()
    mathematics_generator._samplers.cache_clear()
    with pytest.raises(ValueError, match=r"does not work with .*base_solution_linear.*pip install 'jaxmod"):
        generate_part("sort", "easy", 0, 1, entropy=(2, 3))


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(mathematics_generator, "versions", lambda: None)
    mathematics_generator._package.cache_clear()
    with pytest.raises(
        ValueError, match=r"not installed; bring them by: pip install 'jaxmod\[mathematics\]'"
    ):
        generate_part("sort", "easy", 0, 1, entropy=(2, 3))
    monkeypatch.undo()
    assert set(mathematics_generator.versions()) == {"mathematics_dataset", "sympy", "recipe"}
