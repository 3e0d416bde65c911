import json
import os

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmod import files


def test_write_atomically_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.bin"
    for content in (b"first", b"second"):
        files.write_atomically(path, lambda file, content=content: file.write(content))
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["a.bin"]


def test_write_atomically_gives_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    files.write_atomically(tmp_path / "ours", lambda file: file.write(b""))
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize(
    "error", [RuntimeError("no more"), OSError(28, "No space left on device"), KeyboardInterrupt()]
)
def test_a_failed_write_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half of the ne")
        raise error

    with pytest.raises(type(error)):
        files.write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_errors_of_the_disk_name_the_file(tmp_path):
    def full(file):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"masks\.npz cannot be written .*No space left on device") as caught:
        files.write_atomically(tmp_path / "masks.npz", full)
    assert caught.value.errno == 28
    with pytest.raises(FileNotFoundError, match=r"nowhere/a\.json cannot be written"):
        files.write_json(tmp_path / "nowhere" / "a.json", 1)


def test_write_json_keeps_order_and_makes_arrays_plain(tmp_path):
    path = tmp_path / "a.json"
    value = {
        "z": np.float32(0.5),
        "a": jnp.arange(3),
        "nested": {"tuple": (1, np.int64(2)), "bool": np.bool_(True), "none": None},
        "half": jnp.ones((1, 2), jnp.bfloat16),
        3: "key",
    }
    files.write_json(path, value)
    found = json.loads(path.read_text())
    assert found == {
        "z": 0.5,
        "a": [0, 1, 2],
        "nested": {"tuple": [1, 2], "bool": True, "none": None},
        "half": [[1.0, 1.0]],
        "3": "key",
    }
    assert list(found) == ["z", "a", "nested", "half", "3"]


@pytest.mark.parametrize("number", [float("nan"), np.float32("inf"), jnp.array([0.0, -jnp.inf])])
def test_write_json_refuses_what_is_not_finite(tmp_path, number):
    path = tmp_path / "a.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"accuracy\.add(\[1\])? is (nan|-?inf)"):
        files.write_json(path, {"accuracy": {"add": number}})
    assert path.read_text() == "{}"


def test_plain_names_what_json_cannot_hold():
    with pytest.raises(ValueError, match=r"task\[1\]\.names is \{'add'\} of type set"):
        files.plain({"task": [0, {"names": {"add"}}]})
    with pytest.raises(ValueError, match="the value is .* of type object"):
        files.plain(object())


def test_plain_stores_what_it_is_told_for_non_finite_numbers():
    value = {"clip": float("inf"), "rates": [1.0, float("nan")]}
    assert files.plain(value, lambda path, number: f"{path}={number}") == {
        "clip": "clip=inf",
        "rates": [1.0, "rates[1]=nan"],
    }


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3).T,
        np.asarray(jnp.arange(5, dtype=jnp.bfloat16)),
        np.array(3, np.int8),
        np.zeros((2, 0), np.float32),
        np.array([True, False]),
        np.arange(10)[::3],
    ],
)
def test_raw_bytes_are_those_of_tobytes(array):
    assert files.raw_bytes(array).tobytes() == array.tobytes()
