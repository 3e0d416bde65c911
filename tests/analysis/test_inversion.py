import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmod import masks
from jaxmod.analysis.inversion import first_half, half_masks, inverse_masks

LAYERS = ("layer_1", "layer_2", "output")
IO = ("layer_1/kernel", "output/kernel")


def random_mask(key, density=0.5):
    keys = jax.random.split(key, len(LAYERS))
    return {
        name: {"kernel": jax.random.bernoulli(k, density, (4, 5)), "bias": None}
        for name, k in zip(LAYERS, keys, strict=True)
    }


@pytest.fixture
def module(key):
    return random_mask(key)


@pytest.fixture
def control(key):
    return random_mask(jax.random.fold_in(key, 1), 0.8)


def assert_same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert all(leaf.dtype == bool for leaf in jax.tree.leaves(got))


def test_the_plain_inverse_is_the_complement_everywhere(module, control):
    assert_same(inverse_masks(module), masks.invert(module))
    assert_same(inverse_masks(module, control, IO, "none"), masks.invert(module))


def test_fullmask_takes_the_control_mask_in_the_io_layers(module, control):
    expected = {
        "layer_1": control["layer_1"],
        "layer_2": masks.invert(module["layer_2"]),
        "output": control["output"],
    }
    assert_same(inverse_masks(module, control, IO, "fullmask"), expected)


def test_ones_leaves_the_io_layers_unmasked(module):
    ones = {"kernel": jnp.ones((4, 5), bool), "bias": None}
    expected = {"layer_1": ones, "layer_2": masks.invert(module["layer_2"]), "output": ones}
    assert_same(inverse_masks(module, io_layers=IO, io="ones"), expected)


def test_early_masks_the_first_half_and_late_the_rest(control):
    ones = {"kernel": jnp.ones((4, 5), bool), "bias": None}
    early, late = half_masks(control, ["layer_1/kernel", "layer_2/kernel"])
    assert_same(early, {**control, "output": ones})
    assert_same(late, {"layer_1": ones, "layer_2": ones, "output": control["output"]})
    assert_same(masks.intersection(early, late), control)


def test_first_half_of_an_odd_number_of_layers():
    layers = ["a", "b", "c", "d", "e"]
    assert first_half(layers, round_up=True) == ["a", "b", "c"]  # add/mul FNN: 3 of 5
    assert first_half(layers, round_up=False) == ["a", "b"]  # double addition FNN: 2 of 5
    assert first_half(layers[:4], round_up=True) == first_half(layers[:4], round_up=False) == ["a", "b"]


def test_runs_and_jit_give_what_a_loop_gives(key):
    keys = jax.random.split(key, 3)
    modules, controls = jax.vmap(random_mask)(keys), jax.vmap(random_mask)(keys[::-1])

    def both(module, control):
        return inverse_masks(module, control, IO, "fullmask"), half_masks(control, IO[:1])

    runs = jax.jit(jax.vmap(both))(modules, controls)
    for i in range(3):
        alone = both(*jax.tree.map(lambda x: x[i], (modules, controls)))  # noqa: B023
        assert_same(jax.tree.map(lambda x: x[i], runs), alone)  # noqa: B023


def test_unknown_paths_are_named(module, control):
    with pytest.raises(ValueError, match=r"io_layers: \['layer_9/kernel'\]"):
        inverse_masks(module, control, ["layer_1/kernel", "layer_9/kernel"], "ones")
    with pytest.raises(ValueError, match=r"first_half: \['layer_1/bias'\]"):
        half_masks(control, ["layer_1/bias"])


def test_fullmask_needs_a_control_mask_of_the_same_tree(module, control):
    with pytest.raises(ValueError, match="control="):
        inverse_masks(module, io_layers=IO, io="fullmask")
    with pytest.raises(ValueError, match="'output/kernel'"):
        inverse_masks(
            module, {**control, "output": {"kernel": jnp.ones((2, 2), bool), "bias": None}}, IO, "fullmask"
        )


@pytest.mark.parametrize("io", ["fullmask", "ones"])
def test_io_layers_are_needed_for_a_special_treatment(module, control, io):
    with pytest.raises(ValueError, match="io_layers"):
        inverse_masks(module, control, io=io)
