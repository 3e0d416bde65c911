"""The experiment on the Mathematics Dataset at toy size: the whole chain, resumed, and what is said of it."""

import dataclasses
import re
import shutil

import jax
import numpy as np
import pytest

import jaxmod as jm
from experiments import mathematics as experiment
from jaxmod import cli, figures, reports, trees
from jaxmod.data import mathematics, mathematics_generator
from jaxmod.data.mathematics import VOCABULARY
from jaxmod.language import networks
from jaxmod.train.axes import Axes

TINY = experiment.Config(
    task=("sort",),
    count=40,
    held_out=8,
    entropy=(1.0, 4.0),
    features=8,
    feed_forward=8,
    heads=2,
    layers=1,
    seeds=2,
    network_steps=2,
    batch_size=8,
    mask_steps=2,
    mask_learning_rate=1.2,
    mask_batch_size=8,
    num_samples=1,
    buckets=2,
    chunk_steps=2,
    eval_examples=4,
)


@pytest.fixture(scope="module", autouse=True)
def data_dir(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXMOD_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mathematics")
    with jm.Workdir.open(folder, {"experiment": "mathematics"}) as workdir:
        found = experiment.run(TINY, workdir)
        shutil.rmtree(folder / "parts")  # masks are there: what is measured is the same
        assert experiment.run(TINY, workdir) == found
    assert (folder / "masks.npz").exists()
    return found | {"experiment": "mathematics"}


def test_each_task_is_studied_at_each_difficulty(results):
    found = results["mathematics"]["tasks"]["sort"]
    assert set(found["accuracy"]) == {"no mask", "control", "easy"}
    assert list(found["accuracy"]["easy"])[:3] == ["easy", "medium", "hard"]
    assert len(found["accuracy"]["easy"]["hard"]["runs"]) == 2
    assert found["layers"][0] == "encoder 0 self attention"
    kept = found["density"]["control"]["total"]["mean"]
    assert 0 < kept < 1
    shares = found["sharing"]["remaining"]["total"]
    assert 0 < shares["shared"]["mean"] <= 1
    assert set(results["mathematics"]["examples"]) == set(experiment.SETTINGS)
    question, answer = results["mathematics"]["examples"]["sort"]
    assert sorted(re.findall(r"-?\d+", question)) == sorted(re.findall(r"-?\d+", answer))


def test_it_can_be_shown(results, tmp_path):
    assert "sort: the easy mask is lower on hard questions" in reports.summary(results)
    # Untrained masks break nothing: a question is put in, to be drawn.
    results["mathematics"]["tasks"]["sort"]["broken"].append(
        {"question": "Sort 21, 3, -1.", "expected": "-1, 3, 21", "easy mask": ""}
    )
    paths = figures.draw_all(results, tmp_path)
    assert {p.stem for p in paths.values()} == {
        "fig05_hard",
        "levels",
        "remaining",
        "fig17_examples",
        "broken",
    }
    assert all(path.stat().st_size > 5000 for path in paths.values())


def fake_data():
    """Returns data with three questions of each difficulty held out; only the hard ones have many digits."""
    sizes = {"easy": (1, 2, 2, 2), "medium": (2, 3, 3, 3), "hard": (2, 4, 5, 6)}
    texts = [
        [(f"{level} {'abcd'[i]} {'1' * size}", "z") for i, size in enumerate(of)]
        for level, of in sizes.items()
    ]
    return mathematics._split(texts, 3, "made up")


def test_accuracies_by_difficulty_and_what_breaks():
    data = fake_data()
    questions = mathematics.text_of(data.valid["source"], data.valid["source_length"])
    assert data.easy_range == 2 and len(questions) == 9
    hard = data.valid_level == 2
    right = {
        "no mask": np.ones((2, 9), bool),
        "control": np.stack([data.valid_level != 1, np.ones(9, bool)]),
        "easy": np.stack([data.valid_level == 0] * 2),
    }
    end = len(VOCABULARY)
    given = {name: np.full((2, 9, 3), end, np.uint8) for name in right}
    given["easy"][:, :, 0] = VOCABULARY.index("q")
    found = experiment.describe_answers(data, given, right)
    accuracy = found["accuracy"]
    assert accuracy["control"]["medium"]["runs"] == [0, 1]
    assert accuracy["easy"]["easy"]["mean"] == 1 and accuracy["easy"]["hard"]["mean"] == 0
    beyond = [sum(c.isdigit() for c in q) > 2 for q, h in zip(questions, hard, strict=True) if h]
    assert any(beyond) and accuracy["no mask"]["hard beyond easy"]["mean"] == 1
    assert found["broken"] and all(row["question"].startswith("hard") for row in found["broken"])
    assert {row["easy mask"] for row in found["broken"]} == {"q"}
    first = np.flatnonzero(hard)[0]
    assert experiment.example_questions({"sort": data})["sort"] == [questions[first], "z"]


def test_masks_are_trained_on_their_questions():
    data = mathematics.load_mathematics("sort", TINY.count, TINY.held_out, entropy=(1.0, 4.0))
    own = experiment.of_task(dataclasses.replace(TINY, buckets=1), "sort")
    pool, tasks, _ = experiment.make_tasks(own, data)
    assert pool is data.train and len(tasks["control"]) == len(data.train_level)
    assert (data.train_level[tasks["easy"]] == 0).all() and (data.train_level == 0).sum() == len(
        tasks["easy"]
    )
    pool, drawn, _ = experiment.make_tasks(dataclasses.replace(own, buckets=2), data)
    assert list(drawn) == ["control", "easy"]
    control, easy = np.split(np.arange(len(pool["source"])), [len(tasks["control"])])
    for part in ("source", "target"):
        assert sorted(pool[part][control].tolist()) == sorted(data.train[part][tasks["control"]].tolist())
        assert sorted(pool[part][easy].tolist()) == sorted(data.train[part][tasks["easy"]].tolist())
    assert experiment.mask_config(dataclasses.replace(own, buckets=2)).axes == Axes("unroll", "map")


def test_another_seed_of_the_networks_keeps_the_questions():
    plain, again, other = (
        experiment.load_questions(dataclasses.replace(TINY, **changes), "sort", progress=False)
        for changes in ({}, {"seed": 3}, {"data_seed": 5})
    )
    np.testing.assert_array_equal(plain.train["source"], again.train["source"])
    assert (
        plain.train["source"].shape != other.train["source"].shape
        or (plain.train["source"] != other.train["source"]).any()
    )


def test_what_is_wrong_with_the_last_task_is_said_before_any_training(monkeypatch):
    monkeypatch.setattr(jm, "train_network", lambda *_, **__: pytest.fail("trained"))
    few = dataclasses.replace(TINY, task=("sort", "add_or_sub"), entropy=(0.1, 0.4), count=60, held_out=59)
    experiment.validate(few)
    with pytest.raises(cli.Refused, match=r"held_out=59 of .* different \w+ questions"):
        experiment.run(few)


def test_without_the_packages_only_studied_tasks_have_examples(monkeypatch):
    def broken(*_):
        raise ValueError("does not work")

    monkeypatch.setattr(mathematics_generator, "_samplers", broken)
    assert list(experiment.example_questions({"sort": fake_data()})) == ["sort"]


@pytest.mark.parametrize(
    ("task", "batches", "beta", "steps", "rate", "warmup"),
    [
        ("add_or_sub", (256, 256), 2e-5, (30_000, 30_000), 0.03, 0),
        ("linear_1d", (512, 400), 1e-6, (200_000, 50_000), 0.02, 5_000),
        ("differentiate", (128, 128), 1e-5, (40_000, 40_000), 0.03, 0),
        ("sort", (256, 256), 3e-6, (30_000, 30_000), 0.03, 0),
        ("collect", (128, 256), 1e-6, (200_000, 50_000), 0.02, 5_000),
    ],
)
def test_table_1(task, batches, beta, steps, rate, warmup):
    own = experiment.of_task(experiment.PRESETS["paper"], task)
    how = experiment.mask_config(own)
    assert (own.batch_size, how.batch_size, how.beta) == (*batches, beta)
    assert (own.network_steps, how.steps, how.learning_rate, own.warmup) == (*steps, rate, warmup)
    assert (how.num_samples, how.clip_norm, own.network_learning_rate) == (8, 1.0, 1e-4)


def test_the_presets_of_paper_and_code():
    own = experiment.of_task(experiment.PRESETS["paper"], "linear_1d")
    assert (own.batch_size, own.mask_batch_size, own.warmup) == (512, 400, 5000)
    assert experiment.mask_config(own).beta == 1e-6
    large = experiment.of_task(experiment.PRESETS["large"], "linear_1d")
    config = experiment.mask_config(large)
    assert config.beta / config.batch_size == pytest.approx(1e-6 / 512)  # the code's alpha
    assert config.num_samples == 8 and config.clip_norm == 0.1
    given = experiment.of_task(dataclasses.replace(experiment.PRESETS["paper"], network_steps=7), "sort")
    assert given.network_steps == 7 and given.mask_steps == 30_000


@pytest.mark.parametrize(
    ("preset", "weights"), [("paper", 3_939_840), ("large", 44_070_912)], ids=["paper", "large"]
)
def test_networks_have_the_papers_masked_weights(preset, weights):
    config = experiment.PRESETS[preset]
    functions = networks.make_functions(experiment.make_model(config))
    params = jax.eval_shape(functions.init, jax.random.key(0))
    paths = trees.paths_and_leaves(params)
    assert sum(leaf.size for path, leaf in paths if re.fullmatch(functions.where, path)) == weights


@pytest.mark.parametrize("preset", experiment.PRESETS)
@pytest.mark.parametrize("task", experiment.SETTINGS)
def test_presets_are_valid_for_every_task(preset, task):
    experiment.validate(dataclasses.replace(experiment.PRESETS[preset], task=(task,)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": ("sums",)}, "task='sums': expected one of add_or_sub"),
        ({"task": ()}, "task=: expected one or more different tasks"),
        ({"task": ("sort", "sort")}, "task=sort,sort: expected one or more different"),
        ({"entropy": (3.0,)}, "entropy=.*: expected nothing, or two numbers"),
        ({"entropy": (3.0, 2.0)}, "the second one larger"),
        ({"held_out": 40}, "held_out=40 of 40 questions"),
        ({"entropy": (3.0, float("inf"))}, "expected nothing, or two numbers"),
        (
            {"task": ("linear_1d",), "entropy": (60.0, 90.0)},
            "linear_1d has no hard questions of entropy=60,90",
        ),
        ({"num_samples": 3}, "num_samples=3 does not divide mask_batch_size=8"),
        ({"mask_batch_size": 0}, "mask_batch_size=0: expected a number above 0"),
        ({"features": 9}, "features=9 must be even"),
        ({"warmup": -1}, "warmup=-1"),
        ({"data_seed": -1}, "data_seed=-1: expected 0 or more"),
        ({"buckets": 0}, "buckets=0"),
        ({"top_q": 0.1}, "top_q=0.1 does not go with estimator=gumbel_sigmoid"),
    ],
)
def test_values_that_cannot_work_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        experiment.validate(dataclasses.replace(TINY, **changes))


def test_questions_that_cannot_be_made_are_missed_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXMOD_DATA", str(tmp_path))
    monkeypatch.setattr(mathematics_generator, "versions", lambda: None)
    mathematics_generator._package.cache_clear()
    mathematics_generator._samplers.cache_clear()
    with pytest.raises(ValueError, match=r"pip install 'jaxmod\[mathematics\]'"):
        experiment.validate(TINY)
    monkeypatch.setenv("JAXMOD_DATA", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="which is not a folder"):
        experiment.validate(TINY)
