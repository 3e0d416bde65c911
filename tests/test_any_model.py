"""Models of five libraries, none of them changed: masked by the default `where`, run with their masks on.

All compute the same function: half of the hidden units see the first task's inputs only, half the
second's. So it is known which weights each task needs, and the masks of all libraries can be compared.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import jaxmod as jm
from jaxmod import trees
from tests.helpers import assert_trees_equal

FIRST = np.kron(np.eye(2), np.eye(4)).astype(np.float32)
SECOND = np.tile(5 * np.eye(4), (2, 1)).astype(np.float32)
TASKS = {"first": slice(0, 4), "second": slice(4, 8)}
CONFIG = jm.MaskConfig(
    steps=200, batch_size=64, num_samples=2, learning_rate=5e-2, beta=1e-2, chunk_steps=200
)


class Model(NamedTuple):
    params: Any
    predict: Callable[[Any, jax.Array], jax.Array]
    """`(params, x) -> [batch, 4]`"""
    masked: list[str]
    """The paths of the first and the second kernel."""
    transposed: bool = False


def plain():
    params = {"layer_1": {"w": FIRST, "b": jnp.zeros(8)}, "layer_2": {"w": SECOND, "b": jnp.zeros(4)}}

    def predict(params, x):
        for name in ("layer_1", "layer_2"):
            x = x @ params[name]["w"] + params[name]["b"][None]
            x = jax.nn.relu(x) if name == "layer_1" else x
        return x

    return Model(params, predict, ["layer_1/w", "layer_2/w"])


def linen():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Dense(8)(x)))
            return nn.Dense(4)(x)

    net = Net()
    params = net.init(jax.random.key(0), jnp.ones((1, 8)))
    return Model(plant(params), net.apply, ["params/Dense_0/kernel", "params/Dense_1/kernel"])


def of_nnx():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.linear_1 = nnx.Linear(8, 8, rngs=rngs)
            self.norm = nnx.BatchNorm(8, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)  # brings a key and an integer into the state
            self.linear_2 = nnx.Linear(8, 4, rngs=rngs)

        def __call__(self, x):
            return self.linear_2(self.dropout(nnx.relu(self.norm(self.linear_1(x)))))

    net = Net(nnx.Rngs(0))
    net.eval()
    graph, state = nnx.split(net)
    return Model(
        plant(state), lambda state, x: nnx.merge(graph, state)(x), ["linear_1/kernel", "linear_2/kernel"]
    )


def equinox():
    net = eqx.nn.MLP(8, 4, width_size=8, depth=1, key=jax.random.key(0))
    params, rest = eqx.partition(net, eqx.is_array)
    return Model(
        plant(params, transposed=True),
        lambda params, x: jax.vmap(eqx.combine(params, rest))(x),
        ["layers/0/weight", "layers/1/weight"],
        transposed=True,
    )


def haiku():
    net = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([8, 4])(x)))
    params = net.init(jax.random.key(0), jnp.ones((1, 8)))
    return Model(plant(params), net.apply, ["mlp/~/linear_0/w", "mlp/~/linear_1/w"])


def plant(params, transposed=False):
    """Returns `params` with the kernels above and biases of 0.

    BatchNorm gets statistics that are not 0 and 1, and a scale and bias that undo them: the function stays
    the same if the statistics come through, and only then.
    """
    kernels = iter((FIRST.T, SECOND.T) if transposed else (FIRST, SECOND))
    norm = {"mean": 0.5, "var": 3.0, "scale": (3.0 + 1e-5) ** 0.5, "bias": 0.5}

    def value(path, leaf):
        *_, layer, name = path.split("/")
        if leaf.ndim == 2:
            return jnp.asarray(next(kernels))
        if layer.lower().startswith(("norm", "batchnorm")):
            return jnp.full_like(leaf, norm[name])
        return jnp.zeros_like(leaf) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return trees.map_with_path(value, params)


def task_data(name):
    y = np.tile(np.arange(4), 50)
    x = np.zeros((200, 8), np.float32)
    x[np.arange(200), y + TASKS[name].start] = 1
    return {"x": x, "y": y.astype(np.int32)}


def needed(name):
    """Returns which weights a task uses, as the masks of both kernels `[inputs, outputs]`."""
    own = np.zeros((8, 1), bool)
    own[TASKS[name]] = True
    return (FIRST != 0) & own, (SECOND != 0) & own


@pytest.mark.parametrize("make", [plain, linen, of_nnx, equinox, haiku], ids=lambda make: make.__name__)
def test_a_model_is_masked_as_it_is(make, key, tmp_path):
    model = make()
    tasks = {name: task_data(name) for name in TASKS}

    def loss_fn(params, batch, key):
        del key
        log_p = jax.nn.log_softmax(model.predict(params, batch["x"]))
        return -jnp.mean(jnp.take_along_axis(log_p, batch["y"][:, None], axis=1))

    found = jm.find_modules(loss_fn, model.params, tasks, keys=key, config=CONFIG)

    for name, module in found.items():
        # By default the kernels are masked, in a tree like the params; and the mask is the right one.
        assert type(module.mask) is type(model.params)
        trees.check_mirrors(module.mask, model.params, "mask")
        assert [path for path, _ in trees.paths_and_leaves(module.mask)] == model.masked
        for mask, expected in zip(jax.tree.leaves(module.mask), needed(name), strict=True):
            np.testing.assert_array_equal(mask.T if model.transposed else mask, expected)

        # The masked params run in the model as it is; what was not selected is passed through.
        params = jm.apply_mask(model.params, module.mask)
        for task, batch in tasks.items():
            answers = jnp.argmax(model.predict(params, batch["x"]), axis=1)
            np.testing.assert_array_equal(answers, batch["y"] if task == name else 0)
        for (path, before), after in zip(
            trees.paths_and_leaves(model.params), jax.tree.leaves(params), strict=True
        ):
            assert path in model.masked or (before.dtype == after.dtype and bool(jnp.all(before == after)))

    masks = {name: module.mask for name, module in found.items()}
    jm.save_masks(tmp_path / "masks.npz", masks)
    assert_trees_equal(jm.load_masks(tmp_path / "masks.npz", like=model.params), masks)


def test_nnx_and_linen_statistics_and_keys_ride_along(key):
    est = jm.gumbel_sigmoid()
    assert est.init(key, linen().params)["batch_stats"] == {"BatchNorm_0": {"mean": None, "var": None}}
    params = of_nnx().params
    logits = est.init(key, params)
    ridden = {"norm/mean", "norm/var", "dropout/rngs/key", "dropout/rngs/count"}
    assert ridden < {path for path, _ in trees.paths_and_leaves(params)}
    assert not ridden & {path for path, _ in trees.paths_and_leaves(logits)}


def test_a_masked_state_goes_back_into_its_nnx_model(key):
    net = nnx.Linear(8, 4, rngs=nnx.Rngs(0))
    state = nnx.state(net)
    mask = jm.gumbel_sigmoid(init=-1.0).threshold(jm.gumbel_sigmoid(init=-1.0).init(key, state))
    nnx.update(net, jm.apply_mask(state, mask))
    assert not net(jnp.ones((1, 8))).any()


def test_an_equinox_model_with_its_functions_names_partition(key):
    net = eqx.nn.MLP(8, 4, width_size=8, depth=1, key=key)
    with pytest.raises(ValueError, match=r"'activation'.*eqx\.partition"):
        jm.gumbel_sigmoid().init(key, net)


def test_equinox_calls_the_scale_of_a_norm_weight_too(key):
    net = eqx.nn.Sequential([eqx.nn.Linear(3, 2, key=key), eqx.nn.LayerNorm(2)])
    params, _ = eqx.partition(net, eqx.is_array)
    est = jm.gumbel_sigmoid()
    by_default, matrices = (
        est.init(key, params),
        est.init(key, params, where=lambda path, leaf: leaf.ndim > 1),
    )
    assert [path for path, _ in trees.paths_and_leaves(by_default)] == ["layers/0/weight", "layers/1/weight"]
    assert [path for path, _ in trees.paths_and_leaves(matrices)] == ["layers/0/weight"]


def test_haiku_modules_are_named_with_slashes(key):
    est = jm.gumbel_sigmoid()
    logits = est.init(key, haiku().params, where=r"mlp/~/linear_0/.*")
    assert [path for path, _ in trees.paths_and_leaves(logits)] == ["mlp/~/linear_0/b", "mlp/~/linear_0/w"]
