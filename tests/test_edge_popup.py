"""What edge_popup promises of its own: the ranking of all leaves together, the gradient, the start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmod as jm
from tests.helpers import tiny_data, tiny_loss, tiny_params


def ranked(scores, count):
    """The mask of the `count` highest scores by a stable sort of all leaves in their order."""
    flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(scores)])
    kept = np.zeros(flat.size, bool)
    kept[np.argsort(-flat, kind="stable")[:count]] = True
    ends = np.cumsum([x.size for x in jax.tree.leaves(scores)])[:-1]
    parts = np.split(kept, ends)
    leaves = [part.reshape(x.shape) for part, x in zip(parts, jax.tree.leaves(scores), strict=True)]
    return jax.tree.unflatten(jax.tree.structure(scores), leaves)


@pytest.mark.parametrize("q", [0.003, 0.05, 0.3, 0.999, 1.0])
@pytest.mark.parametrize("levels", [3, 10**6])  # with few levels, many scores are equal
def test_the_mask_is_that_of_a_stable_sort_over_all_leaves(q, levels):
    random = np.random.RandomState(0)
    scores = {
        "a": jnp.asarray(random.randint(0, levels, (7, 30)) / levels, jnp.float32),
        "b": None,
        "c": jnp.asarray(random.randint(0, levels, 13) / levels - 0.5, jnp.float32),
        "d": jnp.asarray(random.randint(0, levels, (3, 4, 5)) / levels, jnp.float32),
    }
    count = round(q * (210 + 13 + 60))
    mask = jax.jit(jm.edge_popup(q).threshold)(scores)
    assert mask["b"] is None
    wanted = ranked(scores, count)
    for name in ("a", "c", "d"):
        np.testing.assert_array_equal(mask[name], wanted[name])
    assert sum(int(m.sum()) for m in jax.tree.leaves(mask)) == count


def test_all_is_kept_with_q_of_one_and_the_network_unchanged(key):
    params = tiny_params(key)
    est = jm.edge_popup(1)
    module = jm.apply_mask(params, est.sample(key, est.init(key, params)))
    for m, w in zip(jax.tree.leaves(module), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(m, w)


def test_the_gradient_of_a_score_is_that_of_the_masked_weight_times_the_weight(key):
    params, est = tiny_params(key), jm.edge_popup(0.3)
    scores = est.init(key, params)
    batch = jax.tree.map(jnp.asarray, tiny_data())
    loss = lambda scores: tiny_loss(jm.apply_mask(params, est.sample(key, scores)), batch, key)  # noqa: E731
    grads = jax.jit(jax.grad(loss))(scores)
    masked = jm.apply_mask(params, est.threshold(scores))
    by_weight = jax.grad(tiny_loss)(masked, batch, key)
    for layer in params:
        wanted = by_weight[layer]["kernel"] * params[layer]["kernel"]  # of kept weights and dropped ones
        np.testing.assert_allclose(grads[layer]["kernel"], wanted, rtol=1e-5, atol=1e-8)
        assert grads[layer]["bias"] is None


def test_scores_start_by_the_number_of_inputs_with_a_key_for_each_leaf(key):
    params = {"a": jnp.ones((3, 3, 16, 500)), "b": jnp.ones((100, 400)), "c": jnp.ones((100, 400))}
    params |= {"bias": jnp.ones(20_000), "scale": jnp.ones(())}
    scores = jm.edge_popup().init(key, params, ".*")
    for name, fan_in in (("a", 144), ("b", 100), ("c", 100)):
        bound = fan_in**-0.5
        x = np.asarray(scores[name], np.float64)
        assert 0.999 * bound < np.abs(x).max() <= bound and abs(x.mean()) < 4 * bound / x.size**0.5
        assert x.std() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert float(scores["bias"].std()) == pytest.approx(0.01, rel=0.02)
    assert scores["scale"].shape == ()
    assert not np.array_equal(scores["b"], scores["c"])


def test_a_q_that_keeps_nothing_is_named_with_the_number_of_weights(key):
    params = tiny_params(key)  # 96 + 64 weights
    with pytest.raises(
        ValueError, match=r"q=0\.002 of 160 masked weights keeps none; .* q of 0\.0063 or more"
    ):
        jm.edge_popup(0.002).init(key, params)
    with pytest.raises(ValueError, match=r"q=0\.005 of 64 masked weights"):
        jm.edge_popup(0.005).init(key, params, "output/kernel")
    jm.edge_popup(0.005).init(key, params)


def test_a_q_above_one_is_refused():
    with pytest.raises(ValueError, match=r"q must be above 0 and at most 1, got 1\.01"):
        jm.edge_popup(1.01)


def test_the_ranking_counts_leaves_that_are_held(key):
    params, est = tiny_params(key), jm.edge_popup(0.25)
    held = jnp.where(jnp.arange(64).reshape(16, 4) % 3 == 0, 9.0, -9.0)  # 22 high scores
    start = {
        "layer_1": {"kernel": jnp.zeros((6, 16)), "bias": None},
        "output": {"kernel": held, "bias": None},
    }
    config = jm.MaskConfig(steps=5, batch_size=8, num_samples=2, chunk_steps=5)
    found = jm.find_modules(
        tiny_loss,
        params,
        {"task": tiny_data()},
        keys=key,
        config=config,
        estimator=est,
        logits=start,
        trainable="layer_1/.*",
    )["task"]
    np.testing.assert_array_equal(found.mask["output"]["kernel"], held > 0)
    assert found.mask["layer_1"]["kernel"].sum() == 40 - 22
    np.testing.assert_array_equal(found.logits["output"]["kernel"], held)
