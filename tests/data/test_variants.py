"""Random images, mixtures against their definition, and every name that `load_dataset` knows."""

import hashlib

import numpy as np
import pytest
from scipy import stats

from jaxmod.data import grey, images, variants
from jaxmod.data.images import Images
from jaxmod.data.lines import lines
from jaxmod.data.variants import DATASETS, load_dataset, mixture, random_images
from tests.data.stored import fake_arrays, idx_bytes


def numbered(start, train, test):
    """Returns images that are their own number in all pixels, labels in turn from 0 to 9."""
    splits = []
    for size in (train, test):
        number = np.arange(start, start + size)
        x = np.broadcast_to(number[:, None, None], (size, 4, 4)).astype(np.uint8)
        splits += [x, (number % 10).astype(np.int32)]
    return Images(*splits, source=f"from {start}")


def test_random_images_are_uniform():
    drawn = random_images(2000, 100)
    assert drawn.x_train.shape == (2000, 28, 28)
    assert drawn.x_test.shape == (100, 28, 28)
    assert drawn.x_train.dtype == np.uint8
    assert drawn.y_train.dtype == np.int32
    assert stats.chisquare(np.bincount(drawn.x_train.ravel(), minlength=256)).pvalue > 1e-3
    assert stats.chisquare(np.bincount(drawn.y_train, minlength=10)).pvalue > 1e-3
    # Nothing to learn: the mean images of the classes differ by chance only.
    means = [drawn.x_train[drawn.y_train == label].mean() for label in range(10)]
    np.testing.assert_allclose(means, 127.5, atol=1.5)


def test_random_images_are_fixed_by_the_seed():
    a, b = random_images(20, 10), random_images(20, 10)
    for x, y in zip(a[:4], b[:4], strict=True):
        np.testing.assert_array_equal(x, y)
    assert (random_images(20, 10, seed=1).x_train != a.x_train).any()
    assert a.x_train[0, 0, :8].tolist() == [61, 41, 83, 163, 251, 253, 34, 203]
    assert a.y_train[:12].tolist() == [6, 7, 8, 5, 2, 7, 3, 9, 6, 9, 9, 8]
    assert hashlib.md5(a.x_test.tobytes()).hexdigest() == "61be1b36635599d2a5f2040da52ec33d"
    with pytest.raises(ValueError, match="at least 1, got 5 and 0"):
        random_images(5, 0)


@pytest.mark.parametrize("separate", [False, True])
def test_mixtures_hold_each_example_that_they_should_once(separate):
    first, second = numbered(0, 60, 20), numbered(100, 80, 30)
    mixed = mixture(first, second, separate)
    for split in ("train", "test"):
        x, y = getattr(mixed, f"x_{split}"), getattr(mixed, f"y_{split}")
        number = x[:, 0, 0].astype(int)
        assert x.dtype == np.uint8
        assert y.dtype == np.int32
        np.testing.assert_array_equal(y, number % 10)  # each keeps its label
        expected = []
        for part, kept in ((first, range(5)), (second, range(5, 10))):
            labels = getattr(part, f"y_{split}").tolist()
            numbers = getattr(part, f"x_{split}")[:, 0, 0].tolist()
            expected += [n for n, label in zip(numbers, labels, strict=True) if not separate or label in kept]
        assert sorted(number.tolist()) == expected
        assert number.tolist() != expected
    assert (
        mixed.source == f"from 0 and from 100, {'separate' if separate else 'overlapping'} classes, seed 42"
    )


def test_the_order_of_mixtures_is_fixed_by_the_seed_and_uniform():
    parts = numbered(0, 10, 10), numbered(100, 10, 10)
    assert mixture(*parts, separate=False).x_train[:8, 0, 0].tolist() == [8, 104, 3, 106, 0, 102, 105, 109]
    assert (mixture(*parts, separate=False, seed=1).x_train != mixture(*parts, separate=False).x_train).any()
    orders = np.array([mixture(*parts, separate=False, seed=s).x_train[:, 0, 0] for s in range(1000)])
    assert stats.chisquare((orders < 100).sum(0)).pvalue > 1e-3
    train, test = (mixture(*parts, separate=False)[i] for i in (0, 2))
    assert (train != test).any()


def test_images_of_two_sizes_are_not_mixed():
    with pytest.raises(ValueError, match=r"one size, got \[4, 4\] \(from 0\) and \[28, 28\] \(lines"):
        mixture(numbered(0, 10, 10), lines(5, 5), separate=False)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of made-up data sets; what is generated is small as well."""
    for name in ("mnist", "fashion_mnist", "cifar10"):
        arrays = fake_arrays(name)
        np.savez(tmp_path / f"{name}.npz", **arrays)
        if name in images._MD5:
            expected = {n: hashlib.md5(idx_bytes(a)).hexdigest() for n, a in arrays.items()}
            monkeypatch.setitem(images._MD5, name, expected)
    monkeypatch.setattr(variants, "lines", lambda seed: lines(50, 30, seed))
    monkeypatch.setattr(variants, "random_images", lambda seed: random_images(50, 30, seed))
    return tmp_path


def test_all_data_sets_are_known():
    assert len(set(DATASETS)) == len(DATASETS) == 12
    assert {"digits", "random", "lines-mnist", "lines-mnist-sep", "mnist-cifar10-sep"} < set(DATASETS)


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_loads(folder, name):
    found = load_dataset(name, folder)
    side = 8 if name == "digits" else 28
    for x, y in ((found.x_train, found.y_train), (found.x_test, found.y_test)):
        assert x.shape == (len(y), side, side)
        assert x.dtype == np.uint8
        assert y.dtype == np.int32
        assert x.flags.c_contiguous
    sizes = {"digits": 1497, "random": 50, "lines": 50, "mnist-cifar10": 80, "mnist-cifar10-sep": 40}
    if name in sizes:
        assert len(found.y_train) == sizes[name]
    if name.startswith("lines-") and not name.endswith("-sep"):
        assert len(found.y_train) == 90
    assert ("cifar10" in name) == ("as 28x28 grey" in found.source) == ("not the original" in found.source)
    assert ("separate" in found.source) == name.endswith("-sep")
    assert str(folder) not in found.source
    files = [
        f"{part}.npz" for part in name.removesuffix("-sep").split("-") if (folder / f"{part}.npz").exists()
    ]
    assert found.path == " and ".join(str(folder / file) for file in files)


def test_parts_of_a_mixture_are_the_data_sets_themselves(folder):
    parts = load_dataset("lines", folder, seed=3), load_dataset("cifar10", folder, seed=3)
    got, expected = load_dataset("lines-cifar10-sep", folder, seed=3), mixture(*parts, separate=True, seed=3)
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(parts[1].x_test, grey.grey_28(fake_arrays("cifar10")["x_test"]))


def test_the_seed_changes_what_is_drawn_only(folder):
    for name, changes in (("mnist", False), ("digits", False), ("random", True), ("lines", True)):
        a, b = load_dataset(name, folder, seed=1), load_dataset(name, folder, seed=2)
        assert (a.y_train != b.y_train).any() == changes


@pytest.mark.parametrize("name", ["svhn", "mnist-lines", "digits-sep", "-sep", ""])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(ValueError, match="dataset must be one of digits, mnist, .*mnist-cifar10-sep, got "):
        load_dataset(name)


def test_a_part_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path / "tfds"))
    with pytest.raises(FileNotFoundError, match="mnist is not on this computer"):
        load_dataset("lines-mnist", tmp_path)
