"""The scanned loop against a Python loop, an interrupted one, and one that turns NaN."""

import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmod as jm
from jaxmod import checkpoints
from jaxmod.train import loops, steps
from jaxmod.train.axes import Axes
from jaxmod.train.loops import NonFiniteError, Program, fit
from jaxmod.train.randomness import Stream, step_keys, stream_key
from jaxmod.train.state import JointState, MaskState
from jaxmod.train.tasks import make_source
from jaxmod.workdir import Workdir
from tests.helpers import assert_trees_close, assert_trees_equal, equations, tiny_data, tiny_loss, tiny_params

RUNS, TASKS = 2, ("first", "second")


def toy_tasks():
    """Two lines through clouds of different size."""
    x = np.random.RandomState(0).randn(90, 3).astype(np.float32)
    return {"first": {"x": x[:40], "y": x[:40, 0]}, "second": {"x": x[40:], "y": 1 - x[40:, 1]}}


class Toy(NamedTuple):
    weights: jax.Array
    done: jax.Array
    poison: jax.Array
    """The step at which the weights turn NaN."""


def number(key):
    """Returns a number in [0, 1) that tells keys apart; a real draw would take long to compile."""
    return jax.random.key_data(key)[0] / jnp.float32(2**32)


def toy_step(inputs, state, batch, keys):
    """Noisy gradient descent that reads everything a step is given."""

    def loss(weights):
        return jnp.mean((batch["x"] @ weights - batch["y"]) ** 2)

    value, grad = jax.value_and_grad(loss)(state.weights)
    noise = inputs["scale"] * (number(keys.noise) - number(keys.shared))
    weights = state.weights - inputs["rate"] * (grad + noise)
    weights = jnp.where(state.done == state.poison, jnp.nan, weights)
    metrics = {"loss": value, "coin": number(keys.loss)}
    return Toy(weights, state.done + 1, state.poison), metrics


def toy_observe(inputs, state, batch):
    del inputs
    return {"error": jnp.mean(jnp.abs(batch["x"] @ state.weights - batch["y"]))}


SOURCE = make_source(toy_tasks())
PROGRAM = Program(toy_step, SOURCE.draw, toy_observe, 8, 16, Axes("unroll", "map", "map"))


def toy_inputs():
    """Returns `(runs, shared)`."""
    keys = jax.random.split(jax.random.key(3), RUNS)
    shared = {"pool": SOURCE.pool, "shared_key": jax.random.key(7), "scale": jnp.float32(0.1)}
    return {"key": keys, "rate": jnp.array([0.05, 0.1])}, shared


def toy_state(poison=()):
    """`poison` holds (run, task, step)."""
    when = np.full((RUNS, len(TASKS)), -1)
    for run, task, step in poison:
        when[run, task] = step
    shape = (RUNS, len(TASKS))
    return Toy(jnp.ones((*shape, 3)), jnp.zeros(shape, jnp.int32), jnp.asarray(when, jnp.int32))


def fit_toy(steps=10, chunk_steps=4, state=None, **options):
    runs, shared = toy_inputs()
    return fit(
        PROGRAM, state or toy_state(), runs=runs, tasks=SOURCE.task, shared=shared, names=TASKS,
        steps=steps, chunk_steps=chunk_steps, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted():
    state, history = fit_toy()
    return jax.tree.map(np.asarray, state), history


def python_loop(program, state, inputs, task, pool, num_steps):
    """Returns the state and every step's metrics of one run on one task."""
    step, collected = jax.jit(program.step), []
    for i in range(num_steps):
        keys = step_keys(inputs["key"], inputs["shared_key"], jnp.int32(i))
        batch = program.draw(keys.data, task, pool, program.batch_size)
        state, metrics = step(inputs, state, batch, keys)
        collected.append(metrics)
    return state, jax.tree.map(lambda *xs: np.array(xs), *collected)


def test_the_scan_is_a_python_loop_of_steps(uninterrupted):
    state, history = uninterrupted
    assert {name: x.shape for name, x in history.items()} == {
        name: (RUNS, len(TASKS), 3) for name in ("loss", "coin", "error")
    }
    runs, shared = toy_inputs()
    start = toy_state()
    for run in range(RUNS):
        inputs = shared | jax.tree.map(lambda x, run=run: x[run], runs)
        for i in range(len(TASKS)):
            task = jax.tree.map(lambda x, i=i: x[i], SOURCE.task)
            at = (run, i)
            alone = jax.tree.map(lambda x, at=at: x[at], start)
            expected, metrics = python_loop(PROGRAM, alone, inputs, task, SOURCE.pool, 10)
            assert_trees_close(jax.tree.map(lambda x, at=at: x[at], state), expected, atol=1e-6)
            # Three chunks, the last one short; each entry is the mean over its chunk.
            for name, values in metrics.items():
                means = [values[:4].mean(), values[4:8].mean(), values[8:].mean()]
                np.testing.assert_allclose(history[name][at], means, atol=1e-6)
            batch = PROGRAM.draw(stream_key(inputs["key"], Stream.EVALUATE), task, SOURCE.pool, 16)
            error = toy_observe(inputs, expected, batch)["error"]
            np.testing.assert_allclose(history["error"][*at, -1], error, atol=1e-6)


def test_the_scan_is_a_python_loop_of_mask_steps_too(key):
    params, estimator = tiny_params(key), jm.gumbel_sigmoid()
    optimizer = steps.clipped_adam(1.0)
    source = make_source({"forward": tiny_data()})
    program = Program(
        steps.make_mask_step(tiny_loss, estimator, optimizer, 2, "vmap"),
        source.draw, lambda inputs, state, batch: {}, 16, 1, Axes("vmap", "map", "map"),
    )  # fmt: skip
    logits = estimator.init(key, params)
    state = MaskState(logits, optimizer.init(logits))
    runs = {"key": key, "alpha": jnp.float32(1e-5), "learning_rate": jnp.float32(1e-2)}
    shared = {"shared_key": jax.random.key(7), "pool": source.pool, "params": params}
    shared |= {"held": jax.tree.map(lambda _: None, logits)}
    expected, metrics = python_loop(
        program, state, shared | runs, jax.tree.map(lambda x: x[0], source.task), source.pool, 5
    )
    got, history = fit(
        program,
        jax.tree.map(lambda x: x[None, None], state),
        runs=jax.tree.map(lambda x: x[None], runs),
        tasks=source.task, shared=shared, names=source.names, steps=5, chunk_steps=5,
    )  # fmt: skip
    assert_trees_close(jax.tree.map(lambda x: x[0, 0], got.logits), expected.logits, atol=1e-5)
    assert history["loss"][0, 0, 0] == pytest.approx(metrics["loss"].mean(), abs=1e-5)


def test_the_length_of_a_chunk_does_not_matter(uninterrupted):
    state, history = uninterrupted
    other, other_history = fit_toy(chunk_steps=2)
    assert_trees_close(other, state, atol=1e-6)
    assert other_history["loss"].shape[-1] == 5
    halves = other_history["loss"][..., :4].reshape(RUNS, len(TASKS), 2, 2)
    np.testing.assert_allclose(halves.mean(-1), history["loss"][..., :2], atol=1e-6)
    np.testing.assert_allclose(other_history["error"][..., -1], history["error"][..., -1], atol=1e-6)


class Interrupts:
    """A progress that stops the run at a step, as Ctrl-C between two chunks does."""

    def __init__(self, step):
        self.step = step

    def update(self, step, metrics):
        assert set(metrics) == {"loss", "coin", "error"}
        if step == self.step:
            raise KeyboardInterrupt


def metrics_lines(folder: Path):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def timeless(lines):
    return [{name: value for name, value in line.items() if name != "steps_per_second"} for line in lines]


def test_metrics_have_a_line_per_chunk_and_task(tmp_path, uninterrupted):
    _, history = uninterrupted
    with Workdir.open(tmp_path, {}) as workdir:
        fit_toy(stage=workdir.stage("toy"))
    lines = metrics_lines(tmp_path)
    assert [(line["phase"], line["step"], line["task"]) for line in lines] == [
        ("toy", step, task) for step in (4, 8, 10) for task in TASKS
    ]
    for i, line in enumerate(lines):
        assert line["steps_per_second"] > 0
        for name in ("loss", "coin", "error"):
            np.testing.assert_array_equal(np.float32(line[name]), history[name][:, i % 2, i // 2])
    assert "finite" not in lines[0]


@pytest.mark.parametrize("stop", [4, 8])
def test_a_stage_stopped_in_the_middle_goes_on_bit_for_bit(tmp_path, uninterrupted, stop):
    state, history = uninterrupted
    with Workdir.open(tmp_path / "whole", {}) as workdir:
        fit_toy(stage=workdir.stage("toy"))
    with Workdir.open(tmp_path / "stopped", {}) as workdir:
        stage = workdir.stage("toy")
        with pytest.raises(KeyboardInterrupt):
            fit_toy(stage=stage, progress=Interrupts(stop))
        assert len(metrics_lines(tmp_path / "stopped")) == stop // 4 * len(TASKS)
        resumed, resumed_history = fit_toy(stage=stage)
    assert_trees_equal(resumed, state)
    assert_trees_equal(resumed_history, history)
    whole, stopped = (timeless(metrics_lines(tmp_path / name)) for name in ("whole", "stopped"))
    assert stopped == whole


def test_a_chunk_that_was_logged_but_not_saved_is_run_again(tmp_path, uninterrupted, monkeypatch):
    state, history = uninterrupted
    save = checkpoints.save

    def disk_full_at_8(directory, step, tree):
        if step == 8:
            raise OSError("no space")
        save(directory, step, tree)

    with Workdir.open(tmp_path, {}) as workdir:
        stage = workdir.stage("toy")
        with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
            patch.setattr(checkpoints, "save", disk_full_at_8)
            fit_toy(stage=stage)
        assert [line["step"] for line in metrics_lines(tmp_path)] == [4, 4, 8, 8]
        resumed, resumed_history = fit_toy(stage=stage)
    assert_trees_equal(resumed, state)
    assert_trees_equal(resumed_history, history)
    assert [line["step"] for line in metrics_lines(tmp_path)] == [4, 4, 8, 8, 10, 10]


def test_a_finished_stage_is_read_not_run(tmp_path, uninterrupted, monkeypatch):
    state, history = uninterrupted

    class Lowered:
        trace = loops._compiled_chunk.trace

        def __call__(self, *args):
            raise AssertionError("trained again")

    with Workdir.open(tmp_path, {}) as workdir:
        stage = workdir.stage("toy")
        fit_toy(stage=stage)
        monkeypatch.setattr(loops, "_compiled_chunk", Lowered())
        again, again_history = fit_toy(stage=stage)
    assert_trees_equal(again, state)
    assert_trees_equal(again_history, history)


def test_a_run_that_turns_nan_is_named_and_the_checkpoint_before_it_stays(tmp_path):
    with Workdir.open(tmp_path, {}) as workdir:
        stage = workdir.stage("toy")
        poisoned = toy_state([(1, 1, 6)])
        with pytest.raises(NonFiniteError, match=r"in run 1, task 'second', between steps 4 and 8\b"):
            fit_toy(stage=stage, state=poisoned)
        assert [line["step"] for line in metrics_lines(tmp_path)] == [4, 4]
        like = toy_state([(1, 1, 6)])
        histories = {name: np.zeros((RUNS, 2, 3), np.float32) for name in ("loss", "coin", "error")}
        restored = stage.restore({"state": like, "history": histories})
        assert restored is not None and restored[0] == 4
        expected, history = fit_toy(steps=4, state=toy_state([(1, 1, 6)]))
        assert_trees_equal(restored[1]["state"], expected)
        for name, values in restored[1]["history"].items():
            np.testing.assert_array_equal(values[..., 0], history[name][..., 0])
            assert np.isnan(values[..., 1:]).all()
        # The same run goes on from there; with better numbers it would end.
        with pytest.raises(NonFiniteError, match="between steps 4 and 8"):
            fit_toy(stage=stage, state=like)


def test_every_run_and_task_that_turns_nan_is_named():
    state = toy_state([(0, 0, 1), (1, 0, 3)])
    with pytest.raises(NonFiniteError, match=r"run 0, task 'first', run 1, task 'first', between steps 0"):
        fit_toy(state=state)


def find_arguments(monkeypatch, **options):
    """Returns what find_modules hands to the compiled chunk."""

    class Captured(Exception):  # noqa: N818
        pass

    class Spy:
        trace = loops._compiled_chunk.trace

        def __call__(self, *args):
            raise Captured(args)

    with monkeypatch.context() as patch, pytest.raises(Captured) as caught:
        patch.setattr(loops, "_compiled_chunk", Spy())
        jm.find_modules(**options)
    return caught.value.args[0]


def large_constants(text, size=50):
    """Returns the shapes of the constants of a lowered program that hold `size` numbers or more."""
    shapes = [line.split("tensor<")[-1].split(">")[0] for line in text.splitlines() if 'dense<"0x' in line]
    return [s for s in shapes if np.prod([int(n) for n in s.split("x")[:-1]]) >= size]


@pytest.mark.parametrize("mode", ["vmap", "map"])
def test_frozen_weights_and_data_are_arguments_of_the_program(key, monkeypatch, mode):
    params, data = tiny_params(key), tiny_data()
    config = jm.MaskConfig(
        steps=4, batch_size=16, num_samples=2, chunk_steps=4, eval_examples=10, axes=Axes(mode, mode, mode)
    )
    options = {"tasks": {"a": np.arange(100), "b": np.arange(100, 200)}, "data": data, "config": config}
    options |= {"keys": jax.random.split(key, 2), "loss_fn": tiny_loss, "params": params}
    arguments = find_arguments(monkeypatch, **options)
    assert large_constants(loops._compiled_chunk.lower(*arguments).as_text()) == []
    # Only what is trained is carried: kernels of logits, no biases (16 of them), no data.
    carries = scan_carries(jax.make_jaxpr(loops._train_chunk, static_argnums=(0, 1))(*arguments).jaxpr)
    shapes = [shape for carry in carries for shape in carry]
    assert any(shape[-2:] == (6, 16) for shape in shapes)
    assert all(shape[-2:] == (6, 16) for shape in shapes if shape[-1:] == (16,))
    assert not any(shape[-2:] == (200, 6) for shape in shapes)

    # The test can tell: a loss that closes over its data has them as constants.
    def closes_over(params, batch, key):
        del batch
        return tiny_loss(params, jax.tree.map(jnp.asarray, data), key)

    arguments = find_arguments(monkeypatch, **(options | {"loss_fn": closes_over}))
    assert "200x6xf32" in large_constants(loops._compiled_chunk.lower(*arguments).as_text())


def scan_carries(jaxpr):
    """Returns the shapes in the carry of every scan and while loop of a program."""
    found = []
    for eqn in equations(jaxpr):
        if eqn.primitive.name == "scan":
            first = eqn.params["num_consts"]
            carry = eqn.invars[first : first + eqn.params["num_carry"]]
            found.append([v.aval.shape for v in carry])
    return found


def test_weights_and_masks_train_together_and_used_weights_stay():
    key = jax.random.key(0)
    params = tiny_params(key)
    estimator, optimizer = jm.gumbel_sigmoid(), steps.clipped_adam(1.0)
    logits = estimator.init(key, params)
    used = jax.tree.map(lambda x: jax.random.bernoulli(jax.random.key(5), 0.5, x.shape), logits)
    source = make_source({"task": tiny_data()})
    step = steps.make_joint_step(tiny_loss, estimator, optimizer, 2, "unroll")
    program = Program(
        step, source.draw, lambda inputs, state, batch: {}, 16, 16, Axes("unroll", "map", "map")
    )
    state = JointState(params, logits, optimizer.init((params, logits)))
    state, history = fit(
        program,
        jax.tree.map(lambda x: x[None, None], state),
        runs={"key": key[None], "alpha": jnp.array([1e-5]), "learning_rate": jnp.array([1e-2])},
        tasks=source.task,
        shared={"pool": source.pool, "shared_key": jax.random.key(7), "used": used},
        names=source.names,
        steps=150,
        chunk_steps=50,
    )
    assert history["loss"][0, 0, -1] < 0.7 * history["loss"][0, 0, 0]
    for layer in ("layer_1", "output"):
        before, after = params[layer]["kernel"], state.params[layer]["kernel"][0, 0]
        taken = used[layer]["kernel"]
        np.testing.assert_array_equal(after[taken], before[taken])
        assert (after != before)[~taken].mean() > 0.9
