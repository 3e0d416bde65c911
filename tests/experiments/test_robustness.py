"""Every study on a tiny network: the form of its results, and numbers found in another way."""

import dataclasses
import functools
import json
import warnings

import jax
import numpy as np
import pytest

import jaxmod as jm
from experiments import robustness
from jaxmod import figures, reports
from jaxmod.data.arithmetic import load_addmul

TINY = robustness.Config(
    hidden=(8,),
    betas=(1e-4, 0.3, 1e4),
    sizes=("mini",),
    temperatures=(0.5,),
    learning_rates=(1e-3, 0.5),
    step_counts=(3, 6),
    sample_counts=(1, 2),
    lstm_sizes=(3,),
    seeds=2,
    network_steps=6,
    mask_steps=6,
    mask_learning_rate=0.5,
    batch_size=8,
    num_samples=1,
    chunk_steps=3,
    noise_draws=4,
)
MEASURED = {"control accuracy", "own accuracy", "other accuracy", "total sharing", "sharing by chance"}
STATISTICS = {
    "beta": {"network accuracy", "control density"} | MEASURED,
    "size": {"network accuracy"} | MEASURED,
    "histogram": {"control accuracy", "control density"},
    "temperature": {"control density"} | MEASURED,
    "learning_rate": {"control density"} | MEASURED,
    "steps": {"control density"} | MEASURED,
    "samples": {"relative variance before training", "relative variance after training"},
    "rao_blackwell": {"control accuracy", "own accuracy", "total sharing", "relative steps to the same loss"}
    | {f"relative variance {when} training" for when in ("before", "after")},
    "lstm_hidden": {f"{n} accuracy, {t}" for n in ("network", "control") for t in ("seen", "new")},
}
VALUES = {
    "beta": TINY.betas,
    "size": TINY.sizes,
    "histogram": ("sampled", "thresholded"),
    "temperature": TINY.temperatures,
    "learning_rate": TINY.learning_rates,
    "steps": TINY.step_counts,
    "samples": TINY.sample_counts,
    "rao_blackwell": ("straight-through", "Rao-Blackwell"),
    "lstm_hidden": TINY.lstm_sizes,
}


@pytest.fixture(autouse=True)
def small_world(monkeypatch):
    monkeypatch.setattr(robustness, "load_addmul", lambda split: load_addmul(split, 1000))
    monkeypatch.setitem(robustness.SIZES, "mini", (8,))


def run(study, workdir=None, **changes):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*keeps no weight")  # masks of 8 units may well be empty
        return robustness.run(dataclasses.replace(TINY, study=study, **changes), workdir)


@functools.cache
def results_of(study):
    """Compiling takes seconds, so the tests share the results of a study; they are the same every time."""
    return json.loads(json.dumps({"experiment": "robustness", "preset": "tiny", **run(study)}))


# These are as that of the learning rate: another number of the config.
ALIKE = ("size", "steps", "temperature")


@pytest.mark.parametrize(
    "study", [pytest.param(x, marks=pytest.mark.slow if x in ALIKE else ()) for x in robustness.STUDIES]
)
def test_results_have_the_form_that_figures_and_report_read(study, tmp_path):
    results = results_of(study)
    assert results["study"] == study
    assert results["model"] == ("lstm" if study == "lstm_hidden" else "fnn")
    assert tuple(point["value"] for point in results["points"]) == VALUES[study]
    for point in results["points"]:
        stats = {name: value for name, value in point.items() if name != "value"}
        assert set(stats) == STATISTICS[study]
        for name, stat in stats.items():
            assert stat == reports.stat(stat["runs"])
            assert len(stat["runs"]) == TINY.seeds
            assert min(stat["runs"]) >= 0
            assert not reports.is_share(name) or max(stat["runs"]) <= 1
    assert all(type(row["holds"]) is bool for row in results["checks"])
    assert reports.summary(results)
    paths = figures.draw_all(results, tmp_path)
    assert len(paths) == 2 if study == "histogram" else 1
    assert all(path.stat().st_size > 0 for path in paths.values())


def test_a_point_of_the_beta_study_is_the_same_when_found_alone():
    assert run("beta", betas=(0.3,))["points"] == results_of("beta")["points"][1:2]


def test_the_strongest_penalty_takes_every_weight():
    # A step of Adam is 0.5 down, whatever the loss: from the initial logit 2 to -1 in 6 steps.
    weak, medium, strong = (point["control density"]["mean"] for point in results_of("beta")["points"])
    assert weak != medium
    assert strong == 0


def test_sharing_is_that_of_the_masks_found():
    config = dataclasses.replace(TINY, study="temperature")
    keys = jax.random.split(jax.random.key(0), 2)
    train, valid = (jax.tree.map(jax.numpy.asarray, load_addmul(split, 1000)) for split in ("train", "valid"))
    lab = robustness.Lab(config, keys, train, valid, None, False)
    networks = robustness.train_networks(lab)
    found = robustness.find_masks(lab.changed(temperature=0.5), networks)
    point = results_of("temperature")["points"][0]
    for i in range(TINY.seeds):
        add, mul = (
            np.concatenate([np.ravel(m[i]) for m in jax.tree.leaves(found[name].mask)])
            for name in ("add", "mul")
        )
        np.testing.assert_allclose(
            point["total sharing"]["runs"][i], (add & mul).sum() / add.sum(), rtol=1e-6
        )
        module = jm.apply_mask(networks.params, found["control"].mask)
        right = networks.evaluate(jax.tree.map(lambda x, i=i: x[i], module), lab.valid)["accuracy"]
        np.testing.assert_allclose(point["control accuracy"]["runs"][i], np.mean(right), rtol=1e-6)


def test_the_histogram_counts_every_weight_and_agrees_with_the_density():
    results = results_of("histogram")
    counts, weights = np.array(results["histogram"]["counts"]), TINY.seeds * (42 * 8 + 8 * 20)
    assert counts.sum() == weights
    sampled, thresholded = (point["control density"]["mean"] for point in results["points"])
    assert counts[250:].sum() / weights == pytest.approx(thresholded, abs=1e-6)
    assert counts @ (np.arange(500) + 0.5) / 500 / weights == pytest.approx(sampled, abs=1e-3)


def test_variance_is_relative_to_one_sample():
    one, two = results_of("samples")["points"]
    assert one["relative variance before training"]["runs"] == [1, 1]
    assert 0 < two["relative variance before training"]["mean"] < 1.5


def test_the_mean_slope_is_compared_with_the_plain_estimator():
    plain, averaged = results_of("rao_blackwell")["points"]
    for when in ("before", "after"):
        name = f"relative variance {when} training"
        assert plain[name]["runs"] == [1, 1]
        assert 0 < averaged[name]["mean"] != 1
    assert plain["total sharing"] != averaged["total sharing"]


def test_steps_to_the_same_loss():
    slow, fast = np.array([[4.0, 3.0, 2.0, 1.0]]), np.array([[3.5, 2.5, 1.0, 1.0]])
    never = np.array([[9.0, 8.0, 7.0, 6.0]])
    at_once = np.array([[1.0, 1.0, 1.0, 1.0]])
    # The first is down to 3 after 2 chunks; the second half-way through its second chunk.
    steps = robustness.relative_steps([slow, fast, never, at_once])
    np.testing.assert_allclose(np.concatenate(steps), [1.0, 1.5 / 2, 4 / 2, 1 / 2])
    uneven = np.array([[4.0, 2.0, 3.0, 1.0, 1.0, 1.0]])  # down to its level of chunk 3 after chunk 2
    np.testing.assert_allclose(robustness.relative_steps([uneven, uneven]), 1)


@pytest.mark.slow
def test_a_study_that_was_stopped_goes_on_to_the_same_results(tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stop(*_):
        raise Stop

    with monkeypatch.context() as patch, jm.Workdir.open(tmp_path, {}) as workdir:
        patch.setattr(robustness, "measure", stop)
        with pytest.raises(Stop):
            run("steps", workdir)
    stages = {path.name for path in (tmp_path / "checkpoints").iterdir() if path.is_dir()}
    assert stages == {"network", "masks, mask_steps 3"}
    with jm.Workdir.open(tmp_path, {}) as workdir:
        assert run("steps", workdir)["points"] == results_of("steps")["points"]


def test_a_tenth_of_the_problems_is_held_out_whichever_operand_is_first():
    data = load_addmul("valid", 20_000)
    new = robustness.held_out(data)
    assert 0.08 < new.mean() < 0.12
    swapped = {**data, "digits": data["digits"][:, [2, 3, 0, 1]]}
    np.testing.assert_array_equal(robustness.held_out(swapped), new)
    other = {**data, "op": 1 - data["op"]}
    assert (robustness.held_out(other) != new).any()


@pytest.mark.parametrize("preset", robustness.PRESETS)
def test_presets_are_valid(preset):
    robustness.validate(robustness.PRESETS[preset])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"study": "betas"}, "study='betas': expected one of beta,"),
        ({"model": "cnn"}, "model='cnn': expected one of fnn, lstm"),
        ({"sizes": ("small", "tall")}, "sizes='tall': expected one of small,"),
        ({"sizes": ()}, "sizes=''"),
        ({"betas": (0.0,)}, "betas=0.0: expected one or more numbers above 0"),
        ({"temperatures": ()}, "temperatures=: expected one or more numbers above 0"),
        ({"sample_counts": (1, 3)}, "num_samples=3 does not divide batch_size=8"),
        ({"study": "rao_blackwell", "temperature": 2.0}, "closed form for temperature 1 only, got 2.0"),
        ({"rao_blackwell": True, "temperature": 2.0}, "closed form for temperature 1 only, got 2.0"),
        ({"noise_draws": 1}, "noise_draws=1: expected 2 or more"),
        (
            {"study": "beta", "estimator": "edge_popup"},
            "study=beta varies what estimator=edge_popup does not have",
        ),
        ({"study": "histogram", "estimator": "hard_concrete"}, "study=histogram varies what .*hard_concrete"),
        ({"mask_steps": 0}, "steps must be a positive integer, got 0"),
    ],
)
def test_impossible_values_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        robustness.validate(dataclasses.replace(TINY, **changes))
