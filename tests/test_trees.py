"""Paths, selection by regex and predicate, keys per leaf, and the messages for trees that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.core import FrozenDict

from jaxmod import trees

PARAMS = {
    "encoder": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)},
    "layers": [{"w": jnp.ones((2, 2))}, {"w": jnp.ones((2, 1))}],
    "steps": jnp.array(3, jnp.int32),
}


def chosen(params, where=trees.DEFAULT_WHERE):
    return [path for path, picked in trees.paths_and_leaves(trees.select(params, where)) if picked]


def test_paths_are_layer_slash_kernel():
    paths = [path for path, _ in trees.paths_and_leaves(PARAMS)]
    assert paths == ["encoder/bias", "encoder/kernel", "layers/0/w", "layers/1/w", "steps"]


def test_none_is_no_leaf():
    assert trees.paths_and_leaves({"a": None, "b": jnp.ones(1), "c": {}}) == [("b", jnp.ones(1))]


def test_the_trailing_value_of_nnx_is_removed():
    state = nnx.State({"linear": {"kernel": nnx.Param(jnp.ones(1))}})
    assert [p for p, _ in trees.paths_and_leaves(state)] == ["linear/kernel"]
    attention = {"query": jnp.ones(1), "value": jnp.ones(1)}
    assert [p for p, _ in trees.paths_and_leaves({"attention": attention})] == [
        "attention/query",
        "attention/value",
    ]


def test_map_with_path_hands_on_the_none_of_the_rest():
    seen = {}
    trees.map_with_path(
        lambda path, x, m: seen.setdefault(path, m), {"a": jnp.ones(1), "b": jnp.ones(1)}, {"a": None, "b": 2}
    )
    assert seen == {"a": None, "b": 2}


def test_default_selects_weight_matrices():
    assert chosen(PARAMS) == ["encoder/kernel", "layers/0/w", "layers/1/w"]
    assert chosen({"weight": jnp.ones((2, 2)), "weights_of_bias": jnp.ones(2)}) == ["weight"]


def test_a_regex_must_match_the_whole_path():
    assert chosen(PARAMS, r"layers/0/w") == ["layers/0/w"]
    assert chosen(PARAMS, r"layers/.*") == ["layers/0/w", "layers/1/w"]
    with pytest.raises(ValueError, match="selects no leaf"):
        trees.select(PARAMS, r"layers")


def test_a_predicate_sees_path_and_leaf():
    assert chosen(PARAMS, lambda path, leaf: leaf.ndim == 2 and path != "layers/1/w") == [
        "encoder/kernel",
        "layers/0/w",
    ]


def test_selecting_nothing_lists_the_first_ten_paths():
    params = {f"layer_{i:02}": {"kernel": jnp.ones((2, 2))} for i in range(12)}
    with pytest.raises(ValueError, match="selects no leaf") as error:
        trees.select(params, r".*/kernal")
    shown = [path for path in (f"layer_{i:02}/kernel" for i in range(12)) if path in str(error.value)]
    assert shown == [f"layer_{i:02}/kernel" for i in range(10)]
    assert ".*/kernal" in str(error.value)


def test_selecting_an_integer_leaf_names_it():
    with pytest.raises(ValueError, match=r"'steps' of dtype int32"):
        trees.select(PARAMS, r".*")


@pytest.mark.parametrize("leaf", [3.0, "relu", jnp.tanh])
def test_a_leaf_that_is_no_array_names_partition(leaf):
    with pytest.raises(ValueError, match=r"'act'.*eqx\.partition"):
        trees.select({"act": leaf, "w": jnp.ones((2, 2))})


def test_numpy_arrays_are_arrays():
    assert chosen({"w": np.ones((2, 2), np.float32)}) == ["w"]


def test_split_keys_gives_every_leaf_its_own(key):
    tree = {"a": jnp.ones(2), "b": None, "c": jnp.ones(3)}
    keys = trees.split_keys(key, tree)
    assert keys["b"] is None
    assert jax.tree.structure(keys) == jax.tree.structure(tree)
    assert not np.array_equal(jax.random.key_data(keys["a"]), jax.random.key_data(keys["c"]))


def test_tree_sum_of_products():
    a = {"x": jnp.array([1.0, 2.0]), "y": None, "z": jnp.array([[3.0]])}
    np.testing.assert_allclose(trees.tree_sum(lambda u, v: jnp.sum(u * v), a, a), 14.0)
    assert trees.tree_sum(jnp.sum, {"y": None}) == 0


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"a": jnp.ones(2), "b": jnp.ones(3)}, None),
        ({"a": jnp.ones(2), "c": jnp.ones(3)}, "'c' has no counterpart"),
        ({"a": jnp.ones(2)}, "'b' is missing"),
        ({"a": jnp.ones(2), "b": jnp.ones(4)}, r"'b' has shape (4,), expected (3,)"),
    ],
)
def test_first_difference(tree, said):
    assert trees.first_difference(tree, {"a": jnp.ones(2), "b": jnp.ones(3)}) == said


def test_check_mirrors_lets_none_stand_for_any_leaf():
    params = {"a": jnp.ones(2), "b": {"c": jnp.ones(3)}}
    trees.check_mirrors({"a": None, "b": {"c": jnp.zeros(3)}}, params, "logits")
    trees.check_mirrors({"a": jnp.zeros(2), "b": {"c": None}}, params, "logits")


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"a": jnp.ones(3), "b": {"c": jnp.ones(3)}}, r"'a' has shape \(3,\), expected \(2,\)"),
        ({"a": None, "b": {"d": jnp.ones(3)}}, r"'b/d' has no counterpart"),
        ({"a": None}, r"'b/c' is missing"),
        ({"a": jnp.ones(2), "b": None}, r"'b/c' is missing"),
        ({"a": jnp.ones(2), "b": FrozenDict({"c": jnp.ones(3)})}, r"same paths and shapes, but other"),
    ],
)
def test_check_mirrors_names_the_first_difference(tree, said):
    with pytest.raises(ValueError, match=rf"^logits does not mirror params: {said}"):
        trees.check_mirrors(tree, {"a": jnp.ones(2), "b": {"c": jnp.ones(3)}}, "logits")
