"""States: a step gives back the structure, shapes and dtypes it was given, so that a scan can carry it."""

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxmod as jm
from jaxmod.train import steps
from jaxmod.train.randomness import step_keys
from jaxmod.train.state import DenseState, JointState, MaskState
from tests.helpers import tiny_data, tiny_loss, tiny_params

ESTIMATOR = jm.gumbel_sigmoid()
RATED = steps.clipped_adam(1.0)
OPTIMIZERS = {"clipped adam": RATED, "sgd": optax.sgd(0.1, momentum=0.9)}


def mask_case(tx, params, logits):
    step = steps.make_mask_step(tiny_loss, ESTIMATOR, tx, 2)
    # One leaf is held: its place in the state is None before and after.
    trained = logits | {"output": {"kernel": None, "bias": None}}
    held = {"layer_1": {"kernel": None, "bias": None}, "output": logits["output"]}
    inputs = {"params": params, "held": held, "alpha": 0.0, "learning_rate": 1e-2}
    return step, inputs, MaskState(trained, tx.init(trained))


def dense_case(tx, params, logits):
    del logits

    def dense_loss(params, state, batch, key):
        return tiny_loss(params, batch, key), ({"seen": state["seen"] + 1}, {})

    fixed = optax.adam(1e-3) if tx is RATED else tx  # a dense step gives no rate
    step = steps.make_dense_step(dense_loss, fixed)
    return step, {}, DenseState(params, {"seen": jnp.zeros((), jnp.int32)}, fixed.init(params))


def joint_case(tx, params, logits):
    step = steps.make_joint_step(tiny_loss, ESTIMATOR, tx, 2)
    used = jax.tree.map(lambda x: jnp.zeros(x.shape, bool), logits)
    inputs = {"used": used, "alpha": 0.0, "learning_rate": 1e-2}
    return step, inputs, JointState(params, logits, tx.init((params, logits)))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("case", [mask_case, dense_case, joint_case])
def test_a_step_keeps_structure_shapes_and_dtypes(key, case, optimizer):
    params = tiny_params(key)
    step, inputs, state = case(OPTIMIZERS[optimizer], params, ESTIMATOR.init(key, params))
    batch = jax.tree.map(lambda x: jnp.asarray(x[:8]), tiny_data())
    keys = step_keys(key, key, jnp.int32(0))
    after, _ = jax.eval_shape(step, inputs, state, batch, keys)
    before = jax.eval_shape(lambda: state)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    for x, y in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True):
        assert (x.shape, x.dtype, x.weak_type) == (y.shape, y.dtype, y.weak_type)


def test_states_hold_arrays_only(key):
    params = tiny_params(key)
    logits = ESTIMATOR.init(key, params)
    for case in (mask_case, dense_case, joint_case):
        _, _, state = case(RATED, params, logits)
        assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(state))
