"""Questions of the Mathematics Dataset (Saxton et al. 2019), made by the package `mathematics_dataset`.

The package dates from 2019 and does not import beside today's SymPy and NumPy. What it lacks is put into its
own modules; other users of SymPy and NumPy see no change. The seed of a part decides its text, whatever the
process: not the hash seed of Python (the package draws symbols from a set), not the state of `random`.
"""

import contextlib
import functools
import importlib
import importlib.metadata
import random
import string
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxmod.configs import check_choice

__all__ = ["LEVELS", "LONGEST_ANSWER", "LONGEST_QUESTION", "MODULES", "PART", "generate_part", "versions"]

LEVELS = ("easy", "medium", "hard")
"""The lower, middle and upper third of a module's range of difficulty."""

MODULES = {
    "add_or_sub": "arithmetic",
    "linear_1d": "algebra",
    "differentiate": "calculus",
    "sort": "comparison",
    "collect": "polynomials",
}
"""The modules of Csordas et al. 2021, section 4.3, and the families that they are in."""

LONGEST_QUESTION, LONGEST_ANSWER = 160, 30
"""Characters; longer ones are drawn again, as in the published data."""

PART = 1000
"""Questions that one seed gives: what processes share, and what is lost when they are stopped."""

_MOST_REFUSED = 200  # draws in turn without a question; of those of the paper at most 60% are too long
_RECIPE = "1"  # to be raised when the same seed gives other text than before
_EXTRA = "pip install 'jaxmod[mathematics]'"


def versions() -> dict[str, str] | None:
    """Returns the versions of all that decides the text of a seed, None without the packages.

    NumPy is not among them: its old generator gives the same numbers for ever.
    """
    try:
        packages = {name: importlib.metadata.version(name) for name in ("mathematics_dataset", "sympy")}
    except importlib.metadata.PackageNotFoundError:
        return None
    return packages | {"recipe": _RECIPE}


def generate_part(
    module: str,
    level: str,
    part: int,
    count: int = PART,
    seed: int = 0,
    entropy: tuple[float, float] | None = None,
) -> list[tuple[str, str]]:
    """Returns `count` questions with their answers; fewer are the first of more.

    Args:
      module: one of `MODULES`.
      level: one of `LEVELS`.
      part: which of the parts that a seed gives.
      count: at most `PART`.
      seed: of all parts.
      entropy: the range of difficulty, the decimal logarithm of how many values the numbers of a question
        have; default: the module's own, 4 to 16 for add_or_sub and 3 to 10 for the others.

    Raises:
      ValueError: an unknown module or level; the package is not installed or does not work with this SymPy
        (the command that brings it is named); the module has no questions of this entropy, or all of them
        are too long.
    """
    check_choice("module", module, MODULES)
    check_choice("level", level, LEVELS)
    sample = _samplers(level, entropy)[module]
    places = [seed, list(MODULES).index(module), LEVELS.index(level), part]
    with _seeded(np.random.SeedSequence(places).generate_state(2)):
        pairs: list[tuple[str, str]] = []
        refused = 0
        while len(pairs) < count:
            reason = f"longer than {LONGEST_QUESTION} or {LONGEST_ANSWER} characters"
            try:
                problem = sample()
                pair = str(problem.question), str(problem.answer)
            except (ValueError, OverflowError) as error:
                pair, reason = None, str(error)
            if pair and len(pair[0]) <= LONGEST_QUESTION and len(pair[1]) <= LONGEST_ANSWER:
                pairs.append(pair)
                refused = 0
            elif (refused := refused + 1) == _MOST_REFUSED:
                raise _out_of_range(module, level, entropy, reason)
    return pairs


def _out_of_range(module: str, level: str, entropy: tuple[float, float] | None, reason: str) -> ValueError:
    span = "its own entropy" if entropy is None else f"entropy={entropy[0]:g},{entropy[1]:g}"
    return ValueError(
        f"{module} has no {level} questions of {span} ({reason}); choose a lower range, as 3,10."
    )


@functools.cache
def _samplers(level: str, entropy: tuple[float, float] | None) -> dict[str, Callable[[], Any]]:
    """Returns what draws a problem of each module."""

    def third(own: tuple[float, float]) -> tuple[float, float]:
        low, high = entropy or own
        step, place = (high - low) / len(LEVELS), LEVELS.index(level)
        return low + place * step, low + (place + 1) * step

    families = _package()
    return {module: families[family].train(third)[module] for module, family in MODULES.items()}


@functools.cache
def _package() -> dict[str, types.ModuleType]:
    """Returns the families of modules, imported and mended."""
    if versions() is None:
        raise ValueError(
            "questions are made by the packages mathematics_dataset and sympy, which are not installed; "
            f"bring them by: {_EXTRA}"
        )
    try:
        solvers = importlib.import_module("sympy.solvers.diophantine")
        # SymPy moved this function; it is put back for as long as the import takes.
        moved = importlib.import_module("sympy.solvers.diophantine.diophantine").base_solution_linear
    except (ImportError, AttributeError) as error:
        raise _broken(error) from error
    missing = not hasattr(solvers, "base_solution_linear")
    if missing:
        vars(solvers)["base_solution_linear"] = moved
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # escapes that Python no longer likes
            families = {
                family: importlib.import_module(f"mathematics_dataset.modules.{family}")
                for family in MODULES.values()
            }
    except (ImportError, AttributeError) as error:
        raise _broken(error) from error
    finally:
        if missing:
            del vars(solvers)["base_solution_linear"]
    composition: Any = importlib.import_module("mathematics_dataset.util.composition")
    polynomials: Any = importlib.import_module("mathematics_dataset.sample.polynomials")
    composition._ALLOWED_SYMBOLS = _SortedSet(set(string.ascii_lowercase) - {"e"})
    polynomials.np = _old_numpy()
    return families


def _broken(error: Exception) -> ValueError:
    return ValueError(
        f"mathematics_dataset does not work with the packages that are installed ({error}); bring those that "
        f"it works with by: {_EXTRA}"
    )


class _SortedSet(frozenset[str]):
    """A set that is walked through in order, and whose differences are such sets."""

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(super().__iter__()))

    def difference(self, *others: Any) -> "_SortedSet":
        return _SortedSet(super().difference(*others))


class _OldArray(np.ndarray):
    """An array with the method `itemset`, which NumPy 2 has not."""

    def itemset(self, index: Any, value: Any) -> None:
        self[index] = value


def _old_numpy() -> types.SimpleNamespace:
    """Returns NumPy's names, with `object` and with arrays that have `itemset`."""

    def zeros(*args: Any, **kwargs: Any) -> np.ndarray:
        return np.zeros(*args, **kwargs).view(_OldArray)

    def empty(*args: Any, **kwargs: Any) -> np.ndarray:
        return np.empty(*args, **kwargs).view(_OldArray)

    return types.SimpleNamespace(**(vars(np) | {"object": object, "zeros": zeros, "empty": empty}))


@contextlib.contextmanager
def _seeded(seeds: np.ndarray) -> Iterator[None]:
    """Seeds the global generators, which the package draws from, and gives them back as they were."""
    kept = random.getstate(), np.random.get_state()
    random.seed(int(seeds[0]))
    np.random.seed(int(seeds[1]))
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
