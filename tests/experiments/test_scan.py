"""SCAN at toy size: the whole chain, resumed, and what is said of the numbers."""

import dataclasses
import itertools
import json
import shutil

import numpy as np
import pytest

import jaxmod as jm
from experiments import scan
from jaxmod import figures, reports
from jaxmod.data.scan import ACTIONS, interpret
from jaxmod.train.axes import Axes
from jaxmod.train.dense import Trained

TINY = scan.Config(
    without=("around", "thrice", "opposite", "look"),
    length_cut=4,
    embedding=3,
    lstm_hidden=5,
    lstm_layers=1,
    seeds=2,
    network_steps=4,
    network_decay=True,
    direct_steps=4,
    mask_steps=4,
    mask_learning_rate=0.7,
    batch_size=16,
    num_samples=1,
    chunk_steps=4,
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scan")
    with pytest.MonkeyPatch.context() as patch, jm.Workdir.open(folder, {"experiment": "scan"}) as workdir:
        # Two splits are enough, and compile in less time than three.
        patch.setattr(scan, "SPLITS", {name: scan.SPLITS[name] for name in ("jump", "length")})
        found = scan.run(TINY, workdir)
        shutil.rmtree(folder / "parts")  # networks and masks are there: what is measured is the same
        assert json.loads(json.dumps(scan.run(TINY, workdir))) == json.loads(json.dumps(found))
    assert (folder / "masks.npz").exists()
    return found | {"experiment": "scan"}


def test_everything_is_measured(results):
    found = results["scan"]
    tests = {"simple", "jump", "length"}
    masks = ["control", "jump", "length"]
    direct = [f"direct {split}" for split in masks[1:]]
    assert sorted(found["accuracy"]) == sorted(["network", *masks, *direct])
    assert all(set(row) == tests for row in found["accuracy"].values())
    assert all(len(s["runs"]) == 2 for row in found["accuracy"].values() for s in row.values())
    assert list(found["removed"]) == masks[1:] and found["tokens"] == [*ACTIONS, "END"]
    layers = ["encoder l0 ih", "encoder l0 hh", "decoder l0 ih", "decoder l0 hh", "output"]
    assert found["layers"] == layers
    assert set(found["learned"]) == set(found["accuracy"])
    assert found["templates"]["first"] == ["X", "X D"] and found["lengths"]["bins"][-1] == [8, 8]


def test_it_can_be_shown(results, tmp_path):
    assert "Accuracy on test parts" in reports.summary(results)
    paths = figures.draw_all(results, tmp_path)
    assert {p.stem for p in paths.values()} == {
        "fig04a_splits", "fig04b_removed", "fig16_direct", "exclusive", "lengths", "templates",
    }  # fmt: skip
    assert all(path.stat().st_size > 5000 for path in paths.values())


@pytest.fixture(scope="module")
def data():
    return scan.load_data(dataclasses.replace(TINY, buckets=1))


def test_answers_are_sorted_into_splits_lengths_and_templates(data):
    commands, rows = data.scan.commands, data.rows
    jump, length = (np.isin(np.arange(len(commands)), rows[name].test) for name in ("jump", "length"))
    right = {"network": np.stack([~jump, ~length]), "control": np.stack([~jump] * 2)}
    given = np.full((2, len(commands), 9), len(ACTIONS), np.uint8)
    masks = {split: np.zeros((2, len(commands)), bool) for split in scan.SPLITS}
    found = scan.describe_answers(data, {**{s: given for s in masks}}, {**right, **masks})
    of, learned = found["accuracy"]["network"], found["learned"]
    assert learned["jump"]["runs"] == [0, 0] and 0 < learned["network"]["runs"][0] < 1
    assert of["jump"]["runs"][0] == 0 and of["length"]["runs"][1] == 0 and of["turn_left"]["runs"][1] > 0
    by_length = zip(found["lengths"]["bins"], found["lengths"]["accuracy"]["network"], strict=True)
    second = {first: of["runs"][1] for (first, last), of in by_length if of}
    assert second == {size: float(size <= 4) for size in (1, 2, 3, 4, 5, 6, 8)}  # no command has 7
    grid = found["templates"]["accuracy"]["control"]
    plain = [i for i, command in enumerate(commands) if scan.scan.template(command) == ("X", "alone")]
    assert grid[0][0]["runs"] == pytest.approx([(~jump)[plain].mean()] * 2)
    for split, examples in found["broken"].items():
        assert examples or split == "jump"  # the control gets none of these right
        for example in examples:
            assert example["expected"] == interpret(example["command"]) and example["got"] == ""


def test_accuracy_by_length_is_of_bins_that_meet_the_cut(data, monkeypatch):
    monkeypatch.setattr(scan, "BINS", 3)
    right = {name: np.ones((1, len(data.scan.commands)), bool) for name in ("control", *scan.SPLITS)}
    given = dict.fromkeys(scan.SPLITS, np.zeros((1, len(data.scan.commands), 9), np.uint8))
    found = scan.describe_answers(data, given, right)
    assert found["lengths"]["bins"] == [(1, 1), (2, 4), (5, 7), (8, 8)]


def test_each_mask_is_trained_on_what_its_split_leaves(data):
    assert list(data.tasks) == ["control", *scan.SPLITS]
    length = data.scan.examples["target_length"]
    assert length[data.tasks["length"]].max() <= TINY.length_cut < length[data.rows["length"].test].min()
    commands = {name: {data.scan.commands[row] for row in rows} for name, rows in data.tasks.items()}
    assert [c for c in commands["jump"] if "jump" in c.split()] == ["jump"]
    assert [c for c in commands["turn_left"] if "turn left " in f"{c} "] == ["turn left"]
    np.testing.assert_array_equal(data.tasks["control"], data.rows["simple"].train)
    assert {name: scan.trained_on(name) for name in ("network", "control", "jump", "direct length")} == {
        "network": "simple", "control": "simple", "jump": "jump", "direct length": "length",
    }  # fmt: skip


def test_buckets_keep_the_commands_of_each_task(data):
    inside = scan.load_data(dataclasses.replace(TINY, buckets=2))
    assert list(inside.tasks) == list(data.tasks)
    start = 0
    for rows in data.tasks.values():
        end = start + len(rows)
        for part in ("source", "target"):
            found, expected = inside.pool[part][start:end], data.pool[part][rows]
            assert sorted(found.tolist()) == sorted(expected.tolist())
        start = end
    assert start == len(inside.pool["source"])


def test_no_bucket_is_computed_in_vain():
    """With tasks or samples vmapped, every bucket would be."""
    axes = [scan.mask_config(dataclasses.replace(TINY, buckets=count)).axes for count in (1, 2)]
    assert axes == [Axes(), Axes("unroll", "map")]


def test_no_bin_of_lengths_has_both_sides_of_the_cut():
    examples = scan.scan.load_scan().examples
    length = examples["target_length"]
    bins, bin_of = scan.length_bins(length, 22)
    assert bins[:2] == [(1, 2), (3, 6)] and bins[-1] == (47, 48) and (19, 22) in bins
    assert [after[0] - first[1] for first, after in itertools.pairwise(bins)] == [1] * (len(bins) - 1)
    first, last = np.array(bins)[bin_of].T
    assert ((first <= length) & (length <= last)).all()


def test_another_seed_of_the_networks_keeps_the_commands(data):
    again, other = (scan.load_data(dataclasses.replace(TINY, **{s: 1})) for s in ("seed", "data_seed"))
    np.testing.assert_array_equal(again.rows["simple"].train, data.rows["simple"].train)
    assert not np.array_equal(other.rows["simple"].train, data.rows["simple"].train)


def test_what_masks_share_by_hand():
    """One layer, the output: ten inputs to seven tokens, one run; a mask is the inputs that it keeps."""

    def mask(rows):
        return {"output": {"kernel": np.isin(np.arange(10), rows)[None, :, None] & np.ones((1, 10, 7), bool)}}

    found = scan.describe_masks(
        {"control": mask([0, 1, 2, 3]), "turn_left": mask([0, 1]), "jump": mask([0, 4, 5, 6, 7]),
         "length": mask([8])}
    )  # fmt: skip

    def means(of):
        return {split: row["output"]["mean"] for split, row in of.items()}

    assert found["layers"] == ["output"] and found["density"]["jump"]["output"]["mean"] == 0.5
    assert means(found["remaining"]) == {"turn_left": 0.5, "jump": 0.25, "length": 0}
    assert means(found["exclusive"]) == {"turn_left": 0.5, "jump": 0.75, "length": 1}
    chance = {"turn_left": 0.2, "jump": 0.5, "length": 0.1}
    assert means(found["remaining by chance"]) == pytest.approx(chance)
    empty = scan.describe_masks({name: mask([]) for name in ("control", *scan.SPLITS)})
    assert means(empty["exclusive"]) == means(empty["remaining"]) == dict.fromkeys(scan.SPLITS, 0)
    # With the union of the other two: 6, 3 and 6 of the ten inputs.
    sharing = found["sharing"]
    assert [sharing[s]["shared"]["output"]["mean"] for s in scan.SPLITS] == [0.5, 0.2, 0]
    assert [sharing[s]["by chance"]["output"]["mean"] for s in scan.SPLITS] == pytest.approx([0.6, 0.3, 0.6])
    # Of what the control keeps too: turn_left {0, 1}, jump {0}, length nothing; the others {0}, {0, 1}, both.
    assert [sharing[s]["shared in control"]["mean"] for s in ("turn_left", "jump")] == [0.5, 1]
    assert [sharing[s]["by chance in control"]["mean"] for s in ("turn_left", "jump")] == [0.25, 0.5]
    removed = {split: {s["mean"] for s in row} for split, row in found["removed"].items()}
    assert removed == {"turn_left": {50}, "jump": {75}, "length": {100}}


def test_the_values_of_the_paper():
    paper = scan.PRESETS["paper"]
    assert (paper.network_steps, paper.direct_steps, paper.mask_steps) == (25_000,) * 3
    assert (paper.batch_size, paper.num_samples, paper.clip_norm, paper.seeds) == (256, 4, 5.0, 10)
    assert (paper.network_learning_rate, paper.mask_learning_rate, paper.buckets) == (1e-3, 1e-2, 1)


@pytest.mark.parametrize("preset", scan.PRESETS)
@pytest.mark.parametrize("model", scan.MODELS)
def test_presets_are_valid(preset, model):
    scan.validate(dataclasses.replace(scan.PRESETS[preset], model=model))


def test_beta_is_that_of_the_model():
    paper, code = scan.PRESETS["paper"], scan.PRESETS["code"]
    assert scan.mask_config(paper).beta == scan.mask_config(code).beta == 3e-5
    betas = [scan.mask_config(dataclasses.replace(of, model="transformer")).beta for of in (paper, code)]
    assert betas == [1e-3, 6e-4]
    assert not hasattr(paper, "beta")  # --config.beta is refused: it would say nothing of one of the models


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "gru"}, "model='gru': expected one of"),
        ({"source": "tfd"}, "source='tfd': expected one of tfds, grammar"),
        ({"without": ("hop",)}, "word to do without='hop'"),
        ({"length_cut": 9}, "split 'length' has no test commands"),
        ({"embedding": 0}, "embedding=0"),
        ({"lstm_dropout": 1.0}, "lstm_dropout=1.0: expected 0 or more, and below 1"),
        ({"model": "transformer", "embedding": 16, "features": 9}, "features=9 must be even"),
        ({"model": "transformer", "embedding": 200}, "embedding=200 does not go with model=transformer"),
        ({"direct_steps": -1}, "direct_steps=-1: expected 0 or more"),
        ({"data_seed": -1}, "data_seed=-1: expected 0 or more"),
        ({"buckets": 0}, "buckets=0"),
        ({"num_samples": 3}, "num_samples=3 does not divide batch_size=16"),
        ({"top_q": 0.1}, "top_q=0.1 does not go with estimator=gumbel_sigmoid"),
    ],
)
def test_values_that_cannot_work_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        scan.validate(dataclasses.replace(TINY, **changes))


def test_official_files_that_are_not_there_are_named_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="tfds build scan/simple"):
        scan.validate(dataclasses.replace(TINY, source="tfds"))


@pytest.mark.parametrize(("falls", "over"), [(True, [4, 3, 3, 3]), (False, [0, 0, 0, 0])])
def test_the_rate_of_each_network_falls_over_its_own_steps(falls, over, monkeypatch):
    """Of the network, then of one for each split, up to where they would answer."""

    class AnsweredError(Exception):
        pass

    def answers(*args):
        raise AnsweredError

    asked = []
    monkeypatch.setattr(scan.networks, "make_optimizer", lambda *args, decay: asked.append(decay))
    monkeypatch.setattr(scan.jm, "train_network", lambda *args, **given: Trained({}, {}, {}))
    monkeypatch.setattr(scan.jm, "find_modules", lambda *args, **given: {})
    monkeypatch.setattr(scan, "answers", answers)
    with pytest.raises(AnsweredError):
        scan.run(dataclasses.replace(TINY, network_decay=falls, direct_steps=3))
    assert asked == over
