"""The ResNet against a loop over its blocks, its size and initialisation, BatchNorm, learning, masks."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import jaxmod as jm
from jaxmod import trees
from jaxmod.models import layer_labels
from jaxmod.models.resnet import ResNet, ResNet110
from tests.helpers import assert_trees_close, assert_trees_equal

TINY = functools.partial(ResNet, 3, outputs=3, channels=(4, 6, 8))


def init(model):
    """Returns params and batch_stats from one compiled program."""
    return jax.jit(lambda key: model.init(key, jnp.zeros((1, 8, 8, 3))))(jax.random.key(1))


def random_variables(model):
    """Returns params and batch_stats in which nothing is alike, in no time."""
    random = np.random.RandomState(1)

    def draw(path, x):
        near = 1 if path.endswith(("scale", "var")) else 0
        return jnp.asarray(near + random.uniform(-0.3, 0.3, x.shape), x.dtype)

    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    return trees.map_with_path(draw, shapes)


def images(count=6):
    return jnp.asarray(np.random.RandomState(0).randn(count, 8, 8, 3), jnp.float32)


def conv(x, kernel, stride=1):
    pad = kernel.shape[0] // 2
    pads = [(pad, pad), (pad, pad)]
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def loop_forward(variables, x, train):
    """Returns the outputs and what the running statistics should be, by a loop over all blocks."""
    stats = jax.tree.map(np.array, variables["batch_stats"])

    def norm(x, path, block=None):
        node, moving = variables["params"], stats
        for name in path:
            node, moving = node[name], moving[name]
        at = slice(None) if block is None else block
        mean, var = moving["mean"][at], moving["var"][at]
        if train:
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
            moving["mean"][at] = 0.9 * moving["mean"][at] + 0.1 * mean
            moving["var"][at] = 0.9 * moving["var"][at] + 0.1 * var
        wide = (None, None, None)
        y = (x - mean[wide]) / jnp.sqrt(var + 1e-5)[wide]
        return y * node["scale"][at][wide] + node["bias"][at][wide]

    def run_block(x, name, block=None, stride=1):
        p = variables["params"][name]
        at = slice(None) if block is None else block
        y = jax.nn.relu(norm(conv(x, p["conv_1"]["kernel"][at], stride), (name, "norm_1"), block))
        y = norm(conv(y, p["conv_2"]["kernel"][at]), (name, "norm_2"), block)
        if stride > 1:
            x = norm(conv(x, p["shortcut"]["kernel"], stride), (name, "shortcut_norm"))
        return jax.nn.relu(x + y)

    p = variables["params"]
    x = jax.nn.relu(norm(conv(x, p["stem"]["kernel"]), ("stem_norm",)))
    for group in (1, 2, 3):
        if group > 1:
            x = run_block(x, f"group_{group}_start", stride=2)
        for block in range(p[f"group_{group}"]["conv_1"]["kernel"].shape[0]):
            x = run_block(x, f"group_{group}", block)
    return x.mean((1, 2)) @ p["output"]["kernel"] + p["output"]["bias"][None], stats


@pytest.fixture(scope="module")
def shapes110():
    return jax.eval_shape(ResNet110(outputs=10).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


def test_size_of_the_paper(shapes110):
    sizes = [(path, math.prod(x.shape)) for path, x in trees.paths_and_leaves(shapes110["params"])]
    # Convolutions, scale and shift of BatchNorm, output weights and bias, which are all masked.
    assert sum(size for _, size in sizes) == 1_730_714
    assert sum(size for path, size in sizes if path.startswith("group_3")) == 1_257_728 + 57_728


def test_layers_of_the_paper(shapes110):
    kernels = [
        (path, x.shape)
        for path, x in trees.paths_and_leaves(shapes110["params"])
        if path.endswith("kernel") and "shortcut" not in path
    ]
    assert sum(x[0] if len(x) == 5 else 1 for _, x in kernels) == 110
    assert dict(kernels)["group_1/conv_1/kernel"] == (18, 3, 3, 16, 16)
    assert dict(kernels)["group_3/conv_2/kernel"] == (17, 3, 3, 64, 64)


@pytest.mark.parametrize("train", [False, True])
def test_forward_is_a_loop_over_blocks(train):
    model, x = TINY(), images()
    variables = random_variables(model)
    apply = jax.jit(lambda v, x: model.apply(v, x, train, mutable=["batch_stats"]))
    ours, state = apply(variables, x)
    expected, stats = loop_forward(variables, x, train)
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4)
    assert_trees_close(state["batch_stats"], stats, rtol=1e-3, atol=1e-5)


def test_one_block_in_a_group():
    params = random_variables(ResNet(1, outputs=2, channels=(4, 6)))["params"]
    assert sorted(params) == ["group_1", "group_2_start", "output", "stem", "stem_norm"]


def test_frozen_statistics_stay():
    model, x = TINY(), images()
    variables = random_variables(model)
    # Nothing is mutable, so writing would be an error; and the batch makes no difference.
    whole = jax.jit(model.apply)(variables, x)
    np.testing.assert_allclose(jax.jit(model.apply)(variables, x[:2]), whole[:2], rtol=1e-4, atol=1e-5)
    _, state = jax.jit(lambda v, x: model.apply(v, x, mutable=["batch_stats"]))(variables, x)
    assert_trees_equal(state["batch_stats"], variables["batch_stats"])
    _, state = jax.jit(lambda v, x: model.apply(v, x, True, mutable=["batch_stats"]))(variables, x)
    for new, old in zip(*map(jax.tree.leaves, (state["batch_stats"], variables["batch_stats"])), strict=True):
        assert np.all(new != old)


def test_init():
    params = init(ResNet(5, outputs=10, channels=(16, 24, 32)))["params"]
    for path, leaf in trees.paths_and_leaves(params):
        values = np.asarray(leaf)
        if path.endswith("scale"):
            assert np.all(values == 1)
        elif path.startswith("output"):
            assert 0.6 / math.sqrt(32) < np.abs(values).max() <= 1 / math.sqrt(32)
        elif path.endswith("bias"):
            assert np.all(values == 0)
        else:
            std = math.sqrt(2 / (values.shape[-4] * values.shape[-3] * values.shape[-1]))
            assert abs(values.std() / std - 1) < 5 / math.sqrt(2 * values.size), path
            assert abs(values.mean()) < 5 * std / math.sqrt(values.size)
    stacked = params["group_1"]["conv_1"]["kernel"]
    assert len(np.unique(np.asarray(stacked[:, 0, 0, 0, 0]))) == 5  # each block drew its own


def test_every_weight_gets_a_gradient():
    model, x = TINY(), images()
    variables = random_variables(model)

    def loss(params):
        return jnp.sum(jnp.square(model.apply({**variables, "params": params}, x)))

    for path, leaf in trees.paths_and_leaves(jax.jit(jax.grad(loss))(variables["params"])):
        assert np.all(np.isfinite(leaf)) and np.mean(leaf != 0) > 0.5, path


def test_overfits_a_few_images():
    model = ResNet(2, outputs=3, channels=(4, 6))
    x, y = images(12), jnp.arange(12) % 3
    tx = optax.sgd(0.05, momentum=0.9)

    @jax.jit
    def train(variables):
        def loss(params, stats):
            logits, state = model.apply(
                {"params": params, "batch_stats": stats}, x, True, mutable=["batch_stats"]
            )
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y)), state["batch_stats"]

        def step(carry, _):
            params, stats, opt_state = carry
            grads, stats = jax.grad(loss, has_aux=True)(params, stats)
            updates, opt_state = tx.update(grads, opt_state)
            return (optax.apply_updates(params, updates), stats, opt_state), None

        params = variables["params"]
        return lax.scan(step, (params, variables["batch_stats"], tx.init(params)), length=60)[0]

    params, stats, _ = train(init(model))
    # By the running statistics too, which have come close to those of the batch.
    logits = jax.jit(model.apply)({"params": params, "batch_stats": stats}, x)
    np.testing.assert_array_equal(jnp.argmax(logits, axis=1), y)


def test_modules_are_found_in_it(key):
    model = ResNet(2, outputs=3, channels=(6,))
    variables = random_variables(model)
    before = jax.tree.map(np.asarray, variables)

    def loss_fn(variables, batch, key):
        del key
        logits = model.apply(variables, batch["x"])
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]))

    found = jm.find_modules(
        loss_fn,
        variables,
        {"all": {"x": np.asarray(images(16)), "y": np.arange(16, dtype=np.int32) % 3}},
        keys=key,
        config=jm.MaskConfig(steps=2, batch_size=8, num_samples=1),
        where="params/.*",
    )
    logits = found["all"].logits
    assert logits["batch_stats"] == jax.tree.map(lambda _: None, variables["batch_stats"])
    assert jax.tree.map(jnp.shape, logits["params"]) == jax.tree.map(jnp.shape, variables["params"])
    assert all(np.mean(np.asarray(leaf) != 2.0) > 0.7 for leaf in jax.tree.leaves(logits))
    assert_trees_equal(variables, before)


def test_a_block_is_masked_alone():
    model, x = TINY(), images()
    variables = random_variables(model)
    mask = jax.tree.map(lambda w: np.ones(w.shape, bool), variables["params"])
    for leaf in mask["group_1"]["norm_2"].values():
        leaf[1] = False  # the second block then adds nothing
    masked = {**variables, "params": jm.apply_mask(variables["params"], mask)}
    shorter = jax.tree.map(
        lambda w: jnp.delete(w, 1, axis=0), {c: v["group_1"] for c, v in variables.items()}
    )
    without = {c: {**v, "group_1": shorter[c]} for c, v in variables.items()}
    # BatchNorm's running mean is subtracted before the scale, so scale and shift of zero leave nothing.
    np.testing.assert_allclose(
        jax.jit(model.apply)(masked, x), loop_forward(without, x, False)[0], rtol=1e-3, atol=1e-4
    )


def test_labels_follow_the_data(shapes110):
    assert list(layer_labels(shapes110).values()) == [
        "stem",
        "group 1 conv 1",
        "group 1 conv 2",
        "group 2 start conv 1",
        "group 2 start conv 2",
        "group 2 start shortcut",
        "group 2 conv 1",
        "group 2 conv 2",
        "group 3 start conv 1",
        "group 3 start conv 2",
        "group 3 start shortcut",
        "group 3 conv 1",
        "group 3 conv 2",
        "output",
    ]
    assert "group_2/conv_1/kernel" in layer_labels(shapes110["params"])
