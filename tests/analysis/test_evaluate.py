"""evaluate against a Python loop over masks, tasks, runs and examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmod as jm
from jaxmod.analysis.chance import chance_overlap
from jaxmod.analysis.sharing import densities, remaining, weights_kept, weights_ratio
from tests.helpers import assert_trees_close, tiny_data, tiny_evaluate, tiny_params, tiny_predict, two_tasks

RUNS = 3


def evaluate(params, batch):
    """Returns a number and a vector per example."""
    outputs = tiny_predict(params, batch["x"])
    return tiny_evaluate(params, batch) | {"outputs": outputs}


def random_mask(key, params):
    """Returns a mask of the kernels that keeps about half of them."""
    logits = jm.gumbel_sigmoid().init(key, params)
    keys = jax.random.split(key, 2)
    return {
        name: {"kernel": jax.random.bernoulli(k, 0.5, logits[name]["kernel"].shape), "bias": None}
        for name, k in zip(logits, keys, strict=True)
    }


def pick(tree, run):
    return jax.tree.map(lambda x: x[run], tree)


def by_hand(params, mask, task):
    values = evaluate(params if mask is None else jm.apply_mask(params, mask), task)
    return {name: np.asarray(v, float).mean(axis=0) for name, v in values.items()}


@pytest.fixture(scope="module")
def setting():
    keys = jax.random.split(jax.random.key(2), RUNS)
    params = tiny_params(keys[0])
    mask = random_mask(keys[1], params)
    return {
        "params": {False: params, True: jax.vmap(tiny_params)(keys)},
        "mask": {False: mask, True: jax.vmap(lambda k: random_mask(k, params))(keys)},
    }


@pytest.mark.parametrize("params_runs", [False, True])
@pytest.mark.parametrize("mask_runs", [False, True])
def test_every_mask_on_every_task_is_a_python_loop(setting, params_runs, mask_runs):
    params, mask = setting["params"][params_runs], setting["mask"][mask_runs]
    tasks = two_tasks()
    table = jm.evaluate(
        evaluate, params, {"whole": None, "half": mask}, tasks,
        params_axis=0 if params_runs else None, batch_size=64,  # divides neither 200 nor 150
    )  # fmt: skip
    assert list(table) == ["whole", "half"]
    runs = RUNS if params_runs or mask_runs else None
    for task, content in tasks.items():
        for name in table:
            got = table[name][task]
            assert got["accuracy"].shape == (() if runs is None else (RUNS,))
            for run in range(runs or 1):
                one = None if name == "whole" else pick(mask, run) if mask_runs else mask
                expected = by_hand(pick(params, run) if params_runs else params, one, content)
                row = got if runs is None else pick(got, run)
                assert_trees_close(row, expected, atol=1e-5)
    assert table.overlaps == table.remaining == {}
    assert set(table.weights) == set(table.density) == {"half"}


def test_the_size_of_a_call_does_not_matter(setting):
    params, mask = setting["params"][False], setting["mask"][False]
    tables = [
        jm.evaluate(evaluate, params, {"m": mask}, {"t": tiny_data()}, batch_size=size) for size in (7, 200)
    ]
    assert_trees_close(dict(tables[0]), dict(tables[1]), atol=1e-6)


def test_rows_of_data_are_the_examples_they_select(setting):
    params, mask, data = setting["params"][True], setting["mask"][True], tiny_data()
    rows = {"even": np.arange(0, 200, 2), "few": np.array([3, 5, 5])}
    options = {"params_axis": 0, "batch_size": 64}
    by_rows = jm.evaluate(evaluate, params, {"m": mask}, rows, data=data, **options)
    arrays = {name: jax.tree.map(lambda x, r=r: x[r], data) for name, r in rows.items()}
    by_arrays = jm.evaluate(evaluate, params, {"m": mask}, arrays, **options)
    assert_trees_close(dict(by_rows), dict(by_arrays), atol=1e-6)


def test_a_key_adds_the_controls(setting, key):
    params, masks = setting["params"][False], {"a": setting["mask"][True], "c": setting["mask"][False]}
    masks |= {"b": jax.vmap(lambda k: random_mask(k, params))(jax.random.split(key, RUNS)), "none": None}
    task = tiny_data(count=64)
    table = jm.evaluate(evaluate, params, masks, {"t": task}, key=key, control="c", batch_size=64)
    assert list(table) == [
        "unmasked", "a", "c", "b", "none", "not a", "not c", "not b", "random a", "random c", "random b",
    ]  # fmt: skip
    assert_trees_close(pick(table["unmasked"]["t"], 1), by_hand(params, None, task), atol=1e-5)
    assert_trees_close(dict(table["none"]), dict(table["unmasked"]))
    inverted = jm.invert(pick(masks["a"], 2))
    assert_trees_close(pick(table["not a"]["t"], 2), by_hand(params, inverted, task), atol=1e-5)
    # Random masks: each run its own, the ones that the key gives, whatever the evaluation.
    random = table["random a"]["t"]["outputs"]
    assert not np.allclose(random[0], random[1])
    drawn = jm.random_mask_like(jax.random.fold_in(key, 1), pick(masks["a"], 1))
    assert_trees_close(pick(table["random a"]["t"], 1), by_hand(params, drawn, task), atol=1e-5)

    # Overlaps: of all pairs of task masks, the control not among them.
    assert set(table.overlaps) == {("a", "b"), ("b", "a")}
    overlap = table.overlaps["a", "b"]
    assert overlap.chance_in_control is not None
    for run in range(RUNS):
        a, b = pick(masks["a"], run), pick(masks["b"], run)
        assert_trees_close(pick(overlap.sharing, run), jm.sharing(a, b), atol=1e-6)
        assert_trees_close(pick(overlap.chance, run), chance_overlap(a, b), rtol=1e-5)
        within = chance_overlap(a, b, masks["c"])
        assert_trees_close(pick(overlap.chance_in_control, run), within, rtol=1e-5)
        assert_trees_close(overlap.weights_ratio[run], weights_ratio(a, b))
        assert_trees_close(pick(table.remaining["a"], run), remaining(a, masks["c"]))
        assert_trees_close(pick(table.weights["not b"], run), weights_kept(jm.invert(b)))
        assert_trees_close(pick(table.density["random b"], run), densities(b))
    assert list(table.remaining) == ["a", "b"]
    assert set(table.weights) == set(table.density) == set(table) - {"unmasked", "none"}


@pytest.mark.parametrize("with_runs", [False, True])
def test_io_layers_and_halves_are_masks_made_by_hand(setting, key, with_runs):
    params, module = setting["params"][with_runs], setting["mask"][with_runs]
    draw = jax.vmap(lambda k: random_mask(k, setting["params"][False]))
    control = draw(jax.random.split(key, RUNS)) if with_runs else random_mask(key, params)
    tasks = two_tasks()
    table = jm.evaluate(
        evaluate, params, {"control": control, "a": module}, tasks, params_axis=0 if with_runs else None,
        control="control", io_layers=["output/kernel"], first_half=["layer_1/kernel"], batch_size=64,
    )  # fmt: skip
    names = ["control", "a", "not a, control I/O", "not a, full I/O", "early masked", "late masked"]
    assert list(table) == names
    for run in range(RUNS) if with_runs else [None]:
        one = (lambda tree: tree) if run is None else (lambda tree, i=run: pick(tree, i))
        weights, mask, whole = one(params), one(module), one(control)
        inverse = {"kernel": ~mask["layer_1"]["kernel"], "bias": None}
        full = {name: jax.tree.map(jnp.ones_like, layer) for name, layer in whole.items()}
        by_name = {
            "control": whole,
            "a": mask,
            "not a, control I/O": {"layer_1": inverse, "output": whole["output"]},
            "not a, full I/O": {"layer_1": inverse, "output": full["output"]},
            "early masked": {"layer_1": whole["layer_1"], "output": full["output"]},
            "late masked": {"layer_1": full["layer_1"], "output": whole["output"]},
        }
        for name, made in by_name.items():
            for task, content in tasks.items():
                assert_trees_close(one(table[name][task]), by_hand(weights, made, content), atol=1e-5)
            kept = {f"{layer}/kernel": np.asarray(leaf["kernel"]) for layer, leaf in made.items()}
            kept["total"] = np.concatenate([leaf.reshape(-1) for leaf in kept.values()])
            assert {path: int(n) for path, n in one(table.weights[name]).items()} == {
                path: leaf.sum() for path, leaf in kept.items()
            }
            assert {path: float(x) for path, x in one(table.density[name]).items()} == pytest.approx(
                {path: leaf.mean() for path, leaf in kept.items()}
            )


def test_masks_over_other_leaves_are_compared_with_nothing(setting, key):
    params, mask = setting["params"][False], setting["mask"][False]
    one_layer = {"layer_1": mask["layer_1"], "output": {"kernel": None, "bias": None}}
    masks = {"control": random_mask(key, params), "a": one_layer, "b": one_layer, "none": None}
    table = jm.evaluate(tiny_evaluate, params, masks, {"t": tiny_data(count=8)}, control="control")
    assert set(table.overlaps) == {("a", "b"), ("b", "a")} and table.remaining == {}
    assert table.overlaps["a", "b"].chance_in_control is None
    assert list(table.weights["a"]) == ["layer_1/kernel", "total"]


def test_variants_may_not_take_the_name_of_a_mask(setting, key):
    params, mask = setting["params"][False], setting["mask"][False]
    with pytest.raises(ValueError, match=r"\['not a'\] have names that variants"):
        jm.evaluate(tiny_evaluate, params, {"a": mask, "not a": mask}, {"t": tiny_data(count=8)}, key=key)
    with pytest.raises(ValueError, match="'t' is a function"):
        jm.evaluate(tiny_evaluate, params, {"a": mask}, {"t": lambda key, n: None})


def test_overlaps_without_runs_or_control(setting, key):
    params = setting["params"][False]
    masks = {"a": setting["mask"][False], "b": random_mask(key, params)}
    table = jm.evaluate(tiny_evaluate, params, masks, {"t": tiny_data(count=64)}, key=key)
    overlap = table.overlaps["b", "a"]
    assert overlap.chance_in_control is None
    assert overlap.sharing["total"].shared == jm.sharing(masks["b"], masks["a"])["total"].shared
    assert table["not a"]["t"]["accuracy"].shape == ()


def test_bad_input_is_named(setting):
    params, mask = setting["params"][False], setting["mask"][False]
    runs, two = setting["mask"][True], jax.tree.map(lambda x: x[:2], setting["mask"][True])
    data, good = tiny_data(), {"t": np.arange(9)}

    def check(message, evaluate=tiny_evaluate, params=params, masks=None, tasks=good, data=data, **options):
        with pytest.raises(ValueError, match=message):
            jm.evaluate(evaluate, params, masks or {"m": mask}, tasks, data=data, **options)

    check(r"control='c' is not among the masks \['m'\]", control="c")
    check("io_layers and first_half need control=", io_layers=["output/kernel"])
    check(r"first_half: \['layer_9/kernel'\] are not in the mask", control="m", first_half=["layer_9/kernel"])
    small = {"kernel": jnp.ones((2, 2), bool), "bias": None}
    check(
        r"mask 'm' does not mirror params: 'layer_1/kernel' has shape \(2, 2\)",
        masks={"m": mask | {"layer_1": small}},
    )
    check("mask 'm' does not mirror", masks={"m": {"layer_1": mask["layer_1"]}})
    check("""runs differs: {"mask 'm'": 3, "mask 'two'": 2}""", masks={"m": runs, "two": two})
    check("the number of runs differs", params=setting["params"][True], masks={"m": two}, params_axis=0)
    check("mask 'm' does not mirror", masks={"m": {"layer_1": runs["layer_1"], "output": mask["output"]}})
    check("task 't' has no examples", tasks={"t": np.array([], int)})
    check("task 't' has row 200, but data has 200", tasks={"t": np.array([3, 200])})
    check("task 't' has row -1", tasks={"t": np.array([-1])})
    check("np.flatnonzero", tasks={"t": np.ones(200, bool)})
    check(
        "'y' has 1 examples, but 'x' has 2", tasks={"t": {"x": np.ones((2, 6)), "y": np.ones(1)}}, data=None
    )
    check(
        r"evaluate gave 'accuracy' of shape \(\) for 9 examples",
        evaluate=lambda p, b: {"accuracy": jnp.mean(tiny_evaluate(p, b)["accuracy"])},
    )
