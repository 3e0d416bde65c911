"""The experiment on clusters and masks at toy size: the whole chain, and its parts by hand."""

import dataclasses
import types

import numpy as np
import pytest

import jaxmod as jm
from experiments import agreement as experiment
from jaxmod import class_masks, conditions, files

TINY = experiment.Config(
    conditions=("digits-dropout",),
    hidden=(16, 12),
    epochs=0.05,
    k=3,
    shuffles=19,
    seeds=2,
    mask_steps=4,
    mask_learning_rate=0.6,
    batch_size=8,
    num_samples=1,
    chunk_steps=4,
)


def test_results_have_the_figures_numbers(tmp_path, monkeypatch):
    with jm.Workdir.open(tmp_path, {}) as workdir:
        results = experiment.run(TINY, workdir)
        files.write_json(tmp_path / "results.json", results)
        # The analysis was kept: nothing is compared once more.
        monkeypatch.setattr(experiment, "compare", None)
        assert experiment.run(TINY, workdir) == results
    found = results["agreement"]["digits-dropout"]
    assert found["layers"] == ["layer 1", "layer 2"]
    assert len(found["n_cut"]) == 2
    assert len(found["kept"]) == len(found["dropped"]) == 2 * experiment.TRAININGS
    for rows in (found["clusters and classes"], found["classes twice"]):
        assert [len(network) for network in rows] == [3, 3]
        assert all(1 / 20 <= x["p"] <= 1 for network in rows for x in network)
    assert np.shape(found["clusters and classes"][0][0]["counts"]) == (3, 10)
    assert np.shape(found["accuracy"]["without"]) == (4, 10, 10)
    assert len(results["checks"]) == 5
    assert results["notes"][-1] == "Data of digits-dropout: digits of scikit-learn."
    assert [len(table["rows"]) for table in results["tables"]] == [3, 1, 10]


def test_pruned_weights_and_the_output_layer_are_no_class_weights():
    params = {
        "layer_1": {"kernel": np.array([[[1.0, 0.0], [2.0, 3.0]]])},
        "output": {"kernel": np.ones((1, 2, 2))},
    }
    control = {"layer_1": {"kernel": np.array([[[True, True], [True, False]]])}, "output": None}
    without = {"layer_1": {"kernel": np.array([[[False, False], [True, False]]])}, "output": None}
    found = experiment.class_weights(params, control, [without, control], ["layer_1/kernel"], run=0)
    np.testing.assert_array_equal(found.kept[1], [2, 0])
    np.testing.assert_array_equal(found.dropped[1], [[1, 0], [0, 0]])


def test_the_copied_layer_stays_though_edge_popup_ranks_all_layers_together(monkeypatch):
    found = {}
    find = class_masks.find_modules

    def remember(*args, **options):
        made = find(*args, **options)
        found.update({name: (module.mask, options) for name, module in made.items()})
        return made

    monkeypatch.setattr(class_masks, "find_modules", remember)
    config = dataclasses.replace(TINY, seeds=1, estimator="edge_popup", top_q=0.2)
    results = experiment.run(config)
    assert len(results["checks"]) == 5
    control, options = found["control"]
    for c in range(10):
        mask, options = found[f"without {c}"]
        np.testing.assert_array_equal(mask["output"]["kernel"], control["output"]["kernel"])
        kept = sum(np.asarray(layer["kernel"]).sum(axis=(1, 2)) for layer in mask.values())
        assert (kept == round(0.2 * sum(layer["kernel"][0].size for layer in mask.values()))).all()
    # Both trainings of a network start from scores of their own.
    first, second = np.asarray(options["logits"]["layer_1"]["kernel"])
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("name", experiment.PRESETS)
def test_the_presets_are_possible(name, monkeypatch):
    loaded = types.SimpleNamespace(x_train=range(60_000))
    monkeypatch.setattr(conditions, "load", lambda condition: loaded)
    experiment.validate(experiment.PRESETS[name])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"conditions": ("digit",)}, "conditions='digit': expected one of digits"),
        ({"conditions": ()}, "conditions=''"),
        ({"conditions": ("digits", "digits")}, "each of them once"),
        ({"k": 1}, "k=1: expected 2"),
        ({"k": 102}, "k=102: expected 2 clusters or more, and fewer than the 102 neurons of digits-dropout"),
        ({"epochs": 1e6}, "epochs=1000000.0: "),
        ({"shuffles": 0}, "shuffles=0"),
        ({"noise": "rbg"}, "noise='rbg'"),
    ],
)
def test_what_cannot_work_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        experiment.validate(dataclasses.replace(TINY, **settings))
