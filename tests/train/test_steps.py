"""Steps against the same computation by hand: one mask at a time, one part of the batch at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmod as jm
from jaxmod.train import steps
from jaxmod.train.randomness import step_keys
from jaxmod.train.state import DenseState, JointState, MaskState
from tests.helpers import assert_trees_close, tiny_data, tiny_loss, tiny_params

ESTIMATOR = jm.gumbel_sigmoid(init=0.5)
SGD = optax.sgd(1.0)


@pytest.fixture
def setting(key):
    params = tiny_params(key)
    logits = ESTIMATOR.init(key, params)
    batch = jax.tree.map(lambda x: jnp.asarray(x[:32]), tiny_data())
    keys = step_keys(key, jax.random.key(9), jnp.int32(3))
    return params, logits, batch, keys


def inputs_for(params, held, alpha=0.0, learning_rate=1.0):
    return {"params": params, "held": held, "alpha": alpha, "learning_rate": learning_rate}


def nothing(logits):
    return jax.tree.map(lambda _: None, logits)


@functools.partial(jax.jit, static_argnums=4)
def gradient_by_hand(params, logits, batch, keys, num_samples):
    noise = jax.random.split(keys.noise, num_samples)
    size = len(batch["y"]) // num_samples
    total = jax.tree.map(jnp.zeros_like, logits)
    for s in range(num_samples):
        part = jax.tree.map(lambda x, s=s: x[s * size : (s + 1) * size], batch)

        def loss(logits, part=part, s=s):
            return tiny_loss(jm.apply_mask(params, ESTIMATOR.sample(noise[s], logits)), part, None)

        total = jax.tree.map(jnp.add, total, jax.grad(loss)(logits))
    return jax.tree.map(lambda g: g / num_samples, total)


@pytest.mark.parametrize("mode", ["vmap", "map", "unroll"])
@pytest.mark.parametrize("num_samples", [1, 4])
def test_samples_are_separate_passes_averaged(setting, mode, num_samples):
    params, logits, batch, keys = setting
    step = steps.make_mask_step(tiny_loss, ESTIMATOR, SGD, num_samples, mode)
    state = MaskState(logits, SGD.init(logits))
    new, metrics = jax.jit(step)(inputs_for(params, nothing(logits)), state, batch, keys)
    expected = gradient_by_hand(params, logits, batch, keys, num_samples)
    assert_trees_close(jax.tree.map(jnp.subtract, logits, new.logits), expected, atol=1e-6)
    assert np.isfinite(metrics["loss"])


def test_the_penalty_pulls_every_logit_by_alpha(setting):
    params, logits, batch, keys = setting
    step = jax.jit(steps.make_mask_step(lambda p, b, k: jnp.sum(0 * p["output"]["bias"]), ESTIMATOR, SGD, 4))
    state = MaskState(logits, SGD.init(logits))
    new, _ = step(inputs_for(params, nothing(logits), alpha=0.25), state, batch, keys)
    assert_trees_close(new.logits, jax.tree.map(lambda x: x - 0.25, logits), rtol=1e-6)


def test_without_task_loss_all_logits_fall_below_zero_in_two_over_the_rate(setting):
    params, _, batch, keys = setting
    logits = jm.gumbel_sigmoid().init(jax.random.key(0), params)
    tx = steps.clipped_adam(1.0)
    step = jax.jit(steps.make_mask_step(lambda p, b, k: jnp.sum(0 * p["output"]["bias"]), ESTIMATOR, tx, 4))
    state = MaskState(logits, tx.init(logits))
    counts = []
    for _ in range(205):
        state, _ = step(
            inputs_for(params, nothing(logits), alpha=1e-5, learning_rate=1e-2), state, batch, keys
        )
        counts.append(sum(int(jnp.sum(x > 0)) for x in jax.tree.leaves(state.logits)))
    assert counts[195] > 0 and counts[204] == 0


def test_held_logits_are_sampled_but_stay_and_do_not_count_in_the_norm(setting):
    params, logits, batch, keys = setting
    trained = logits | {"output": {"kernel": None, "bias": None}}
    held = nothing(logits) | {"output": logits["output"]}
    clip = optax.chain(optax.clip_by_global_norm(1e-3), SGD)
    step = jax.jit(steps.make_mask_step(tiny_loss, ESTIMATOR, clip, 4))
    new, _ = step(inputs_for(params, held), MaskState(trained, clip.init(trained)), batch, keys)
    gradient = gradient_by_hand(params, logits, batch, keys, 4)["layer_1"]["kernel"]
    scaled = gradient * 1e-3 / jnp.linalg.norm(gradient)
    np.testing.assert_allclose(
        trained["layer_1"]["kernel"] - new.logits["layer_1"]["kernel"], scaled, atol=2e-7
    )
    assert new.logits["output"]["kernel"] is None


def test_clipped_adam_is_optax_with_the_rate_as_an_argument(setting):
    _, logits, _, _ = setting
    grads = jax.tree.map(lambda x: jnp.sin(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), logits)
    expected_tx = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(3e-3, eps=1e-8))
    tx = steps.clipped_adam(0.5)
    state, expected_state = tx.init(logits), expected_tx.init(logits)
    for _ in range(3):
        updates, state = tx.update(grads, state, logits, learning_rate=3e-3)
        expected, expected_state = expected_tx.update(grads, expected_state, logits)
        assert_trees_close(updates, expected, rtol=1e-6)


def test_metrics_and_the_shared_key_reach_the_loss(setting):
    params, logits, batch, keys = setting

    def loss(params, batch, key, shared_key):
        value = tiny_loss(params, batch, key)
        return value, {"twice": 2 * value, "coin": jax.random.uniform(shared_key)}

    step = jax.jit(steps.make_mask_step(loss, ESTIMATOR, SGD, 2, has_aux=True))
    _, metrics = step(inputs_for(params, nothing(logits)), MaskState(logits, SGD.init(logits)), batch, keys)
    assert metrics["twice"] == pytest.approx(2 * float(metrics["loss"]), rel=1e-6)
    assert metrics["coin"] == pytest.approx(float(jax.random.uniform(keys.shared)))


def test_a_dense_step_is_gradient_descent(setting):
    params, _, batch, keys = setting

    def dense_loss(params, state, batch, key):
        loss = tiny_loss(params, batch, key)
        return loss, (state + 1, {"half": loss / 2})

    step = jax.jit(steps.make_dense_step(dense_loss, SGD))
    new, metrics = step({}, DenseState(params, jnp.zeros(()), SGD.init(params)), batch, keys)
    grads = jax.jit(jax.grad(tiny_loss))(params, batch, None)
    assert_trees_close(new.params, jax.tree.map(jnp.subtract, params, grads), atol=1e-6)
    assert new.model_state == 1 and metrics["half"] == metrics["loss"] / 2


def test_the_number_of_the_step_reaches_an_optimizer_that_takes_it(setting):
    params, _, batch, keys = setting

    def update(updates, state, params=None, *, step, **extra):
        return jax.tree.map(lambda w: -w + step, params), state

    tx = optax.GradientTransformationExtraArgs(lambda params: (), update)
    step = jax.jit(steps.make_dense_step(steps.without_state(tiny_loss), tx))
    new, _ = step({}, DenseState(params, None, ()), batch, keys)
    assert_trees_close(new.params, jax.tree.map(lambda w: jnp.full_like(w, 3.0), params), atol=1e-6)


def test_a_joint_step_trains_both_but_never_touches_used_weights(setting):
    params, logits, batch, keys = setting
    used = jax.tree.map(lambda x: jax.random.bernoulli(jax.random.key(5), 0.5, x.shape), logits)
    tx = steps.clipped_adam(1.0)
    step = jax.jit(steps.make_joint_step(tiny_loss, ESTIMATOR, tx, 4))
    state = JointState(params, logits, tx.init((params, logits)))
    for _ in range(5):
        state, _ = step({"used": used, "alpha": 1e-5, "learning_rate": 1e-2}, state, batch, keys)
    for path in ("layer_1", "output"):
        taken = used[path]["kernel"]
        changed = state.params[path]["kernel"] != params[path]["kernel"]
        assert not changed[taken].any()
        assert changed[~taken].mean() > 0.9
    assert all((a != b).any() for a, b in zip(*map(jax.tree.leaves, (state.logits, logits)), strict=True))


def test_equal_arguments_give_the_same_step():
    make = lambda: steps.make_mask_step(tiny_loss, jm.gumbel_sigmoid(1.0, 0.5), steps.clipped_adam(1.0), 4)  # noqa: E731
    assert make() is make()
