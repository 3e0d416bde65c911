"""Deep-R against a plain NumPy step with the same random numbers, and its promises over many steps."""

import functools
import inspect
import math
import re
import shutil
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st
from scipy import special, stats

from jaxmod import DenseConfig, noise, topk, train_network
from jaxmod import deep_r as module
from jaxmod.deep_r import paper_noise, paper_rate
from jaxmod.models import SubNetworks
from jaxmod.models.subnetworks import place_links
from tests.helpers import assert_trees_close, assert_trees_equal

TINY = 1e-10


def deep_r(*args, **options) -> Any:
    """The optimizer, compiled: op by op its first step takes seconds."""
    tx = module.deep_r(*args, **options)
    return tx._replace(update=jax.jit(tx.update))


def applied(params, updates) -> Any:
    return optax.apply_updates(params, updates)


def sparse(key, shape, count, scale=0.1):
    """Returns weights of both signs, `count` of them not zero."""
    where_key, weight_key = jax.random.split(key)
    weights = scale * (2 * noise.uniform(weight_key, shape) - 1)
    return jnp.where(topk.largest(noise.uniform(where_key, shape), count), weights, 0)


def numpy_step(w, g, s, t, rate, size, l1):
    """One leaf's step in float64, entry by entry; `s` has what the entries remember, and is changed."""
    walk, places = (jnp.asarray(x) for x in module._seeds(s["key"], jnp.int32(t)))
    normal = np.sqrt(2) * special.erfinv(2 * np.asarray(noise.uniform(walk, w.shape), np.float64) - 1)
    new, dead = w.copy(), []
    for i in np.ndindex(w.shape):
        if w[i] != 0:
            phi, grad = s["sign"][i] * w[i], s["sign"][i] * g[i]
            assert phi > 0
            s["age"][i] += 1
            s["m"][i] = 0.9 * s["m"][i] + 0.1 * grad
            s["v"][i] = 0.999 * s["v"][i] + 0.001 * grad**2
            phi += rate * size * normal[i]
            phi -= rate * l1
            m, v = s["m"][i] / (1 - 0.9 ** s["age"][i]), s["v"][i] / (1 - 0.999 ** s["age"][i])
            phi -= rate * m / (np.sqrt(v) + 1e-8)
            new[i] = s["sign"][i] * phi
            if phi <= 0:
                new[i] = s["age"][i] = s["m"][i] = s["v"][i] = 0
                dead.append(i)
    order = np.argsort(-np.asarray(noise.uniform(places, w.shape)), axis=None, kind="stable")
    dormant = [i for i in zip(*np.unravel_index(order, w.shape), strict=True) if new[i] == 0]
    for i in dormant[: len(dead)]:
        new[i] = s["sign"][i] * TINY
    return new, len(dead)


def test_it_is_the_rule_in_numpy(key):
    params = {"a": sparse(key, (6, 5), 12), "b": sparse(jax.random.fold_in(key, 1), (4,), 4)}
    rate, size, l1 = 0.02, 0.5, 0.1
    tx = deep_r(rate, noise=size, l1=l1, seed=3)
    state: Any = tx.init(params)
    expected = {name: np.asarray(w, np.float64) for name, w in params.items()}
    memory = {}
    for name, leaf in state.leaves.items():
        zeros = {x: np.zeros(leaf.age.shape) for x in ("m", "v", "age")}
        memory[name] = {"key": leaf.key, "sign": np.where(leaf.positive, 1.0, -1.0), **zeros}
    died = 0
    for t in range(40):
        grads = {n: jax.random.normal(jax.random.key(t + 100), w.shape) for n, w in params.items()}
        updates, state = tx.update(grads, state, params)
        params = applied(params, updates)
        for name, w in params.items():
            expected[name], dead = numpy_step(
                expected[name], np.asarray(grads[name], np.float64), memory[name], t, rate, size, l1
            )
            died += dead
            got, leaf = np.asarray(w), state.leaves[name]
            np.testing.assert_array_equal(got != 0, expected[name] != 0, f"{name} at {t}")
            np.testing.assert_allclose(got, expected[name], rtol=1e-4, atol=2e-7)
            np.testing.assert_array_equal(leaf.age, memory[name]["age"])
            np.testing.assert_allclose(leaf.mu, memory[name]["m"], rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(leaf.nu, memory[name]["v"], rtol=1e-4, atol=1e-6)
    assert died > 25


def test_it_is_adam_if_nothing_dies(key):
    w = {"w": 5 + sparse(key, (4, 3), 12)}
    ours, adam = deep_r(0.01, noise=0.0, l1=0.0), optax.adam(0.01)
    adam = adam._replace(update=jax.jit(adam.update))
    states: list[Any] = [ours.init(w), adam.init(w)]
    both: list[Any] = [w, w]
    for t in range(30):
        grads = {"w": jax.random.normal(jax.random.key(t), (4, 3))}
        for i, tx in enumerate((ours, adam)):
            updates, states[i] = tx.update(grads, states[i], both[i])
            both[i] = applied(both[i], updates)
    assert_trees_close(*both, rtol=2e-6)
    np.testing.assert_array_equal(states[0].leaves["w"].age, 30)


@functools.cache
def history(steps=60, shape=(12, 12)):
    """Returns a compiled `f(w, rate, size, l1, push, key) -> weights of every step` [steps + 1, ...]."""

    @jax.jit
    def run(w, rate, size, l1, push, key):
        unchecked = inspect.unwrap(module.deep_r)  # l1 is traced here, and no float
        tx = unchecked(lambda step, density: rate, noise=lambda step, density: size, l1=l1)

        def body(carry, t):
            w, state = carry
            # Part of the gradient pushes all weights through zero.
            grad = jax.random.normal(jax.random.fold_in(key, t), shape) + push * jnp.sign(w)
            updates, state = tx.update(grad, state, w, step=t)
            w = applied(w, updates)
            return (w, state), w

        _, weights = jax.lax.scan(body, (w, tx.init(w)), jnp.arange(steps))
        return jnp.concatenate([w[None], weights])

    return run


def check_promises(weights, count):
    """The number of entries that are not zero is `count` at every step, and each has only ever one sign."""
    weights = np.asarray(weights)
    assert np.isfinite(weights).all()
    np.testing.assert_array_equal(np.count_nonzero(weights.reshape(len(weights), -1), axis=1), count)
    assert not ((weights > 0).any(axis=0) & (weights < 0).any(axis=0)).any()


@hypothesis.given(
    count=st.sampled_from([0, 1, 2, 30, 143, 144]),
    rate=st.sampled_from([1e-6, 1e-3, 0.1, 10.0, 1e6]),
    size=st.sampled_from([0.0, 1e-4, 1.0, 1e3]),
    l1=st.sampled_from([0.0, 1e-4, 1.0]),
    push=st.sampled_from([0.0, 1.0, 1e4]),
    scale=st.sampled_from([1e-30, 1e-9, 0.1, 1e6]),
    seed=st.integers(0, 100),
)
def test_the_number_and_the_signs_never_change(count, rate, size, l1, push, scale, seed):
    key = jax.random.key(seed)
    w = sparse(key, (12, 12), count, scale)
    check_promises(history()(w, rate, size, l1, push, key), count)


def test_steps_that_land_on_zero_to_rounding():
    """Adam's first step is the rate: weights of that size end within rounding of zero, on either side."""
    around = np.float32(0.1) * (1 + np.arange(-8, 9, dtype=np.float32) * 2.0**-23)
    w = jnp.asarray(np.repeat(around, 9)[:144].reshape(12, 12).astype(np.float32))
    tx = deep_r(0.1, noise=0.0, l1=0.0)
    together = jax.jit(lambda g, w: applied(w, tx.update(g, tx.init(w), w)[0]))
    for size in (1.0, 1e-3, 1e-7, 3e-9):
        for sign in (1, -1):
            weights = sign * w
            apart = applied(weights, tx.update(size * weights, tx.init(weights), weights)[0])
            for landed in (apart, together(size * weights, weights)):
                assert (sign * np.asarray(landed) > 0).all()
                assert size < 1 or (np.abs(landed) < 2e-7).all()


def test_updates_and_weights_of_one_program(key):
    """Where the update is added in the program that makes it, the compiler may round in another way."""
    shape, steps = (100, 100), 100
    run = history(steps, shape)
    for count in (1, 137, 9_999, 10_000):
        w = sparse(jax.random.fold_in(key, count), shape, count)
        check_promises(run(w, 0.1, 1e-2, 1e-3, 1.0, key), count)


def test_runs_of_one_program_have_their_own_numbers(key):
    counts = [0, 1, 40, 144]
    keys = jax.random.split(key, len(counts))
    w = jnp.stack([sparse(k, (12, 12), c) for k, c in zip(keys, counts, strict=True)])
    arguments = (0.05, 0.1, 1e-3, 0.5)
    together = jax.vmap(history(), in_axes=(0, None, None, None, None, 0))(w, *arguments, keys)
    for run, count in enumerate(counts):
        check_promises(together[run], count)
    alone = history()(w[2], *arguments, keys[2])
    np.testing.assert_array_equal(np.asarray(together[2][:5]) != 0, np.asarray(alone[:5]) != 0)
    np.testing.assert_allclose(together[2][:5], alone[:5], rtol=1e-4, atol=1e-7)


def test_one_link_moves_to_all_places_alike():
    """A single weight that dies in each step: where it goes next is uniform, its own place among them."""
    places, runs = 20, 4000
    start = jnp.zeros((runs, places)).at[:, 7].set(jnp.linspace(0.01, 0.02, runs))

    def step(w):
        tx: Any = module.deep_r(1.0, noise=0.0, l1=0.0)
        updates, _ = tx.update(jnp.sign(w), tx.init(w), w)
        return applied(w, updates)

    landed = np.asarray(jax.jit(jax.vmap(step))(start))
    row, place = np.nonzero(landed)
    np.testing.assert_array_equal(row, np.arange(runs))
    assert stats.chisquare(np.bincount(place, minlength=places)).pvalue > 1e-3
    new = landed[row, place][place != 7]
    np.testing.assert_allclose(np.abs(new), TINY, rtol=1e-6)
    assert stats.binomtest(int((new > 0).sum()), len(new)).pvalue > 1e-3
    stayed = landed[row, place][place == 7]
    assert (stayed > 0).all() and (stayed < 1e-7).all()  # its sign, and next to nothing


def test_in_a_full_leaf_those_that_die_come_back(key):
    w = sparse(key, (5, 5), 25)
    tx = deep_r(10.0, noise=0.0, l1=0.0)
    updates, state = tx.update(jnp.sign(w), tx.init(w), w)
    landed = applied(w, updates)
    np.testing.assert_array_equal(np.sign(landed), np.sign(w))
    assert np.abs(landed).max() < 2e-7
    assert not np.asarray(state.leaves.age).any() and not np.asarray(state.leaves.mu).any()


def test_a_revived_weight_starts_adam_anew():
    w = jnp.array([0.5, 0.0])
    tx = deep_r(0.1, noise=0.0, l1=0.0)
    state: Any = tx.init(w)
    for _ in range(3):
        updates, state = tx.update(jnp.array([1.0, jnp.nan]), state, w)  # nobody looks at the second
        w = applied(w, updates)
    np.testing.assert_array_equal(state.leaves.age, [3, 0])
    np.testing.assert_array_equal(w[1], 0.0)
    sign = 1.0 if state.leaves.positive[1] else -1.0
    while w[1] == 0:
        updates, state = tx.update(jnp.array([1.0, 0.0]), state, w)
        w = applied(w, updates)
    assert w[0] == 0
    assert float(w[1]) == pytest.approx(sign * TINY)
    for moment in state.leaves[3:]:
        assert not np.asarray(moment).any()
    updates, state = tx.update(jnp.array([5.0, -sign * 0.01]), state, w)
    np.testing.assert_array_equal(state.leaves.age, [0, 1])
    np.testing.assert_allclose(updates, [0.0, sign * 0.1], rtol=1e-5)  # its first step: the rate


def test_the_walk_is_normal_and_the_pull_is_constant():
    w = jnp.where(jnp.arange(20_000) % 2 == 0, 1.0, -1.0).reshape(100, 200)
    tx = deep_r(0.1, noise=0.02, l1=0.5)
    state: Any = tx.init(w)
    first, state = tx.update(jnp.zeros_like(w), state, w)
    second, state = tx.update(jnp.zeros_like(w), state, w)
    for updates in (first, second):
        outwards = np.asarray(updates * w).ravel()
        assert stats.kstest((outwards + 0.1 * 0.5) / (0.1 * 0.02), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(np.ravel(first * w), np.ravel(second * w))[0, 1]) < 0.03


def test_rates_know_the_step_and_the_density():
    w = jnp.array([50.0, 0.0, -50.0, 0.0])
    tx = deep_r(lambda step, density: 1 + step + density, noise=0.0, l1=1.0)
    state: Any = tx.init(w)
    for expected in (1.5, 2.5, 3.5):
        updates, state = tx.update(jnp.zeros(4), state, w)
        np.testing.assert_allclose(updates, [-expected, 0.0, expected, 0.0], rtol=1e-6)


def test_the_rates_of_the_paper():
    rate = paper_rate()
    p = np.array([1e-4, 1e-3, 0.01, 0.1, 1.0])
    got = [float(rate(jnp.int32(10**6), jnp.float32(x))) for x in p]
    np.testing.assert_allclose(got, 0.1 * (p / 1e-4) ** -0.25, rtol=1e-5)
    assert float(rate(jnp.int32(0), jnp.float32(0.0))) == pytest.approx(0.1)
    decaying = paper_rate(steps_per_epoch=10, decay=0.5, highest=0.4, lowest=0.001)
    got = [float(decaying(jnp.int32(t), jnp.float32(1.0))) for t in (0, 9, 10, 39)]
    np.testing.assert_allclose(got, [0.001, 0.001, 0.0005, 0.000125], rtol=1e-5)
    size = paper_noise()
    np.testing.assert_allclose([size(jnp.int32(0), x) for x in (0.0, 0.25, 1.0)], [1e-4, 0.75e-4, 0.0])


def test_a_leaf_without_weights_stays_so():
    w = {"none": jnp.zeros((3, 3)), "empty": jnp.zeros((0, 3)), "some": jnp.array([1.0, 0.0])}
    tx = deep_r(paper_rate(), noise=paper_noise())
    updates, state = tx.update(jax.tree.map(jnp.ones_like, w), tx.init(w), w)
    assert not np.asarray(updates["none"]).any() and updates["empty"].shape == (0, 3)
    assert int(state.leaves["none"].num_active) == 0
    assert deep_r(0.1).update({}, deep_r(0.1).init({}), {})[0] == {}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_no_number_is_seen(bad):
    w = jnp.array([0.3, -0.2, 0.0, 0.0])
    tx = deep_r(0.01)
    state: Any = tx.init(w)
    grads = jnp.array([0.1, bad, 0.1, bad])
    for _ in range(3):
        updates, state = tx.update(grads, state, w)
        w = applied(w, updates)
        assert np.isnan(w[1]) and np.isfinite(w[0])
        np.testing.assert_array_equal(w[2:], 0.0)


def test_params_that_somebody_changed():
    start = jnp.array([0.5, -0.4, 0.3, 0.0, 0.0])
    tx = deep_r(1e-3, noise=0.0, l1=0.0)
    state: Any = tx.init(start)

    def after(changed):
        updates, _ = tx.update(jnp.zeros(5), state, changed)
        return np.asarray(applied(changed, updates))

    np.testing.assert_allclose(after(jnp.array([0.5, -0.4, 0.3, -0.6, 0.1])), [0.5, -0.4, 0, -0.6, 0])
    np.testing.assert_allclose(after(jnp.array([-0.5, 0.4, 0.3, 0.0, 0.0])), [-0.5, 0.4, 0.3, 0, 0])
    few = after(jnp.array([0.5, 0.0, 0.0, 0.0, 0.0]))
    assert np.count_nonzero(few) == 3 and few[0] == 0.5


def test_random_numbers_differ_where_they_should(key):
    w = sparse(key, (8, 8), 20)

    def words(w, seed=0):
        return np.asarray(deep_r(0.1, seed=seed).init(w).leaves.key)

    np.testing.assert_array_equal(words(w), words(w))
    others = [
        words(w, seed=1),
        words(w.at[0, 0].add(1e-6)),
        words(-w),
        words(w.T),
        words(w.at[3, 3].set(-0.0)),
    ]
    twins = deep_r(0.1).init({"a": w, "b": w}).leaves
    others += [np.asarray(twins["b"].key)]
    np.testing.assert_array_equal(twins["a"].key, words(w))
    for other in others:
        assert (other != words(w)).all()


def test_what_cannot_work_is_refused(key):
    w = {"net": {"kernel": jnp.ones((2, 2))}, "short": jnp.ones(2, jnp.bfloat16)}
    with pytest.raises(ValueError, match="leaf 'short' is bfloat16, expected float32"):
        deep_r(0.1).init(w)
    with pytest.raises(ValueError, match="leaf 'x' is 1.0 of type float"):
        deep_r(0.1).init({"x": 1.0})
    with pytest.raises(ValueError, match="update needs the params"):
        deep_r(0.1).update(w["net"], deep_r(0.1).init(w["net"]))
    with pytest.raises(ValueError, match="b2 must be between 0 and 1, got 1.0"):
        deep_r(0.1, b2=1.0)
    with pytest.raises(ValueError, match="steps_per_epoch must be at least 1, got 0"):
        paper_rate(steps_per_epoch=0)
    with pytest.raises(ValueError, match=re.escape("lowest must be positive, got 0")):
        paper_rate(lowest=0)


COUNTS = (1, 9, 64)


def network(key):
    """Returns params whose number of links is that of their run: the key says which."""
    model = SubNetworks(hidden=8, classes=3, steps=3)
    params = model.init(key, jnp.zeros((1, 2, 5)))["params"]
    count = jnp.array(COUNTS)[jax.random.randint(key, (), 0, len(COUNTS))]
    return place_links(key, params, count)


def network_loss(params, model_state, batch, key):
    del key
    readouts = SubNetworks(hidden=8, classes=3, steps=3).apply({"params": params}, batch["x"])
    losses = optax.softmax_cross_entropy_with_integer_labels(readouts.sum(1), batch["y"])
    return losses.mean(), (model_state, {})


def test_it_trains_links_beside_another_optimizer(key, tmp_path):
    labels = {"net_0": "nets", "net_1": "nets", "links": "links"}
    optimizer = optax.partition(
        {"nets": optax.adadelta(0.5), "links": module.deep_r(paper_rate(steps_per_epoch=10), noise=0.1)},
        labels,
    )
    x = np.random.default_rng(0).normal(size=(60, 2, 5)).astype(np.float32)
    task = {"x": x, "y": x[:, 0, :3].argmax(axis=1).astype(np.int32)}
    keys = jax.random.split(key, 5)
    starts = jax.vmap(network)(keys)
    config = DenseConfig(steps=30, batch_size=20, chunk_steps=10, eval_examples=20)

    def train(workdir):
        return train_network(
            network_loss, starts, task, keys=keys, config=config, optimizer=optimizer, workdir=workdir
        )

    whole = train(tmp_path)
    assert whole.history["loss"][:, -1].mean() < whole.history["loss"][:, 0].mean()
    moved = False
    for name in ("to_0", "to_1"):
        before = np.asarray(starts["links"][name]["kernel"])
        after = np.asarray(whole.params["links"][name]["kernel"])
        np.testing.assert_array_equal((before != 0).sum((1, 2)), (after != 0).sum((1, 2)))
        np.testing.assert_array_equal(np.sign(before * after) < 0, False)
        moved |= bool(((before != 0) != (after != 0)).any())
    assert moved
    # On from the checkpoint of step 20: nothing of the optimizer's state is lost.
    shutil.rmtree(tmp_path / "checkpoints" / "network" / "30")
    assert_trees_equal(train(tmp_path).params, whole.params)


def test_first_steps_have_the_correction_of_adam():
    """`1 - b^age` to all digits: at age 1 float32 has only four of 1 - 0.999."""
    w = jnp.array([1.0])
    tx = deep_r(1.0, noise=0.0, l1=0.0, eps=1e-30)
    updates, _ = tx.update(jnp.array([-3.0]), tx.init(w), w)
    assert math.isclose(float(updates[0]), 1.0, rel_tol=3e-7)
