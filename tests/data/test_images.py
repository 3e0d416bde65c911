"""Digits against scikit-learn; the checks of the others with made-up data."""

import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxmod.data import images, sources
from jaxmod.data.images import load_images
from tests.data.stored import fake_arrays, idx_bytes, prepare_tfds


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No place of this computer is looked at."""
    monkeypatch.delenv("JAXMOD_DATA", raising=False)
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(sources, "_DEBIAN_FASHION_MNIST", str(tmp_path / "debian"))


def save(folder, name, **changes):
    """Saves made-up data as `NAME.npz`, some arrays replaced; returns all arrays."""
    arrays = fake_arrays(name) | changes
    np.savez(folder / f"{name}.npz", **arrays)
    return arrays


def md5(content):
    return hashlib.md5(content).hexdigest()


def test_digits_are_split_by_class_and_complete():
    found, (x, y) = load_images("digits"), load_digits(return_X_y=True)
    assert found.x_train.shape == (1497, 8, 8)
    assert found.x_test.shape == (300, 8, 8)
    assert found.x_train.dtype == found.x_test.dtype == np.uint8
    assert found.y_train.dtype == found.y_test.dtype == np.int32
    assert found.x_train.max() == 255
    counts = np.bincount(y) / 6
    assert (np.abs(np.bincount(found.y_test) - counts) < 1).all()
    # Every image once, with its label: 16 levels stay apart as bytes.
    pixels = np.concatenate([found.x_train, found.x_test]).reshape(-1, 64)
    got = np.column_stack([np.rint(pixels * (16 / 255)), np.concatenate([found.y_train, found.y_test])])
    expected = np.column_stack([x, y])
    np.testing.assert_array_equal(got[np.lexsort(got.T)], expected[np.lexsort(expected.T)])


def test_digits_are_the_same_at_every_call():
    found = load_images("digits")
    assert found.y_train[:12].tolist() == [8, 9, 9, 2, 2, 2, 9, 1, 6, 3, 5, 5]
    assert found.y_test[:12].tolist() == [2, 4, 9, 7, 3, 1, 0, 2, 6, 9, 0, 8]
    assert md5(found.x_train.tobytes()) == "6497caa4b5aa105d7c45414934306a12"
    assert (found.source, found.path) == ("digits of scikit-learn", "")


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="one of digits, mnist, fashion_mnist, cifar10, got 'svhn'"):
        load_images("svhn")


def test_cifar10_copies_are_labelled(tmp_path, monkeypatch):
    arrays = save(tmp_path, "cifar10")
    found = load_images("cifar10", tmp_path)
    for name, array in arrays.items():
        np.testing.assert_array_equal(getattr(found, name), array)
    assert found.y_train.dtype == found.y_test.dtype == np.int32
    remark = " (not the original images: the sums of their channels differ)"
    assert (found.source, found.path) == (f"cifar10{remark}", str(tmp_path / "cifar10.npz"))
    sums = tuple(int(arrays["x_train"][..., channel].astype(int).sum()) for channel in range(3))
    monkeypatch.setattr(images, "_CIFAR10_SUMS", sums)
    assert load_images("cifar10", tmp_path).source == "cifar10"


def test_the_means_of_cifar10_are_those_that_are_published():
    means = np.array(images._CIFAR10_SUMS) / (50_000 * 32 * 32)
    assert means.tolist() == [125.306918046875, 122.950394140625, 113.86538318359375]


def test_files_are_checked_by_the_md5_of_each_array(tmp_path, monkeypatch):
    arrays = save(tmp_path, "mnist")
    with pytest.raises(
        ValueError, match="mnist.npz: x_train is not that of the original: md5 .* IDX"
    ) as caught:
        load_images("mnist", tmp_path)
    assert md5(idx_bytes(arrays["x_train"])) in str(caught.value)
    assert "expected 6bbc9ace898e44ae57da46a324031adb" in str(caught.value)
    expected = {name: md5(idx_bytes(array)) for name, array in arrays.items()}
    monkeypatch.setitem(images._MD5, "mnist", expected)
    assert load_images("mnist", tmp_path)[4:] == ("mnist", str(tmp_path / "mnist.npz"))
    save(tmp_path, "mnist", y_test=arrays["y_test"][::-1])
    with pytest.raises(ValueError, match="y_test is not that of the original"):
        load_images("mnist", tmp_path)


def test_tfds_is_checked_whatever_its_order(tmp_path, monkeypatch):
    folder = prepare_tfds("mnist", tmp_path / "tfds")
    with pytest.raises(ValueError, match="3.0.10: train is not that of the original: md5 .* sorted examples"):
        load_images("mnist")
    arrays, expected = fake_arrays("mnist"), {}
    for split in ("train", "test"):
        pairs = zip(arrays[f"y_{split}"], arrays[f"x_{split}"], strict=True)
        expected[split] = md5(b"".join(sorted(bytes([y]) + x.tobytes() for y, x in pairs)))
    monkeypatch.setitem(images._MD5, "mnist", expected)
    found = load_images("mnist")
    assert (found.source, found.path) == ("mnist", str(folder))
    assert found.x_train.shape == (40, 28, 28)
    for x, y in zip(found.x_test, found.y_test, strict=True):
        (row,) = np.flatnonzero((arrays["x_test"] == x).all((1, 2)))
        assert arrays["y_test"][row] == y


def test_axes_of_size_one_are_dropped(tmp_path):
    arrays = fake_arrays("cifar10")
    save(tmp_path, "cifar10", y_train=arrays["y_train"][:, None], y_test=arrays["y_test"][:, None])
    assert load_images("cifar10", tmp_path).y_train.shape == (40,)


def first(array, value):
    return np.concatenate([np.array([value], array.dtype), array[1:]])


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        (
            "x_train",
            lambda x: x / np.float32(255),
            r"x_train is float32 \[40, 32, 32, 3\], expected uint8 \[N, 32",
        ),
        ("x_test", lambda x: x[..., 0], r"x_test is uint8 \[20, 32, 32\], expected uint8 \[N, 32, 32, 3\]"),
        ("x_test", lambda x: x[:0], r"x_test is uint8 \[0, 32, 32, 3\]"),
        ("x_train", lambda x: x[:-1], r"y_train is uint8 \[40\], expected a whole number for each of the 39"),
        ("y_train", lambda y: y.astype(np.float32), "y_train is float32"),
        ("y_test", lambda y: np.eye(10, dtype=np.uint8)[y], r"y_test is uint8 \[20, 10\], expected a whole"),
        ("y_test", lambda y: first(y, 10), "y_test goes from 0 to 10, expected 0 to 9"),
        ("y_train", lambda y: first(y.astype(np.int64), -1), "y_train goes from -1 to 9"),
        ("y_test", lambda y: np.where(np.isin(y, [3, 7]), 0, y), "y_test has no example of class 3, 7"),
    ],
)
def test_data_that_is_not_as_expected_is_refused(tmp_path, name, change, match):
    save(tmp_path, "cifar10", **{name: change(fake_arrays("cifar10")[name])})
    with pytest.raises(ValueError, match=match) as caught:
        load_images("cifar10", tmp_path)
    assert "cifar10.npz" in str(caught.value)
