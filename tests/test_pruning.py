"""Pruning against NumPy sorts, and the optimizer against the pruning library's rule in a Python loop."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend import core as jex

from jaxmod.models import MLP
from jaxmod.pruning import magnitude_mask, polynomial_sparsity, pruned
from tests.helpers import assert_trees_equal, tiny_data, tiny_loss, tiny_params

KERNELS = ("layer_1", "output")


def by_sorting(weights, sparsity):
    """The mask of the rule as it is written, with a sort."""
    keep = int(np.round(weights.size * (1 - np.float32(sparsity)), 0))
    if keep == 0:
        return np.zeros(weights.shape, bool)
    magnitudes = np.abs(weights)
    return magnitudes >= np.sort(magnitudes, axis=None)[weights.size - keep]


def awkward_weights():
    """Names and weights: of all sizes, with ties, zeros of both signs, denormals and infinities."""
    rng = np.random.RandomState(0)
    normal = rng.randn(37, 53).astype(np.float32)
    return {
        "normal": normal,
        "wide": (normal * 10.0 ** rng.randint(-38, 38, normal.shape)).astype(np.float32),
        "few values": rng.randint(-3, 4, (40, 10)).astype(np.float32),
        "all equal": np.full((6, 5), -0.25, np.float32),
        "zeros": np.array([0.0, -0.0, 0.0, 1e-45, -1e-45, 1e-38], np.float32),
        "infinite": np.array([np.inf, -np.inf, 1.0, -2.0, 3e38], np.float32),
        "one": np.array([[2.0]], np.float32),
    }


@pytest.mark.parametrize("name", awkward_weights())
def test_the_threshold_is_that_of_a_sort(name):
    weights = awkward_weights()[name]
    mask_of = jax.jit(lambda s: magnitude_mask({"w": jnp.asarray(weights)}, s)["w"])
    for sparsity in (0.0, 0.1, 0.5, 0.77, 0.9, 0.999, 1.0):
        np.testing.assert_array_equal(mask_of(sparsity), by_sorting(weights, sparsity), f"{sparsity}")


def test_ties_keep_more_and_equal_weights_are_never_pruned():
    mask = magnitude_mask({"w": jnp.array([3.0, -1.0, 1.0, 1.0, 0.5]), "k/w": jnp.full((8,), 2.0)}, 0.6)
    assert mask["w"].tolist() == [True, True, True, True, False]
    assert mask["k/w"].all()


def test_nothing_is_kept_at_sparsity_one_and_all_at_zero():
    weights = {"w": jnp.array([0.0, 1.0, -2.0])}
    assert not magnitude_mask(weights, 1.0)["w"].any()
    assert magnitude_mask(weights, 0.0)["w"].all()


def test_nan_counts_as_the_largest():
    mask = magnitude_mask({"w": jnp.array([1.0, jnp.nan, 3.0, -2.0])}, 0.5)
    assert mask["w"].tolist() == [False, True, True, False]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_short_floats(dtype):
    weights = jnp.asarray(awkward_weights()["normal"], dtype)
    mask = magnitude_mask({"w": weights}, 0.8)["w"]
    np.testing.assert_array_equal(mask, by_sorting(np.asarray(weights, np.float32), 0.8))


def test_masks_mirror_params_and_runs_are_vmapped(key):
    params = jax.vmap(tiny_params)(jax.random.split(key, 3))
    together = jax.vmap(magnitude_mask)(params, jnp.array([0.2, 0.5, 0.9]))
    for name in KERNELS:
        assert together[name]["bias"] is None
        for run, sparsity in enumerate((0.2, 0.5, 0.9)):
            kernel = np.asarray(params[name]["kernel"][run])
            np.testing.assert_array_equal(together[name]["kernel"][run], by_sorting(kernel, sparsity))
    only = magnitude_mask(params, 0.5, where=lambda path, leaf: path == "output/bias")
    assert only["output"]["kernel"] is None and only["output"]["bias"].shape == (3, 4)


def test_the_counts_of_the_paper(key):
    params = jax.jit(lambda key: MLP().init(key, jnp.zeros((1, 784)))["params"])(key)
    sparsity = polynomial_sparsity(steps=9380)
    mask = jax.jit(lambda p: magnitude_mask(p, sparsity(9380)))(params)
    assert [int(mask[f"layer_{i}"]["kernel"].sum()) for i in (1, 2, 3, 4)] == [20070, 6554, 6554, 6554]
    assert int(mask["output"]["kernel"].sum()) == 256


def test_the_schedule_of_the_paper():
    sparsity = polynomial_sparsity(steps=9380)
    t = np.arange(0, 9381, 10)
    expected = 0.9 + (0.5 - 0.9) * (1 - t / 9380) ** 3
    np.testing.assert_allclose(jax.vmap(sparsity)(jnp.asarray(t)), expected, rtol=1e-6)
    assert float(sparsity(0)) == 0.5
    assert float(sparsity(10**6)) == pytest.approx(0.9)
    assert polynomial_sparsity(steps=9380, start=0.5) is sparsity


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: polynomial_sparsity(steps=0), "steps must be a positive integer, got 0"),
        (lambda: polynomial_sparsity(steps=2.5), "steps must be a positive integer, got 2.5"),
        (lambda: polynomial_sparsity(steps=5, end=1.0), r"end must be in [0, 1), got 1.0"),
        (lambda: polynomial_sparsity(steps=5, start=-0.1), r"start must be in [0, 1), got -0.1"),
        (lambda: magnitude_mask({"w": jnp.ones(3)}, 1.5), r"sparsity must be in [0, 1], got 1.5"),
        (lambda: magnitude_mask({"a": jnp.ones(3)}, 0.5), "selects no leaf"),
        (lambda: pruned(optax.sgd(1.0), lambda t: 0.5, every=0), "every must be a positive integer, got 0"),
        (lambda: pruned(optax.sgd(1.0), lambda t: 0.5, every=1.5), "every must be a positive integer"),
        (
            lambda: pruned(optax.sgd(1.0), lambda t: 0.5).update(
                {"w": jnp.ones(3)}, pruned(optax.sgd(1.0), lambda t: 0.5).init({"w": jnp.ones(3)}), step=0
            ),
            "update needs the params",
        ),
    ],
)
def test_what_cannot_work_is_refused(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def library_rule(params, gradients, steps, every, sparsity):
    """Yields params and masks after each step: Adam in NumPy, masks by sorting, kernels masked each step."""
    w = {
        name: {leaf: np.asarray(x, np.float64) for leaf, x in layer.items()} for name, layer in params.items()
    }
    m = jax.tree.map(np.zeros_like, w)
    v = jax.tree.map(np.zeros_like, w)
    mask = {}
    for t in range(steps):
        g = jax.tree.map(lambda x: np.asarray(x, np.float64), gradients(w, t))
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        correct = [1 - b ** (t + 1) for b in (0.9, 0.999)]
        w = jax.tree.map(
            lambda w, m, v, c=correct: w - 1e-2 * (m / c[0]) / (np.sqrt(v / c[1]) + 1e-7), w, m, v
        )
        for name in KERNELS:
            if t % every == 0:
                mask[name] = by_sorting(w[name]["kernel"], sparsity(t))
            w[name]["kernel"] = w[name]["kernel"] * mask[name]
        yield w, mask.copy()


def test_it_is_the_pruning_librarys_rule(key):
    params, steps, every = tiny_params(key), 41, 5
    schedule = polynomial_sparsity(steps=40)
    grad = jax.jit(jax.grad(tiny_loss))

    def gradients(w, t):
        batch = jax.tree.map(lambda x: jnp.asarray(x[4 * t : 4 * t + 32]), tiny_data())
        return grad(jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), w), batch, None)

    def sparsity(t):
        return 0.9 + (0.5 - 0.9) * (1 - t / 40) ** 3

    tx = pruned(optax.adam(1e-2, eps=1e-7), schedule, every=every)
    state: Any = tx.init(params)
    update = jax.jit(tx.update)
    densities = []
    for t, (expected, mask) in enumerate(library_rule(params, gradients, steps, every, sparsity)):
        updates, state = update(gradients(params, t), state, params, step=t)
        params: Any = optax.apply_updates(params, updates)
        for name in KERNELS:
            np.testing.assert_array_equal(state.mask[name]["kernel"], mask[name], f"{name} at {t}")
            assert not np.asarray(params[name]["kernel"])[~mask[name]].any()  # exactly zero
            np.testing.assert_allclose(params[name]["kernel"], expected[name]["kernel"], atol=1e-5)
            np.testing.assert_allclose(params[name]["bias"], expected[name]["bias"], atol=1e-5)
        densities.append(np.mean(np.asarray(state.mask["layer_1"]["kernel"])))
    assert densities[0] == 0.5 and densities[-1] == pytest.approx(0.1, abs=0.01)
    assert densities == np.repeat(densities[::every], every)[:steps].tolist()
    assert state.mask["output"]["bias"] is None


def test_gradients_and_moments_are_not_masked_and_a_weight_can_come_back():
    tx = pruned(optax.sgd(1.0, momentum=0.9), lambda step: jnp.float32(0.5), every=2)
    params = {"w": jnp.array([4.0, 1.0, 3.0, 2.0])}
    state: Any = tx.init(params)

    def step(gradient, t):
        nonlocal params, state
        updates, state = tx.update({"w": jnp.array(gradient)}, state, params, step=t)
        params = optax.apply_updates(params, updates)

    step([0.0, -1.0, 0.0, 0.0], 0)
    assert params["w"].tolist() == [4.0, 0.0, 3.0, 0.0]
    step([0.0, -1.0, 0.0, 0.0], 1)  # no look at the mask
    assert params["w"].tolist() == [4.0, 0.0, 3.0, 0.0]
    assert state.inner[0].trace["w"][1] == pytest.approx(-1.9)
    step([0.0, -2.0, 0.0, 0.0], 2)  # one step from zero, 1.71 + 2, beats 3
    np.testing.assert_allclose(params["w"], [4.0, 3.71, 0.0, 0.0], rtol=1e-6)


def test_params_and_updates_give_the_masked_step_exactly(key):
    params, tx = tiny_params(key), pruned(optax.adam(0.3), lambda step: jnp.float32(0.7), every=1)
    plain = optax.adam(0.3)
    state: Any = tx.init(params)
    batch = jax.tree.map(jnp.asarray, tiny_data())
    grads = jax.grad(tiny_loss)(params, batch, None)
    updates, state = tx.update(grads, state, params, step=0)
    unmasked = optax.apply_updates(params, plain.update(grads, plain.init(params), params)[0])
    expected = magnitude_mask(unmasked, 0.7)
    assert_trees_equal(state.mask, expected)
    masked = jax.tree.map(lambda w, m: w if m is None else w * m, unmasked, expected)
    assert_trees_equal(optax.apply_updates(params, updates), masked)


def test_the_look_at_the_mask_is_skipped_under_vmap_over_runs(key):
    params = jax.vmap(tiny_params)(jax.random.split(key, 3))
    tx = pruned(optax.sgd(0.1), polynomial_sparsity(steps=20))

    def loop(params):
        def body(carry, step):
            params, state = carry
            updates, state = tx.update(params, state, params, step=step)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, tx.init(params)), jnp.arange(20))[0][0]

    (scan,) = [e for e in jax.make_jaxpr(jax.vmap(loop))(params).eqns if e.primitive.name == "scan"]
    body = scan.params["jaxpr"].jaxpr
    conds = [e for e in body.eqns if e.primitive.name == "cond"]
    assert len(conds) == 1 and isinstance(conds[0].invars[0], jex.Var)
    assert conds[0].invars[0].aval.shape == ()
    together = jax.jit(jax.vmap(loop))(params)
    alone = jax.jit(loop)(jax.tree.map(lambda x: x[1], params))
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a[1], b, rtol=1e-6)
        np.testing.assert_array_equal(np.asarray(a[1]) == 0, np.asarray(b) == 0)
