"""Class removal at toy size: the whole chain, resumed, and its statistics by hand."""

import dataclasses
import shutil

import numpy as np
import pytest

import jaxmod as jm
from experiments import class_removal
from jaxmod import figures, reports
from jaxmod.data.images import load_images
from jaxmod.vision import study

TINY = class_removal.Config(
    dataset="digits",
    channels=(4, 6),
    seeds=2,
    network_steps=30,
    network_learning_rate=1e-2,
    mask_steps=4,
    mask_learning_rate=0.7,
    mask_batch_size=64,
    batch_size=64,
    num_samples=2,
    chunk_steps=15,
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("removal")
    with jm.Workdir.open(folder, {"experiment": "class_removal"}) as workdir:
        found = class_removal.run(TINY, workdir)
        shutil.rmtree(folder / "parts")  # masks are there: what is measured is the same
        assert class_removal.run(TINY, workdir) == found
    assert (folder / "masks.npz").exists()
    return found | {"experiment": "class_removal"}


def test_every_class_is_left_out(results):
    found = results["removal"]
    assert found["classes"] == [str(c) for c in range(10)]
    assert len(found["differences"]) == len(found["drop"]) == len(found["remaining"]) == 10
    control = np.array(found["control"]["mean"])
    np.testing.assert_allclose(control.sum(axis=1), 100, rtol=1e-5)
    for of in found["differences"]:
        np.testing.assert_allclose(np.array(of["mean"]).sum(axis=1), 0, atol=1e-3)


def test_it_can_be_shown(results, tmp_path):
    assert "Classes left out" in reports.summary(results)
    paths = figures.draw_all(results, tmp_path)
    assert {"fig06_drops", "fig18_control", "fig19_differences"} <= {p.stem for p in paths.values()}
    assert all(path.stat().st_size > 5000 for path in paths.values())


@pytest.mark.slow
def test_a_resnet_is_masked_without_its_statistics(monkeypatch):
    images = load_images("digits")
    few = images._replace(x_train=images.x_train[:200], y_train=images.y_train[:200])
    monkeypatch.setattr(study, "load_images", lambda name: few)
    config = dataclasses.replace(
        TINY, architecture="resnet", blocks=1, seeds=1, network_steps=4, chunk_steps=4
    )
    found = class_removal.run(config)
    assert found["notes"] == ["digits of scikit-learn, judged by the test images."]
    assert found["removal"]["density"]["mean"] > 0


def measured(drop=(50.0, 5.0)):
    """Returns what is measured of one network that is right in 80 of 100 examples of each class."""
    control = np.full((10, 10), 20 / 9)
    np.fill_diagonal(control, 80)
    without = []
    for c in range(10):
        changed = control.copy()
        for j in range(10):
            lost = 0.8 * (drop[0] if j == c else drop[1])
            changed[j, j] -= lost
            changed[j, (j + 1) % 10] += lost
        without.append([changed.tolist()])
    return {
        **{"accuracy": [0.81], "control accuracy": [0.80], "density": [0.3], "control": [control.tolist()]},
        **{"without": without, "remaining": [[0.9]] * 10, "flips": [[]] * 10},
    }


def test_drops_are_relative_to_the_control():
    found = class_removal.describe(measured())
    for c in range(10):
        assert found["drop"][c]["mean"] == pytest.approx(50)
        assert found["others' drop"][c]["mean"] == pytest.approx(5)
        assert found["largest other drop"][c]["mean"] == pytest.approx(10)
        assert class_removal.taken_for(found, c) == (c + 1) % 10


@pytest.mark.parametrize(("drop", "holds"), [((50.0, 5.0), True), ((12.0, 5.0), False), ((0.0, 0.0), False)])
def test_what_is_said_of_the_drops(drop, holds):
    found = {"classes": list(map(str, range(10))), **class_removal.describe(measured(drop))}
    judged = class_removal.checks(found)
    assert judged[0]["holds"]  # 80 of 81
    assert judged[1]["holds"] == holds
    low = found | {"control accuracy": reports.stat([0.78])}
    assert not class_removal.checks(low)[0]["holds"]


def test_what_is_undefined_does_not_hold():
    given = measured()
    control = np.array(given["control"][0])
    control[3] = np.eye(10)[4] * 100  # never right
    found = {
        "classes": list(map(str, range(10))),
        **class_removal.describe(given | {"control": [control.tolist()]}),
    }
    judged = class_removal.checks(found)
    assert not judged[1]["holds"] and judged[1]["ours"].endswith("undefined: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9")
    gains = {"classes": list(map(str, range(10))), **class_removal.describe(measured((-10.0, 30.0)))}
    assert gains["largest other drop"] == [None] * 10
    assert not any(row["holds"] for row in class_removal.checks(gains)[1:])


def test_what_classes_of_cifar10_are_taken_for():
    found = {"classes": list(class_removal.CIFAR10), **class_removal.describe(measured())}
    judged = {row["check"]: row["holds"] for row in class_removal.checks(found)}
    # Each is taken for the next one: of these, only an airplane's next is not among those expected.
    assert not judged["without its weights, airplane is taken for bird or ship"]
    c, dog = (class_removal.CIFAR10.index(name) for name in ("cat", "dog"))
    row = found["differences"][c]["mean"][c]
    row[dog] = 99.0
    judged = {row["check"]: row["holds"] for row in class_removal.checks(found)}
    assert judged["without its weights, cat is taken for dog"]


def test_images_that_flip():
    valid = {"image": np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2, 1), "label": np.array([1] * 6)}
    control, without = np.array([1, 1, 1, 0, 1, 1]), np.array([1, 2, 1, 2, 3, 3])
    found = class_removal.flips(1, control, without, valid)
    assert [of["seen"] for of in found] == [2, 3, 3]
    assert class_removal.flips(0, control, without, valid) == []


@pytest.mark.parametrize("preset", class_removal.PRESETS)
def test_presets_are_valid_but_for_their_data(preset, monkeypatch):
    monkeypatch.setattr(study, "load_images", lambda name: load_images("digits"))
    config = dataclasses.replace(class_removal.PRESETS[preset], channels=(4, 4), blocks=1)
    class_removal.validate(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "cifar"}, "dataset='cifar': expected one of cifar10"),
        ({"architecture": "vgg"}, "architecture='vgg': expected one of"),
        ({"channels": (4,) * 5}, "SimpleCNN"),
        ({"architecture": "resnet", "network_learning_rate": 1e-3}, "a ResNet is trained by SGD"),
        ({"mask_steps": 0}, "steps must be a positive integer"),
        ({"num_samples": 3}, "num_samples=3 does not divide batch_size=64"),
        ({"mask_batch_size": 0}, "mask_batch_size=0: expected a number above 0"),
        ({"seeds": 0}, "seeds=0"),
        ({"convolution": "fft"}, "convolution='fft': expected one of auto, im2col, lax"),
        ({"mapped": ("batch",)}, "mapped='batch': expected one of samples, tasks, runs"),
        ({"top_q": 0.1}, "top_q=0.1 does not go with estimator=gumbel_sigmoid"),
    ],
)
def test_values_that_cannot_work_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        class_removal.validate(dataclasses.replace(TINY, **changes))


def test_samples_of_masks_need_not_divide_the_batch_of_the_networks():
    class_removal.validate(dataclasses.replace(TINY, batch_size=TINY.num_samples + 1))
