"""Every step is lowered for every platform, so that nothing in it is tied to the one at hand."""

import jax
import jax.numpy as jnp
import optax
import pytest
from jax import export

import jaxmod as jm
from jaxmod.models.cnn import SimpleCNN
from jaxmod.pruning import polynomial_sparsity, pruned
from jaxmod.train.precision import to_bfloat16
from jaxmod.train.randomness import step_keys
from jaxmod.train.state import DenseState, JointState, MaskState
from jaxmod.train.steps import clipped_adam, make_dense_step, make_joint_step, make_mask_step, without_state
from tests.helpers import tiny_data, tiny_loss, tiny_params

PLATFORMS = ("cpu", "cuda", "tpu")
MASKS = {
    "mix32": (jm.gumbel_sigmoid(), "threefry2x32"),
    "rao_blackwell": (jm.gumbel_sigmoid(rao_blackwell=True), "threefry2x32"),
    "temperature": (jm.gumbel_sigmoid(temperature=0.5), "threefry2x32"),
    "threefry": (jm.gumbel_sigmoid(noise="jax"), "threefry2x32"),
    "edge_popup": (jm.edge_popup(0.2), "threefry2x32"),
    "hard_concrete": (jm.hard_concrete(), "threefry2x32"),
    "philox": (jm.gumbel_sigmoid(noise="jax"), "philox4x32"),
}


def lower(step, inputs, state, impl="threefry2x32", batch=None):
    """Exports a step whose key is made inside of it: keys cannot be arguments of an exported function."""

    def call(inputs, state, batch):
        key = jax.random.key(0, impl=impl)
        return step(inputs, state, batch, step_keys(key, key, jnp.int32(3)))

    exported = export.export(jax.jit(call), platforms=PLATFORMS)(inputs, state, batch or batch_of(8))
    assert exported.platforms == PLATFORMS
    return exported


def batch_of(size):
    return jax.tree.map(lambda x: jnp.asarray(x[:size]), tiny_data())


def products(exported, name):
    """Returns the types of the elements of all results of an operation."""
    lines = [line for line in exported.mlir_module().splitlines() if f"{name}(" in line or f"{name} " in line]
    return {line.rsplit("tensor<", 1)[1].split(">")[0].rsplit("x", 1)[-1] for line in lines}


def start(estimator, key, params=None):
    params = tiny_params(key) if params is None else params
    logits = estimator.init(key, params)
    held = jax.tree.map(lambda _: None, logits)
    inputs = {"params": params, "held": held, "alpha": 1e-6, "learning_rate": 1e-2}
    return params, logits, inputs


def test_a_dense_step(key):
    adam = optax.adam(1e-3)
    params = tiny_params(key)
    for optimizer in (adam, pruned(adam, polynomial_sparsity(steps=9))):
        step = make_dense_step(without_state(tiny_loss), optimizer)
        lower(step, {}, DenseState(params, None, optimizer.init(params)))


@pytest.mark.parametrize("mode", ["vmap", "map", "unroll"])
@pytest.mark.parametrize("masks", MASKS)
def test_a_mask_step(key, masks, mode):
    estimator, impl = MASKS[masks]
    adam = clipped_adam(1.0)
    _, logits, inputs = start(estimator, key)
    step = make_mask_step(tiny_loss, estimator, adam, 2, mode)
    lower(step, inputs, MaskState(logits, adam.init(logits)), impl)


def test_a_mask_step_in_bfloat16(key):
    estimator, adam = jm.gumbel_sigmoid(), clipped_adam(1.0)
    _, logits, inputs = start(estimator, key, to_bfloat16(tiny_params(key)))
    step = make_mask_step(tiny_loss, estimator, adam, 2)
    state = MaskState(logits, adam.init(logits))
    exported = lower(step, inputs, state, batch=to_bfloat16(batch_of(8)))
    assert products(exported, "stablehlo.dot_general") == {"bf16"}


def test_a_mask_step_of_a_convolutional_network(key):
    estimator, adam = jm.gumbel_sigmoid(), clipped_adam(1.0)
    model = SimpleCNN(outputs=4, channels=(2, 3), method="lax")
    batch = {"x": jnp.ones((4, 6, 6, 3)), "y": jnp.zeros(4, jnp.int32)}
    params = model.init(key, batch["x"])["params"]

    def loss_fn(params, batch, key):
        outputs = model.apply({"params": params}, batch["x"], train=True, rngs={"dropout": key})
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(outputs, batch["y"]))

    _, logits, inputs = start(estimator, key, params)
    step = make_mask_step(loss_fn, estimator, adam, 2)
    exported = lower(step, inputs, MaskState(logits, adam.init(logits)), batch=batch)
    assert products(exported, "stablehlo.convolution") == {"f32"}


def test_a_joint_step(key):
    estimator, adam = jm.gumbel_sigmoid(), clipped_adam(1.0)
    params, logits, inputs = start(estimator, key)
    inputs["used"] = jax.tree.map(lambda x: jnp.zeros(x.shape, bool), logits)
    lower(
        make_joint_step(tiny_loss, estimator, adam, 2),
        inputs,
        JointState(params, logits, adam.init((params, logits))),
    )
