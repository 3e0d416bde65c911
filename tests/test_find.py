"""find_modules: the same modules whatever runs beside them, and errors before any work."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmod as jm
from jaxmod.train import loops
from jaxmod.train.axes import Axes
from tests.helpers import (
    assert_trees_close,
    assert_trees_equal,
    tiny_data,
    tiny_evaluate,
    tiny_loss,
    tiny_params,
    two_tasks,
)

CONFIG = jm.MaskConfig(steps=6, batch_size=16, num_samples=2, chunk_steps=3, eval_examples=50)
KERNELS = ("layer_1", "output")


def find(params, tasks=None, *, keys, config=CONFIG, **options):
    options = {"evaluate": tiny_evaluate} | options
    return jm.find_modules(tiny_loss, params, tasks or two_tasks(), keys=keys, config=config, **options)


@pytest.fixture
def params(key):
    return tiny_params(key)


def test_a_module_mirrors_the_params(params, key):
    found = find(params, keys=key)
    assert list(found) == ["forward", "backward"]
    for module in found.values():
        for layer in KERNELS:
            assert module.mask[layer]["bias"] is None
            assert module.mask[layer]["kernel"].shape == params[layer]["kernel"].shape
            assert module.mask[layer]["kernel"].dtype == bool
            np.testing.assert_array_equal(module.mask[layer]["kernel"], module.logits[layer]["kernel"] > 0)
        assert {k: v.shape for k, v in module.history.items()} == {
            "loss": (2,), "density": (2,), "accuracy": (2,),
        }  # fmt: skip
        assert module.history["density"][-1] == pytest.approx(float(jm.density(module.mask)))


def test_frozen_weights_are_untouched(params, key):
    before = jax.tree.map(np.array, params)
    find(params, keys=key)
    assert_trees_equal(params, before)


def test_a_run_equals_itself_alone(params, key):
    keys = jax.random.split(key, 3)
    together = find(params, keys=keys)
    for i in range(3):
        alone = find(params, keys=keys[i])
        for name in together:
            row = jax.tree.map(lambda x, i=i: x[i], together[name].logits)
            assert_trees_close(row, alone[name].logits, atol=1e-5)


@pytest.mark.parametrize("impl", ["threefry2x32", "philox4x32"])
def test_noise_and_batches_of_a_run_are_those_it_draws_alone_bit_for_bit(params, impl):
    keys = jax.random.split(jax.random.key(1, impl=impl), 3)
    data = tiny_data() | {"row": np.arange(200)}

    def loss(params, batch, key):
        dropped = jnp.flatnonzero(params["layer_1"]["kernel"] == 0, size=16, fill_value=0)
        seen = {"rows": batch["row"] @ jnp.arange(len(batch["row"])), "mask": dropped @ jnp.arange(16)}
        return tiny_loss(params, batch, key), jax.tree.map(jnp.float32, seen)

    def history(keys):  # every step is a chunk; the logits stay, so that the masks show the noise alone
        return jm.find_modules(
            loss, params, {"task": data}, keys=keys, has_aux=True, optimizer=optax.sgd(0.0),
            config=dataclasses.replace(CONFIG, steps=5, chunk_steps=1),
        )["task"].history  # fmt: skip

    together = history(keys)
    for i in (0, 2):
        alone = history(keys[i])
        for name in ("rows", "mask"):
            assert len(set(alone[name])) == 5
            np.testing.assert_array_equal(together[name][i], alone[name])


def test_the_order_of_tasks_changes_nothing(params, key):
    tasks = two_tasks()
    a, b = find(params, tasks, keys=key), find(params, dict(reversed(tasks.items())), keys=key)
    for name in tasks:
        assert_trees_close(a[name].logits, b[name].logits, atol=1e-5)


@pytest.mark.parametrize("mode", ["vmap", "map", "unroll"])
def test_axes_change_the_speed_only(params, key, mode):
    keys = jax.random.split(key, 2)
    expected = find(params, keys=keys)
    got = find(params, keys=keys, config=dataclasses.replace(CONFIG, axes=Axes(mode, mode, mode)))
    for name in expected:
        assert_trees_close(got[name].logits, expected[name].logits, atol=1e-5)


def test_stacked_params_are_one_network_per_run(key):
    keys = jax.random.split(key, 2)
    params = jax.vmap(tiny_params)(keys)
    together = find(params, keys=keys, params_axis=0, where=lambda path, leaf: leaf.ndim == 2)
    for i in range(2):
        alone = find(jax.tree.map(lambda x, i=i: x[i], params), keys=keys[i])
        row = jax.tree.map(lambda x, i=i: x[i], together["forward"].logits)
        assert_trees_close(row, alone["forward"].logits, atol=1e-5)


def test_beta_and_learning_rate_may_differ_between_runs(params, key):
    keys = jnp.stack([key, key])
    swept = find(
        params, keys=keys,
        config=dataclasses.replace(CONFIG, beta=[0.0, 1e-2], learning_rate=np.array([1e-2, 3e-2])),
    )  # fmt: skip
    for i, (beta, rate) in enumerate([(0.0, 1e-2), (1e-2, 3e-2)]):
        alone = find(params, keys=key, config=dataclasses.replace(CONFIG, beta=beta, learning_rate=rate))
        row = jax.tree.map(lambda x, i=i: x[i], swept["forward"].logits)
        assert_trees_close(row, alone["forward"].logits, atol=1e-5)


def test_rows_of_data_and_sampled_batches_are_tasks_too(params, key):
    pool = tiny_data()
    rows = np.arange(100)
    by_rows = find(params, {"head": rows}, data=pool, keys=key)
    by_arrays = find(params, {"head": jax.tree.map(lambda x: x[:100], pool)}, keys=key)
    assert_trees_close(by_rows["head"].logits, by_arrays["head"].logits, atol=1e-6)

    def head(key, batch_size, data):
        return jax.tree.map(lambda x: x[jax.random.randint(key, (batch_size,), 0, 100)], data)

    by_function = find(params, {"head": head}, data=pool, keys=key)
    assert_trees_close(by_function["head"].logits, by_arrays["head"].logits, atol=1e-6)


@pytest.mark.parametrize(("num_samples", "tasks", "runs"), [(2, 2, 3), (1, 1, 1)])
def test_one_program_per_chunk_shape_whatever_samples_tasks_and_runs(params, key, num_samples, tasks, runs):
    traced = chex.assert_max_traces(lambda p, b, k: tiny_loss(p, b, k), n=12)
    before = loops._compiled_chunk._cache_size()
    config = dataclasses.replace(CONFIG, steps=9, num_samples=num_samples)
    tasks = dict(list(two_tasks().items())[:tasks])
    for seed in (3, 5):
        keys = jax.random.split(jax.random.key(seed), runs)
        jm.find_modules(traced, params, tasks, keys=keys, config=config)
    assert loops._compiled_chunk._cache_size() == before + 1  # both calls, three chunks each
    jm.find_modules(traced, params, tasks, keys=keys, config=dataclasses.replace(config, steps=8))
    assert loops._compiled_chunk._cache_size() == before + 2  # the last chunk is shorter


def test_start_values_say_what_is_masked_and_trainable_what_moves(params, key):
    start = find(params, keys=key)["forward"].logits
    found = find(params, keys=key, logits=start, trainable=r"layer_1/kernel")["backward"]
    np.testing.assert_array_equal(found.logits["output"]["kernel"], start["output"]["kernel"])
    assert (found.logits["layer_1"]["kernel"] != start["layer_1"]["kernel"]).any()
    tree = jax.tree.map(lambda x: None, start) | {
        "layer_1": {"kernel": True, "bias": None},
        "output": {"kernel": False, "bias": None},
    }
    again = find(params, keys=key, logits=start, trainable=tree)["backward"]
    assert_trees_equal(again.logits, found.logits)
    mirrors = {"layer_1": {"kernel": True, "bias": False}, "output": {"kernel": False, "bias": False}}
    assert_trees_equal(
        find(params, keys=key, logits=start, trainable=mirrors)["backward"].logits, found.logits
    )
    stacked = jax.tree.map(lambda x: jnp.stack([x, x]), start)
    runs = find(params, keys=jnp.stack([key, key]), logits=stacked, trainable=r"layer_1/kernel")["backward"]
    assert_trees_close(jax.tree.map(lambda x: x[1], runs.logits), found.logits, atol=1e-6)


def test_bfloat16_weights_and_activations_find_the_same_module(params, key):
    seen = []

    def loss(params, batch, key):
        seen.append({x.dtype for x in (*jax.tree.leaves(params), batch["x"])} | {batch["y"].dtype})
        return tiny_loss(params, batch, key)

    config = dataclasses.replace(CONFIG, steps=200, chunk_steps=100, learning_rate=5e-2)
    half = dataclasses.replace(config, bfloat16=True)
    found = find(params, keys=key, config=config, evaluate=tiny_evaluate)["forward"]
    rough = jm.find_modules(
        loss, params, two_tasks(), keys=key, config=half, where=".*/kernel", evaluate=tiny_evaluate
    )["forward"]
    assert all(dtypes == {jnp.dtype("bfloat16"), jnp.dtype("int32")} for dtypes in seen[-4:])
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(rough.logits))
    assert params["output"]["kernel"].dtype == jnp.float32
    same = [
        np.mean(a == b) for a, b in zip(jax.tree.leaves(found.mask), jax.tree.leaves(rough.mask), strict=True)
    ]
    assert min(same) > 0.9
    np.testing.assert_allclose(rough.history["loss"], found.history["loss"], rtol=0.05)


def test_functions_are_cast_to_bfloat16_too(params, key):
    def sample_batch(key, batch_size, data):
        rows = jax.random.randint(key, (batch_size,), 0, 200)
        return {"x": data["x"][rows], "y": data["y"][rows]}

    def loss(params, batch, key):
        same = jax.lax.scan(lambda c, x: (c + x, None), 0 * batch["x"][0], batch["x"])[
            0
        ]  # one dtype throughout
        return tiny_loss(params, batch, key) + 0 * jnp.sum(same * params["layer_1"]["kernel"][:, 0])

    config = dataclasses.replace(CONFIG, steps=4, chunk_steps=4, bfloat16=True)
    found = jm.find_modules(loss, params, {"task": sample_batch}, keys=key, config=config, data=tiny_data())
    assert np.isfinite(found["task"].history["loss"]).all()


def test_an_optimizer_of_ones_own(params, key):
    found = find(params, keys=key, optimizer=optax.sgd(0.0))["forward"]
    np.testing.assert_array_equal(found.logits["output"]["kernel"], 2.0)


def test_a_deterministic_estimator_uses_one_sample(params, key):
    sizes = []

    def loss(params, batch, key):
        sizes.append(len(batch["y"]))
        return tiny_loss(params, batch, key)

    sure = jm.gumbel_sigmoid()._replace(
        name="sure", sample=lambda key, logits: jax.tree.map(jax.nn.sigmoid, logits), stochastic=False
    )
    jm.find_modules(loss, params, two_tasks(), keys=key, config=CONFIG, estimator=sure)
    assert set(sizes) == {CONFIG.batch_size}


def test_a_mask_keeps_what_its_task_needs(key):
    # Half of the hidden units see only the first task's inputs, half the second's.
    w1 = jnp.kron(jnp.eye(2), jnp.eye(4))
    params = {
        "layer_1": {"kernel": w1, "bias": jnp.zeros(8)},
        "output": {"kernel": jnp.tile(5 * jnp.eye(4), (2, 1)), "bias": jnp.zeros(4)},
    }

    def one_hot(first):
        y = np.tile(np.arange(4), 50)
        x = np.zeros((200, 8), np.float32)
        x[np.arange(200), y + (0 if first else 4)] = 1
        return {"x": x, "y": y.astype(np.int32)}

    config = jm.MaskConfig(
        steps=400, batch_size=64, num_samples=4, learning_rate=5e-2, beta=1e-2, chunk_steps=200
    )
    found = find(params, {"first": one_hot(True), "second": one_hot(False)}, keys=key, config=config)
    for name, rows in (("first", slice(0, 4)), ("second", slice(4, 8))):
        kept = np.asarray(found[name].mask["output"]["kernel"])
        assert found[name].history["accuracy"][-1] == 1.0
        assert kept[rows][np.eye(4, dtype=bool)].all()
        assert kept.sum() <= 8  # four are needed
    assert jm.sharing(found["first"].mask, found["second"].mask)["output/kernel"].shared < 0.5


def test_an_empty_layer_is_warned_about_by_name(params, key):
    config = dataclasses.replace(CONFIG, steps=300, chunk_steps=300, beta=10.0, learning_rate=2e-2)
    with pytest.warns(UserWarning, match=r"task 'forward', run 0.*'layer_1/kernel'") as caught:
        found = find(params, {"forward": tiny_data()}, keys=key, config=config, where=".*")
    assert len(caught) == 1
    # A layer without a bias still passes on its inputs.
    assert not found["forward"].mask["layer_1"]["bias"].any()
    assert "bias" not in str(caught[0].message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": "conv.*"}, "selects no leaf.*'layer_1/bias', 'layer_1/kernel'"),
        ({"keys": jnp.zeros(2, jnp.uint32)}, r"jax\.random\.key"),
        (
            {"tasks": {"a": {"x": np.ones((0, 6), np.float32), "y": np.ones(0, np.int32)}}},
            "'a' has no examples",
        ),
        ({"params_axis": 0}, "needs a vector of keys"),
        ({"params_axis": 1}, "params_axis must be 0 or None, got 1"),
        ({"trainable": "nothing"}, "selects none of the masked leaves"),
        ({"trainable": {"layer_1": True}}, "trainable does not mirror"),
        ({"logits": {"layer_1": jnp.ones(3)}}, "logits do not mirror"),
    ],
)
def test_bad_arguments_are_named(params, key, options, message):
    with pytest.raises(ValueError, match=message):
        find(params, **({"keys": key} | options))


def test_params_that_cannot_be_used_are_named(params, key):
    nan = params | {"output": params["output"] | {"kernel": params["output"]["kernel"].at[0, 0].set(jnp.nan)}}
    with pytest.raises(ValueError, match="'output/kernel' holds NaN"):
        find(nan, keys=key)
    with pytest.raises(ValueError, match="'steps' of dtype int32"):
        find(params | {"steps": jnp.ones(3, jnp.int32)}, keys=key, where=".*")
    with pytest.raises(ValueError, match="'act'.*eqx.partition"):
        find(params | {"act": jax.nn.relu}, keys=key)
    with pytest.raises(ValueError, match="'layer_1/bias' has shape"):
        find(params, keys=jax.random.split(key, 3), params_axis=0)


@pytest.mark.parametrize(
    ("loss", "has_aux", "message"),
    [
        (lambda p, b, k: jnp.ones(16), False, r"shape \(16,\).*take the mean"),
        (lambda p, b, k: jnp.ones((), int), False, "floating scalar, got an array of shape"),
        (lambda p, b, k: (jnp.ones(()), {}), False, "has_aux=True"),
        (lambda p, b, k: (jnp.ones(()), {"m": jnp.ones(2)}), True, "metric 'm' must be a scalar"),
        (lambda p, b, k: jnp.ones(()), True, r"must return \(loss, metrics\)"),
    ],
)
def test_a_loss_that_is_no_scalar_is_refused(params, key, loss, has_aux, message):
    with pytest.raises(ValueError, match=message):
        jm.find_modules(loss, params, two_tasks(), keys=key, config=CONFIG, has_aux=has_aux)


def test_metrics_may_not_take_the_names_of_the_history(params, key):
    for name in ("loss", "density", "finite"):
        with pytest.raises(ValueError, match=f"evaluate names a metric '{name}'"):
            find(params, keys=key, evaluate=lambda p, b, name=name: {name: b["y"]})  # noqa: B023
    with pytest.raises(ValueError, match="one value per example"):
        find(params, keys=key, evaluate=lambda p, b: {"accuracy": jnp.mean(b["x"])})


def test_functions_must_give_what_they_are_asked_for(params, key):
    def eight(key, n):
        return {"x": jnp.ones((8, 6)), "y": jnp.zeros(8, int)}

    def floats(key, n):
        return {"x": jnp.ones((n, 6)), "y": jnp.zeros(n)}

    def whole(key, n):
        return {"x": jnp.ones((n, 6)), "y": jnp.zeros(n, int)}

    with pytest.raises(ValueError, match="'a': sample_batch gave 8 examples when asked for 16"):
        find(params, {"a": eight}, keys=key)
    with pytest.raises(ValueError, match="'a' and 'b' give batches that differ"):
        find(params, {"a": whole, "b": floats}, keys=key)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_samples": 3}, "num_samples=3 does not divide batch_size=128"),
        ({"steps": 0}, "steps must be a positive integer, got 0"),
        ({"batch_size": 12.5}, "batch_size must be a positive integer, got 12.5"),
        ({"beta": -1e-4}, "beta must be zero or more"),
        ({"beta": [1e-4, -1.0]}, "beta must be zero or more"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive"),
        ({"clip_norm": 0.0}, "clip_norm must be positive or None"),
    ],
)
def test_a_config_that_cannot_work_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        jm.MaskConfig(**values)


def test_one_value_per_run_must_fit_the_runs(params, key):
    with pytest.raises(ValueError, match=r"beta must be a number or one per run \(2\), got shape \(3,\)"):
        find(params, keys=jax.random.split(key, 2), config=dataclasses.replace(CONFIG, beta=np.ones(3)))
