"""The robustness studies at toy size: every one runs, and its numbers are those of its masks."""

import dataclasses

import numpy as np
import pytest

from experiments import robustness as experiment
from jaxmod import files
from jaxmod.figures import draw_all

TINY = dataclasses.replace(
    experiment.PRESETS["quick"],
    hidden=(16, 12), lstm_hidden=8, betas=(1e-5, 1e-4, 10.0), temperatures=(0.5, 1.0), sample_counts=(1, 2),
    network_steps=10, mask_steps=4, batch_size=8, num_samples=2, chunk_steps=10, noise_draws=8,
)  # fmt: skip


def run(study, **values):
    return experiment.run(dataclasses.replace(TINY, study=study, **values))


@pytest.mark.filterwarnings("ignore:task .* keeps no weight")
def test_betas_are_runs_of_one_program_and_draw_figure_8(tmp_path):
    results = run("beta", mask_steps=250, chunk_steps=250)
    files.write_json(tmp_path / "results.json", results)
    assert results["parameter"] == "beta" and [p["value"] for p in results["points"]] == [1e-5, 1e-4, 10.0]
    sharing = [point["total sharing"]["mean"] for point in results["points"]]
    # From 2 to 0 takes 200 steps of 0.01: an overwhelming penalty leaves nothing to share.
    assert sharing[2] < 0.05 < sharing[0]
    assert len(results["checks"]) == 4
    assert draw_all({"experiment": "robustness", **results}, tmp_path)


def test_gradient_variance_falls_with_samples():
    results = run("samples", noise_draws=64)
    assert [point["value"] for point in results["points"]] == [1, 2]
    start = [point["relative variance before training"]["mean"] for point in results["points"]]
    assert start[0] == pytest.approx(1.0) and np.isfinite(start[1])


@pytest.mark.parametrize("preset", experiment.PRESETS)
@pytest.mark.parametrize("study", experiment.STUDIES)
def test_presets_are_possible(preset, study):
    experiment.validate(dataclasses.replace(experiment.PRESETS[preset], study=study))


def test_an_unknown_study_is_refused():
    with pytest.raises(ValueError, match="study='depth': expected one of"):
        experiment.validate(dataclasses.replace(TINY, study="depth"))
