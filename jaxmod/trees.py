"""Trees of weights by path: naming leaves, choosing them, splitting keys over them."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from jaxmod.types import Params, Where

__all__ = [
    "DEFAULT_WHERE",
    "check_arrays",
    "check_mirrors",
    "first_difference",
    "leaf_path",
    "map_with_path",
    "paths_and_leaves",
    "select",
    "split_keys",
    "tree_sum",
]

DEFAULT_WHERE = r"(.*/)?(kernel|weight|w)"
"""The weight matrices of Linen, NNX, Equinox and Haiku models; biases stay unmasked."""


def leaf_path(key_path: tuple[Any, ...]) -> str:
    """Returns `"layer/kernel"` for a JAX key path; a trailing NNX `/value` is removed."""
    # The array of an NNX Variable is its attribute; a weight in a dict may well be called "value".
    if len(key_path) > 1 and key_path[-1] == jax.tree_util.GetAttrKey("value"):
        key_path = key_path[:-1]
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


def paths_and_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """Returns `(path, leaf)` in the order of `jax.tree.leaves`; `None` is no leaf."""
    return [(leaf_path(p), x) for p, x in jax.tree_util.tree_leaves_with_path(tree)]


def map_with_path(f: Callable[..., Any], tree: PyTree, *rest: PyTree) -> PyTree:
    """Returns the tree of `f(path, leaf, *others)`; `rest` may hold `None` where `tree` has a leaf."""
    return jax.tree_util.tree_map_with_path(lambda p, *xs: f(leaf_path(p), *xs), tree, *rest)


def check_arrays(params: Params) -> None:
    """Raises ValueError naming the first leaf of params that is no array."""
    for path, leaf in paths_and_leaves(params):
        if not isinstance(leaf, (jax.Array, np.ndarray)):
            raise ValueError(
                f"params leaf {path!r} is {leaf!r} of type {type(leaf).__name__}, expected an array. "
                "Split the arrays from the rest of the model first, e.g. with "
                "eqx.partition(model, eqx.is_array) or nnx.split(model)."
            )


def select(params: Params, where: Where = DEFAULT_WHERE) -> PyTree[bool]:
    """Returns a tree of bools that mirrors `params`: True for the leaves that `where` selects.

    Args:
      params: any pytree of arrays.
      where: a regex that must match the whole path (`re.fullmatch`), or a predicate
        `(path, leaf) -> bool`.

    Raises:
      ValueError: a leaf is no array; nothing is selected; a selected leaf is not floating.

    >>> import jax.numpy as jnp
    >>> select({"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}})
    {'dense': {'bias': False, 'kernel': True}}
    """
    check_arrays(params)
    leaves = paths_and_leaves(params)
    if isinstance(where, str):
        try:
            pattern = re.compile(where)
        except re.error as error:
            raise ValueError(f"where: {where!r} is no regular expression: {error}.") from error
        chosen = map_with_path(lambda path, _: pattern.fullmatch(path) is not None, params)
        wanted = f"the regex {where!r}"
    else:
        chosen = map_with_path(lambda path, leaf: bool(where(path, leaf)), params)
        wanted = "the predicate"
    if not any(jax.tree.leaves(chosen)):
        shown = ", ".join(repr(path) for path, _ in leaves[:10]) or "none"
        raise ValueError(f"where: {wanted} selects no leaf of params. The first paths are: {shown}.")
    for (path, leaf), picked in zip(leaves, jax.tree.leaves(chosen), strict=True):
        if picked and not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                f"where selects {path!r} of dtype {leaf.dtype}, but only floating leaves can be "
                "masked; narrow the pattern so that it leaves this one out."
            )
    return chosen


def split_keys(key: Key[Array, ""], tree: PyTree) -> PyTree:
    """Returns a tree like `tree` with a key of its own for every leaf (`None` stays `None`)."""
    leaves, treedef = jax.tree.flatten(tree)
    return jax.tree.unflatten(treedef, list(jax.random.split(key, len(leaves))))


def tree_sum(f: Callable[..., Array], *trees: PyTree) -> Array:
    """Returns the sum of `f(*leaves)` over the leaves of trees with one structure."""
    return sum(jax.tree.leaves(jax.tree.map(f, *trees)), start=jnp.zeros(()))


def first_difference(tree: PyTree, like: PyTree) -> str | None:
    """Returns what differs first between the paths and shapes of two trees, or None."""
    here, there = dict(paths_and_leaves(tree)), dict(paths_and_leaves(like))
    for path in [*here, *(p for p in there if p not in here)]:
        if path not in there:
            return f"{path!r} has no counterpart"
        if path not in here:
            return f"{path!r} is missing"
        if jnp.shape(here[path]) != jnp.shape(there[path]):
            return f"{path!r} has shape {jnp.shape(here[path])}, expected {jnp.shape(there[path])}"
    return None


def check_mirrors(tree: PyTree, params: Params, name: str) -> None:
    """Raises ValueError unless `tree` has the structure of `params`, `None` allowed for any leaf."""

    def is_none(x: Any) -> bool:
        return x is None

    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_none)
    holes = {leaf_path(p) for p, x in leaves if x is None}
    like = map_with_path(lambda path, w: None if path in holes else w, params)
    difference = first_difference(tree, like)
    if difference is None and jax.tree.structure(tree, is_none) != jax.tree.structure(like, is_none):
        difference = "same paths and shapes, but other containers (a list for a tuple, say)"
    if difference is not None:
        raise ValueError(f"{name} does not mirror params: {difference}.")
