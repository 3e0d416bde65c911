"""with_variants: every variant against a mask made by hand, with and without a runs axis."""

import jax
import numpy as np
import pytest

from jaxmod import masks as mask_ops
from jaxmod.analysis.variants import HALVES, same_leaves, with_variants

LAYERS = ("layer_1", "layer_2", "output")
IO = ("layer_1/kernel", "output/kernel")
RUNS = 3


def random_mask(key):
    """Returns a mask of three layers, the biases unmasked."""
    keys = jax.random.split(key, len(LAYERS))
    return {
        name: {"kernel": jax.random.bernoulli(k, 0.5, (4, 5)), "bias": None}
        for name, k in zip(LAYERS, keys, strict=True)
    }


def pick(tree, run):
    return tree if run is None else jax.tree.map(lambda x: x[run], tree)


def kernels(mask):
    return {name: np.asarray(layer["kernel"]) for name, layer in mask.items()}


@pytest.fixture(params=[False, True], ids=["one network", "runs"])
def given(request, key):
    """The masks, the keys of random masks, and the runs to look at."""
    names = ("control", "a", "b")
    keys = jax.random.split(key, (len(names), RUNS))
    if request.param:
        return {n: jax.vmap(random_mask)(k) for n, k in zip(names, keys, strict=True)}, keys[0], range(RUNS)
    return {n: random_mask(k[0]) for n, k in zip(names, keys, strict=True)}, keys[0, 0], [None]


def test_every_variant_is_what_its_name_says(given):
    masks, keys, runs = given
    rows = with_variants(masks | {"none": None}, keys, "control", IO, ["layer_1/kernel"])
    assert list(rows) == [
        "unmasked", "control", "a", "b", "none", "not control", "not a", "not b",
        "random control", "random a", "random b", "not a, control I/O", "not a, full I/O",
        "not b, control I/O", "not b, full I/O", "early masked", "late masked",
    ]  # fmt: skip
    assert rows["unmasked"] is rows["none"] is None
    for run in runs:
        got = {name: kernels(pick(mask, run)) for name, mask in rows.items() if mask is not None}
        control, ones = got["control"], np.ones((4, 5), bool)
        for name in ("a", "b"):
            mask = got[name]
            expected = {
                f"not {name}": {layer: ~kept for layer, kept in mask.items()},
                f"not {name}, control I/O": control | {"layer_2": ~mask["layer_2"]},
                f"not {name}, full I/O": {"layer_1": ones, "layer_2": ~mask["layer_2"], "output": ones},
                f"random {name}": kernels(mask_ops.random_mask_like(pick(keys, run), pick(masks[name], run))),
            }
            for variant, layers in expected.items():
                for layer in LAYERS:
                    np.testing.assert_array_equal(got[variant][layer], layers[layer], f"{variant} {layer}")
        for half, layers in zip(HALVES, (LAYERS[:1], LAYERS[1:]), strict=True):
            for layer in LAYERS:
                np.testing.assert_array_equal(got[half][layer], control[layer] if layer in layers else ones)


def test_nothing_is_added_unasked(given):
    masks, _, _ = given
    assert with_variants(masks) == masks
    assert with_variants(masks, control="control") == masks


def test_masks_over_other_leaves_have_no_complement_with_the_control(given):
    masks, _, _ = given
    fewer = masks["a"] | {"layer_2": {"kernel": None, "bias": None}}
    rows = with_variants(masks | {"fewer": fewer}, control="control", io_layers=IO)
    assert [name for name in rows if "I/O" in name] == [
        f"not {name}, {title}" for name in "ab" for title in ("control I/O", "full I/O")
    ]
    assert same_leaves(masks | {"fewer": fewer, "none": None}, "a") == ["control", "b"]
    assert same_leaves({"none": None, "a": fewer}, "none") == []


def test_bad_input_is_named(given):
    masks, keys, _ = given
    with pytest.raises(ValueError, match=r"control='c' is not among the masks \['control', 'a', 'b'\]"):
        with_variants(masks, control="c")
    for layers in ({"io_layers": IO}, {"first_half": IO}):
        with pytest.raises(ValueError, match="need control="):
            with_variants(masks, **layers)
    with pytest.raises(ValueError, match=r"io_layers: \['layer_9/kernel'\]"):
        with_variants(masks, control="control", io_layers=["layer_9/kernel"])
    with pytest.raises(ValueError, match=r"first_half: \['layer_9/kernel'\]"):
        with_variants(masks, control="control", first_half=["layer_9/kernel"])
    with pytest.raises(ValueError, match=r"masks \['not a'\] have names that variants"):
        with_variants(masks | {"not a": None}, keys)
