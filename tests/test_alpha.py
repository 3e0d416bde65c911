"""find_alpha: the largest alpha before the accuracy drops, and the table of what was tried."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmod as jm
from jaxmod.train import loops
from tests.helpers import tiny_evaluate, tiny_loss

CONFIG = jm.MaskConfig(
    steps=100, batch_size=32, num_samples=2, learning_rate=0.1, beta=123.0, chunk_steps=100, eval_examples=64
)
ALPHAS = [1e-4, 1e-3, 10.0]


def planted():
    """A network that answers with the largest of its four inputs, by four of its sixteen weights."""
    layer = {"kernel": 2 * jnp.eye(4) - 0.1, "bias": jnp.zeros(4)}
    return {"layer_1": layer, "output": layer}


def one_hot(count=120):
    y = np.arange(count) % 4
    return {"x": np.eye(4, dtype=np.float32)[y], "y": y.astype(np.int32)}


def search(**options):
    options = {
        "keys": jax.random.key(1),
        "evaluate": tiny_evaluate,
        "alphas": ALPHAS,
        "config": CONFIG,
    } | options
    params, data = options.pop("params", planted()), options.pop("data", one_hot())
    return jm.find_alpha(tiny_loss, params, data, **options)


@pytest.fixture(scope="module")
def searched():
    # The largest alpha leaves nothing of the layers, which is said.
    with pytest.warns(UserWarning, match="'control', run 2: the mask keeps no weight of 'layer_1/kernel'"):
        return search(alphas=[ALPHAS[1], ALPHAS[2], ALPHAS[0]])


def test_the_largest_alpha_before_the_drop_is_chosen(searched):
    alpha, _ = searched
    assert alpha == 1e-3


def test_the_table_says_what_was_tried(searched):
    _, table = searched
    assert [row["alpha"] for row in table] == ALPHAS
    assert [row["beta"] for row in table] == [32 * alpha for alpha in ALPHAS]
    assert [row["adequate"] for row in table] == [1.0, 1.0, 0.0]
    assert [row["accuracy"] for row in table] == [1.0, 1.0, 0.25]
    assert [row["kept"] for row in table] == [1.0, 1.0, 0.25]
    densities = [row["density"] for row in table]
    assert densities == sorted(densities, reverse=True) and densities[-1] == 0
    assert 4 / 16 <= densities[1] < densities[0] < 1
    assert all(type(value) is float for row in table for value in row.values())


def test_an_alpha_is_the_run_it_is_alone(searched):
    _, table = searched
    alpha, alone = search(alphas=[ALPHAS[1]])
    assert alpha == ALPHAS[1]
    assert alone[0] == pytest.approx(table[1], abs=0.04)  # an accuracy of 1, a density of 32 weights


def test_accuracies_are_means_over_the_runs_of_stacked_networks():
    good = planted()
    # The second network never sees its second input, so it is right on three classes of four.
    blind = good | {"layer_1": good["layer_1"] | {"kernel": good["layer_1"]["kernel"].at[1].set(-9.0)}}
    params = jax.tree.map(lambda *x: jnp.stack(x), good, blind)
    _, table = search(
        params=params, params_axis=0, keys=jax.random.split(jax.random.key(1), 2), alphas=ALPHAS[:2]
    )
    assert [row["adequate"] for row in table] == [1.0, 1.0]
    for row in table:
        unmasked = row["accuracy"] / row["kept"]
        assert unmasked == pytest.approx((1 + 0.75) / 2)


def test_an_inadequate_search_shows_its_table():
    with (
        pytest.warns(UserWarning, match="keeps no weight"),
        pytest.raises(
            ValueError,
            match=r"no alpha keeps 95% of the unmasked accuracy 1\.0000: alpha 10: 0\.2500\. Try smaller",
        ),
    ):
        search(alphas=[10.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alphas": []}, "alphas must be finite numbers of zero or more, at least one, got"),
        ({"alphas": [1e-5, -1e-5]}, "alphas must be finite"),
        ({"alphas": [np.inf]}, "alphas must be finite"),
        ({"alphas": [np.nan, 1.0]}, "alphas must be finite"),
        ({"keep": 0}, r"keep must be in \(0, 1\], got 0"),
        ({"keep": 1.5}, r"keep must be in \(0, 1\], got 1.5"),
        ({"keys": np.zeros(2, np.uint32)}, r"jax\.random\.key"),
        ({"params_axis": 0}, "params_axis=0 needs a vector of keys"),
        ({"params_axis": 1}, "params_axis must be 0 or None, got 1"),
        (
            {"params_axis": 0, "keys": jax.random.split(jax.random.key(0), 3)},
            r"'layer_1/bias' has shape \(4,\), expected a leading axis of 3 runs",
        ),
        ({"metric": "f1"}, r"metric='f1': choose one of what evaluate returns, \['accuracy'\]"),
        (
            {"evaluate": lambda p, b: {"a": b["y"], "b": b["y"]}},
            r"metric=None: choose one of what evaluate returns, \['a', 'b'\]",
        ),
        ({"data": {"x": np.ones((0, 4), np.float32), "y": np.ones(0, int)}}, "has no examples"),
        ({"where": "conv"}, "selects no leaf"),
    ],
)
def test_bad_input_is_named_before_any_work(options, message, monkeypatch):
    def too_late(*args, **kwargs):
        raise AssertionError("trained before the input was checked")

    monkeypatch.setattr(loops, "_compiled_chunk", too_late)
    with pytest.raises(ValueError, match=message):
        search(**options)
