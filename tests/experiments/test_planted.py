"""The planted modules at toy size: the whole chain, its figure, and what a method's measures are."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmod as jm
from experiments import planted as experiment
from jaxmod import files, reports
from jaxmod.figures import draw_all

TINY = experiment.Config(
    kinds=("sparse",),
    estimators=("gumbel_sigmoid", "edge_popup"),
    hidden=(16, 12),
    twins=2,
    dead=3,
    circuit_steps=900,
    sparsity=0.3,
    margin=0.5,
    seeds=2,
    mask_steps=6,
    gumbel_learning_rate=2.0,
    batch_size=16,
    num_samples=2,
    chunk_steps=300,
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    with jm.Workdir.open(folder, dataclasses.asdict(TINY)) as workdir:
        made = experiment.run(TINY, workdir)
        assert experiment.run(TINY, workdir) == made  # every stage was kept
    return made


@pytest.mark.filterwarnings("ignore:task .*keeps no weight")
def test_results_have_the_numbers_and_are_plain(results, tmp_path):
    files.write_json(tmp_path / "results.json", {"experiment": "planted", **results})
    stored = json.loads((tmp_path / "results.json").read_text())
    assert list(stored["recovery"]) == ["sparse"]
    for of in stored["recovery"].values():
        assert list(of["methods"]) == [
            "gumbel_sigmoid",
            "control",
            "edge_popup",
            "magnitude",
            "random",
        ]
        assert of["accuracy"]["network"] == of["accuracy"]["truth"] == 1
        assert of["accuracy"]["without the truth"] < 0.3
        for method in of["methods"].values():
            for measure in ("precision", "recall", "f1", "accuracy", "overlap_error"):
                assert all(0 <= x <= 1 for x in method[measure]["runs"])
                assert len(method[measure]["runs"]) == 2
        true = of["weights"]["true"]
        assert of["methods"]["magnitude"]["kept"]["mean"] == of["methods"]["random"]["kept"]["mean"] == true
        assert of["methods"]["edge_popup"]["kept"]["mean"] == pytest.approx(
            0.35 * of["weights"]["all"], rel=0.05
        )
        # Both tasks have one mask, and so it shares all of itself.
        assert of["methods"]["control"]["overlap_error"]["mean"] == pytest.approx(
            1 - of["weights"]["overlap"], abs=1e-6
        )
    assert len(stored["checks"]) == 1 + 2 * 2
    titles = [table.title for table in reports.tables(stored)]
    assert "Modules found among sparse circuits" in titles
    assert len(draw_all(stored, tmp_path)) == 1


def test_the_truth_measures_one_and_what_is_zero_is_not_there(key):
    networks = experiment.make_networks(TINY, "dense", jax.random.split(key, 2), None, False)
    truth = networks.truth
    of = experiment.measure(networks, truth)
    assert [of[name]["runs"] for name in ("precision", "recall", "f1", "accuracy")] == [[1, 1]] * 4
    assert of["overlap_error"]["mean"] == of["twins"]["mean"] == 0
    for task in experiment.ASKED:
        for m, w in zip(jax.tree.leaves(truth[task]), jax.tree.leaves(networks.params), strict=True):
            assert not (m & (w == 0)).any()


def test_masks_of_the_same_size_are_the_highest_where_something_is():
    truth = {"w": jnp.array([[[True, False, True]], [[False, False, True]]])}
    scores = {"w": jnp.array([[[0.1, 0.3, 0.2]], [[0.5, 0.9, 0.7]]])}
    np.testing.assert_array_equal(
        experiment.same_size(truth, scores)["w"], [[[False, True, True]], [[False, True, False]]]
    )
    there = {"w": jnp.array([True, False] * 50)}
    random = np.asarray(experiment.noise_over(jax.random.key(0), there)["w"])
    assert (random[1::2] == -1).all() and (random[::2] >= 0).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kinds": ("thin",)}, "kinds='thin': expected one of dense, sparse"),
        ({"kinds": ()}, "kinds=''"),
        ({"estimators": ("edge_popup",) * 2}, "estimators=edge_popup,edge_popup: expected each of them once"),
        ({"hidden": ()}, "hidden"),
        ({"twins": -1}, "twins=-1: expected 0 or more"),
        ({"density": 1.5}, "density=1.5: expected a number above 0, at most 1"),
        ({"top_q": 0.0}, "top_q=0.0: expected a number above 0"),
        ({"circuit_steps": 0}, "steps must be a positive integer, got 0"),
        ({"circuit_steps": 10**9}, "more than 2\\*\\*32 examples"),
        ({"sparsity": 1.0}, r"end must be in \[0, 1\), got 1.0"),
        ({"num_samples": 3}, "num_samples=3 does not divide batch_size=128"),
        ({"gumbel_beta": -1.0}, "beta must be zero or more"),
    ],
)
def test_impossible_values_are_refused_before_any_work(values, message):
    with pytest.raises(ValueError, match=message):
        experiment.validate(dataclasses.replace(experiment.Config(), **values))


@pytest.mark.parametrize("preset", experiment.PRESETS)
def test_presets_are_possible(preset):
    experiment.validate(experiment.PRESETS[preset])
