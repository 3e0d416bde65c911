"""The addition/multiplication experiment at toy size: the whole chain, and its parts by hand."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmod as jm
from experiments import addmul
from jaxmod import files
from jaxmod.data.arithmetic import load_addmul
from jaxmod.figures import draw_all

TINY = addmul.Config(
    hidden=(16, 12), seeds=2, network_steps=20, mask_steps=4, batch_size=8, num_samples=2, chunk_steps=20
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("addmul")
    with jm.Workdir.open(folder, dataclasses.asdict(TINY)) as workdir:
        results = addmul.run(TINY, workdir)
        assert (workdir.path / "masks.npz").exists()
    return results


def test_results_have_the_figures_numbers_and_are_plain(results, tmp_path):
    files.write_json(tmp_path / "results.json", results)
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["layers"] == ["layer 1", "layer 2", "output"]
    assert set(stored["accuracy"]["add"]) == {"iid", "add", "mul"}
    assert {"unmasked", "not add", "random mul"} <= set(stored["accuracy"])
    assert len(stored["sharing"]["mul"]["total"]["runs"]) == 2
    assert len(stored["checks"]) == 8
    assert np.array(stored["confusion"]["not mul"]["percent"]["std"]).shape == (2, 3)
    assert len(draw_all({"experiment": "addmul", **stored}, tmp_path)) >= 5


def test_a_barely_trained_mask_keeps_everything_and_its_inverse_nothing(results):
    # In 4 steps no logit falls from 2 to 0: the mask is full, and its complement outputs the biases.
    assert results["weights"]["add"]["total"]["mean"] == 42 * 16 + 16 * 12 + 12 * 20
    assert results["accuracy"]["add"] == results["accuracy"]["unmasked"]
    assert results["sharing"]["add"]["total"]["mean"] == 1.0
    assert results["density"]["not add"]["mean"] == 0.0
    assert results["half_mask"]["early masked"]["mean"] == 0.0


# test_agreement.py has an experiment with edge_popup.
@pytest.mark.parametrize(
    ("name", "top_q"), [pytest.param("edge_popup", 0.5, marks=pytest.mark.slow), ("hard_concrete", 0.05)]
)
def test_masks_of_another_estimator(name, top_q, tmp_path):
    results = addmul.run(dataclasses.replace(TINY, seeds=1, estimator=name, top_q=top_q))
    weights = 42 * 16 + 16 * 12 + 12 * 20
    kept = round(0.5 * weights) if name == "edge_popup" else weights
    assert {mask: row["total"]["mean"] for mask, row in results["weights"].items()} == dict.fromkeys(
        ("control", "add", "mul"), kept
    )
    assert results["histogram"] is None  # their logits are no log-odds of being kept
    assert len(draw_all({"experiment": "addmul", **results}, tmp_path)) >= 4


def test_confusion_of_a_network_that_always_adds():
    valid = jax.tree.map(lambda x: x[:500], load_addmul("valid"))
    sums = jnp.asarray(valid["digits"]).astype(int)
    total = (sums[:, 0] + 10 * sums[:, 1] + sums[:, 2] + 10 * sums[:, 3]) % 100
    answers = jax.nn.one_hot(jnp.stack([total % 10, total // 10], axis=1), 10)
    params = {"kernel": jnp.ones((1, 1))}
    mask = {"kernel": jnp.ones((1, 1), bool)}
    percent = addmul.confusion(lambda p, batch: answers, params, mask, valid)["percent"]["mean"]
    add, mul, none = np.array(percent).T
    assert (add > 99).all() and (mul < 1).all() and (none == 0).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "cnn"}, "model='cnn': expected one of fnn, lstm"),
        ({"hidden": ()}, "hidden"),
        ({"hidden": (400,)}, "hidden=400: expected 2 sizes or more"),
        ({"seeds": 0}, "seeds=0: expected a number above 0"),
        ({"num_samples": 3}, "num_samples=3 does not divide batch_size=128"),
        ({"beta": -1.0}, "beta must be zero or more"),
        ({"estimator": "edge_popup", "rao_blackwell": True}, "rao_blackwell=True does not go with estimator"),
    ],
)
def test_impossible_values_are_refused_before_any_work(values, message):
    with pytest.raises(ValueError, match=message):
        addmul.validate(dataclasses.replace(addmul.Config(), **values))


@pytest.mark.parametrize("preset", addmul.PRESETS)
def test_presets_are_possible(preset):
    addmul.validate(addmul.PRESETS[preset])
