"""Each place in which a data set may lie, with made-up data: found in order, read exactly, or an error."""

import gzip
import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from jaxmod.data import sources
from tests.data.stored import fake_arrays, idx_bytes, prepare_tfds, write_idx


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """No place of this computer is looked at; returns folders for each, none of which exists yet."""
    folders = {name: tmp_path / name for name in ("npz", "tfds", "debian")}
    monkeypatch.delenv("JAXMOD_DATA", raising=False)
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(folders["tfds"]))
    monkeypatch.setattr(sources, "_DEBIAN_FASHION_MNIST", str(folders["debian"]))
    return folders


def assert_same_arrays(got, expected):
    assert sorted(got) == sorted(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array)


def test_the_first_place_that_has_it_is_read(places, monkeypatch):
    arrays = fake_arrays("fashion_mnist")
    with pytest.raises(FileNotFoundError, match="fashion_mnist is not on this computer"):
        sources.find("fashion_mnist")

    write_idx(places["debian"], arrays)
    assert sources.find("fashion_mnist").path == str(places["debian"])
    with pytest.raises(FileNotFoundError):  # the package has nothing else
        sources.find("mnist")

    prepared = prepare_tfds("fashion_mnist", places["tfds"])
    assert sources.find("fashion_mnist").path == str(prepared)

    places["npz"].mkdir()
    assert sources.find("fashion_mnist", places["npz"]).path == str(prepared)
    np.savez(places["npz"] / "fashion_mnist.npz", **arrays)
    assert sources.find("fashion_mnist").path == str(prepared)
    expected = str(places["npz"] / "fashion_mnist.npz")
    assert sources.find("fashion_mnist", places["npz"]).path == expected
    monkeypatch.setenv("JAXMOD_DATA", str(places["npz"]))
    assert sources.find("fashion_mnist").path == expected
    assert_same_arrays(sources.find("fashion_mnist").arrays, arrays)


def test_the_argument_comes_before_the_variable(places, tmp_path, monkeypatch):
    places["npz"].mkdir()
    np.savez(places["npz"] / "mnist.npz", **fake_arrays("mnist"))
    monkeypatch.setenv("JAXMOD_DATA", str(tmp_path / "nowhere"))
    assert sources.find("mnist", places["npz"]).in_order
    with pytest.raises(FileNotFoundError, match="JAXMOD_DATA is '.*nowhere', which is not a folder"):
        sources.find("mnist")
    with pytest.raises(FileNotFoundError, match="data_dir is 'nothing', which is not a folder"):
        sources.find("mnist", "nothing")


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("mnist", ["curl -o DIR/mnist.npz https://", "tfds build mnist --file_format=array_record"]),
        ("fashion_mnist", ["apt-get install dataset-fashion-mnist", "tfds build fashion_mnist"]),
        ("cifar10", ["tfds build cifar10", "put cifar10.npz (x_train, y_train, x_test, y_test) into"]),
    ],
)
def test_what_is_nowhere_is_named_with_the_commands_that_bring_it(places, name, commands):
    with pytest.raises(FileNotFoundError) as caught:
        sources.find(name)
    for words in [*commands, "neither data_dir nor JAXMOD_DATA is set", "JAXMOD_DATA=DIR"]:
        assert words in str(caught.value)
    places["npz"].mkdir()
    with pytest.raises(FileNotFoundError, match=f"npz has no {name}.npz"):
        sources.find(name, places["npz"])


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_tfds_gives_all_examples_in_an_order_of_its_own(name, places):
    prepare_tfds(name, places["tfds"])
    stored, arrays = sources.read_tfds(name), fake_arrays(name)
    assert stored is not None
    assert not stored.in_order
    for split in ("train", "test"):
        x, y = stored.arrays[f"x_{split}"], stored.arrays[f"y_{split}"]
        x = x.reshape(arrays[f"x_{split}"].shape)  # MNIST has an axis of one channel in TFDS
        assert x.dtype == np.uint8
        got = {(int(label), image.tobytes()) for image, label in zip(x, y, strict=True)}
        expected = zip(arrays[f"x_{split}"], arrays[f"y_{split}"], strict=True)
        assert got == {(int(label), image.tobytes()) for image, label in expected}


def test_tfds_where_nothing_was_prepared(tmp_path):
    assert sources.read_tfds("mnist", tmp_path) is None
    (tmp_path / "mnist" / "incomplete.ABCDEF_3.0.1").mkdir(parents=True)
    assert sources.read_tfds("mnist", tmp_path) is None


def test_tfds_in_another_format_is_refused(tmp_path):
    folder = prepare_tfds("mnist", tmp_path)
    info = (folder / "dataset_info.json").read_text()
    (folder / "dataset_info.json").write_text(info.replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match="not stored as array_record.* tfds build mnist --file_format="):
        sources.read_tfds("mnist", tmp_path)


def test_tfds_with_a_damaged_file_is_refused(tmp_path):
    folder = prepare_tfds("mnist", tmp_path)
    (file,) = folder.glob("mnist-train*")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"3.0.10 is damaged or cannot be read \(.*anew"):
        sources.read_tfds("mnist", tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="TFDS uses it where it is")
def test_tensorflow_is_not_needed(places):
    prepare_tfds("cifar10", places["tfds"])
    script = (
        "import sys\n"
        "from jaxmod.data import images\n"
        "assert 'tensorflow_datasets' not in sys.modules, 'imported before it is needed'\n"
        "found = images.load_images('cifar10')\n"
        "assert 'tensorflow' not in sys.modules\n"
        "print(found.x_train.shape, found.y_test.dtype, found.path)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"TFDS_DATA_DIR": str(places["tfds"]), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"(40, 32, 32, 3) int32 {places['tfds']}")


def test_npz_that_is_none_is_refused(tmp_path):
    path, arrays = tmp_path / "mnist.npz", fake_arrays("mnist")

    def refused(match):
        with pytest.raises(ValueError, match=match) as caught:
            sources.read_npz(path)
        assert str(path) in str(caught.value)
        assert "x_train, y_train, x_test, y_test" in str(caught.value)

    np.savez(path, **{name: arrays[name] for name in ("x_train", "y_train")}, more=np.ones(1))
    refused("it has no x_test, y_test, only x_train, y_train, more")
    np.savez(path, **arrays | {"y_test": np.array([{}] * 20, object)})
    refused("[Pp]ickle")
    np.savez(path, **arrays)
    path.write_bytes(path.read_bytes()[:-1000])
    refused("cannot be used")
    path.write_bytes(b"")
    refused("cannot be used")
    path.unlink()
    path.mkdir()
    refused("cannot be used: .*directory")
    path.rmdir()
    path.write_bytes(b"not a zip file")
    refused("cannot be used")
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    refused("cannot be used")


def test_npz_with_a_flipped_bit_is_refused(tmp_path):
    path = tmp_path / "mnist.npz"
    np.savez_compressed(path, **fake_arrays("mnist"))
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be used"):
        sources.read_npz(path)


def test_idx_files(tmp_path):
    arrays = fake_arrays("fashion_mnist")
    write_idx(tmp_path, arrays)
    stored = sources.read_idx(tmp_path)
    assert stored.in_order
    assert_same_arrays(stored.arrays, arrays)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda content: gzip.compress(content[:-1]),
            "labels-idx1-ubyte.gz is not an IDX file of bytes, or is cut off",
        ),
        (lambda content: gzip.compress(content[:6]), "not an IDX file of bytes"),
        (lambda content: gzip.compress(content[:3]), "not an IDX file of bytes"),
        (lambda _: gzip.compress(b""), "not an IDX file of bytes"),
        (lambda content: gzip.compress(b"\0\0\x0d" + content[3:]), "not an IDX file of bytes"),
        (lambda content: gzip.compress(content)[:-9], "is damaged"),
        (lambda content: content, "is damaged"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path, change, match):
    arrays = fake_arrays("fashion_mnist")
    write_idx(tmp_path, arrays)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(change(idx_bytes(arrays["y_test"])))
    with pytest.raises(ValueError, match=match):
        sources.read_idx(tmp_path)


def test_an_idx_file_that_cannot_be_read_is_named(tmp_path):
    write_idx(tmp_path, fake_arrays("fashion_mnist"))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    (tmp_path / "t10k-labels-idx1-ubyte.gz").mkdir()
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte.gz cannot be read: Is a directory"):
        sources.read_idx(tmp_path)


def test_a_missing_idx_file_is_named(tmp_path):
    write_idx(tmp_path, fake_arrays("fashion_mnist"))
    (tmp_path / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte.gz"):
        sources.read_idx(tmp_path)
