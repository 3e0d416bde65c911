import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxmod import checkpoints

ROOT = Path(__file__).parents[1]


@flax.struct.dataclass
class State:
    step: jax.Array
    params: dict
    opt_state: optax.OptState


def small_tree(seed):
    rng = np.random.default_rng(seed)
    return {"kernel": jnp.asarray(rng.normal(size=(30, 20)), jnp.float32), "count": np.arange(seed, seed + 3)}


def assert_same(tree, like):
    """Bit for bit, with dtypes and structure."""
    assert jax.tree.structure(tree) == jax.tree.structure(like)
    for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(like), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def restore(directory, like):
    """Returns the newest checkpoint, which there has to be."""
    found = checkpoints.restore_latest(directory, like)
    assert found is not None
    return found


def child(code, *arguments):
    """Starts Python with `code` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_round_trip_is_bit_exact(tmp_path, key, capfd):
    params = {
        "a/b": {"kernel": jax.random.normal(key, (4, 5)), "bias": None},
        "a.b": {"kernel": jnp.ones((3, 2), jnp.bfloat16)},
        "empty": jnp.zeros((3, 0)),
    }
    odd = np.array([0x7FC00001, 0xFFC12345, 0x80000000, 1], np.uint32).view(np.float32)  # NaNs, -0, denormal
    tree = {
        "state": State(jnp.int32(7), params, optax.adam(1e-3).init(params)),
        "odd": odd,
        "zeros": np.zeros((2, 3)),
        "minus zeros": np.full(4, -0.0),
        "flags": np.array([True, False]),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int8).reshape(2, 3)),
        "scalar": np.float32(0.1),
    }
    checkpoints.save(tmp_path / "made" / "here", 7, tree)
    step, found = restore(tmp_path / "made" / "here", tree)
    assert step == 7
    assert_same(found, tree)
    assert isinstance(found["odd"], np.ndarray)
    assert isinstance(found["state"].step, jax.Array)
    assert capfd.readouterr() == ("", "")  # Orbax says nothing


def test_restores_into_shape_dtype_structs(tmp_path):
    tree = {"w": jnp.arange(6.0).reshape(2, 3), "n": jnp.int32(3), "none": None}
    checkpoints.save(tmp_path, 0, tree)
    step, found = restore(tmp_path, jax.eval_shape(lambda: tree))
    assert step == 0
    assert_same(found, tree)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(found))


def test_arrays_come_back_where_they_were_placed(tmp_path):
    mesh = jax.make_mesh((2,), ("runs",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("runs"))
    tree = {"placed": jax.device_put(np.arange(8.0), sharding), "free": jnp.ones(3)}
    checkpoints.save(tmp_path, 1, tree)
    _, found = restore(tmp_path, tree)
    assert_same(found, tree)
    assert found["placed"].sharding == sharding
    assert not found["free"].committed


def test_nothing_to_restore(tmp_path):
    assert checkpoints.restore_latest(tmp_path / "missing", {}) is None
    assert checkpoints.restore_latest(tmp_path, {"w": jnp.ones(2)}) is None


def test_keeps_the_last_two(tmp_path):
    for step in (5, 10, 100):
        checkpoints.save(tmp_path, step, small_tree(step))
    assert sorted(os.listdir(tmp_path)) == ["10", "100"]
    step, tree = restore(tmp_path, small_tree(0))
    assert step == 100
    assert_same(tree, small_tree(100))


def test_going_back_gives_up_later_steps(tmp_path):
    for step in (10, 20, 15):
        checkpoints.save(tmp_path, step, small_tree(step))
    assert sorted(os.listdir(tmp_path)) == ["10", "15"]


def test_saving_a_step_again_replaces_it(tmp_path):
    checkpoints.save(tmp_path, 3, small_tree(0))
    checkpoints.save(tmp_path, 3, small_tree(1))
    assert os.listdir(tmp_path) == ["3"]
    step, tree = restore(tmp_path, small_tree(0))
    assert step == 3
    assert_same(tree, small_tree(1))


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def remove(file):
    file.unlink()


@pytest.mark.parametrize("damage", [cut, flip, remove])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
    trees = {step: small_tree(step) for step in (1, 2)}
    for step, tree in trees.items():
        checkpoints.save(tmp_path / "good", step, tree)
    names = [p.relative_to(tmp_path / "good") for p in (tmp_path / "good" / "2").rglob("*") if p.is_file()]
    assert len(names) > 5
    for i, name in enumerate(names):
        copy = tmp_path / str(i)
        shutil.copytree(tmp_path / "good", copy)
        damage(copy / name)
        with pytest.warns(UserWarning, match="step 2 in .* is broken .* step 1 is used instead"):
            step, tree = restore(copy, trees[1])
        assert step == 1
        assert_same(tree, trees[1])
        assert sorted(os.listdir(copy)) == ["1", "2.broken"]
        # Only now it is known which one was the good one: that is kept, the broken one goes.
        if i == 0:
            checkpoints.save(copy, 2, trees[2])
            assert sorted(os.listdir(copy)) == ["1", "2"]
            assert_same(restore(copy, trees[1])[1], trees[2])


def test_every_array_has_its_own_checksum(tmp_path):
    """Also where the files are what was written: Orbax itself restores a flipped bit silently."""
    for step in (1, 2):
        checkpoints.save(tmp_path, step, small_tree(step))
    path = tmp_path / "2"
    content = np.asarray(small_tree(2)["kernel"]).tobytes()
    (file,) = [f for f in path.rglob("*") if f.is_file() and content in f.read_bytes()]
    file.write_bytes(file.read_bytes().replace(content, bytes([content[0] ^ 1]) + content[1:]))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][file.relative_to(path).as_posix()] = zlib.crc32(file.read_bytes())
    del manifest["crc32"]
    manifest["crc32"] = zlib.crc32(json.dumps(manifest).encode())
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.warns(UserWarning, match="'kernel' does not have the CRC32"):
        step, tree = restore(tmp_path, small_tree(0))
    assert step == 1
    assert_same(tree, small_tree(1))


def test_all_broken_is_an_error_and_touches_nothing(tmp_path):
    for step in (1, 2):
        checkpoints.save(tmp_path, step, small_tree(step))
        flip(tmp_path / str(step) / "manifest.json")
    with pytest.raises(
        OSError, match=f"Every checkpoint in {tmp_path} is broken .*step 2.*step 1.*delete it"
    ):
        restore(tmp_path, small_tree(0))
    assert sorted(os.listdir(tmp_path)) == ["1", "2"]


@pytest.mark.parametrize(
    ("like", "message"),
    [
        (
            {"a": {"w": jnp.ones((2, 4))}, "b": jnp.ones(2)},
            r"has 'a/w', float32\[2, 3\] where 'a/w', float32\[2, 4\]",
        ),
        (
            {"a": {"w": jnp.ones((2, 3), jnp.int32)}, "b": jnp.ones(2)},
            r"where 'a/w', int32\[2, 3\] is expected",
        ),
        ({"a": {"v": jnp.ones((2, 3))}, "b": jnp.ones(2)}, r"has 'a/w', .* where 'a/v', .* is expected"),
        ({"a": {"w": jnp.ones((2, 3))}, "b": None}, r"has 'b', float32\[2\] where no more arrays"),
        (
            {"a": {"w": jnp.ones((2, 3))}, "b": jnp.ones(2), "c": jnp.ones(1)},
            r"has no more arrays where 'c', ",
        ),
    ],
)
def test_another_tree_is_refused_by_path(tmp_path, like, message):
    checkpoints.save(tmp_path, 4, {"a": {"w": jnp.ones((2, 3))}, "b": jnp.ones(2)})
    with pytest.raises(ValueError, match=message):
        restore(tmp_path, like)
    assert os.listdir(tmp_path) == ["4"]


def test_what_a_killed_process_left_is_put_in_order(tmp_path):
    for step in (1, 2, 3):
        checkpoints.save(tmp_path / "all", step, small_tree(step))
    killed = tmp_path / "killed"
    shutil.copytree(tmp_path / "all" / "2", killed / "2")
    shutil.copytree(tmp_path / "all" / "3", killed / "3.new")  # complete, but not named yet
    shutil.copytree(tmp_path / "all" / "3", killed / "4.new")
    (killed / "4.new" / "manifest.json").unlink()
    shutil.copytree(tmp_path / "all" / "3", killed / "5.new.orbax-checkpoint-tmp")
    step, tree = restore(killed, small_tree(0))
    assert step == 3
    assert_same(tree, small_tree(3))
    assert sorted(os.listdir(killed)) == ["2", "3"]


def test_works_in_a_notebook_cell(tmp_path):
    """There an event loop is running, and Orbax has one of its own."""

    async def cell():
        checkpoints.save(tmp_path, 1, small_tree(1))
        return restore(tmp_path, small_tree(1))

    assert_same(asyncio.run(cell())[1], small_tree(1))


FULL_DISK = """
import resource, signal, sys
import numpy as np
from jaxmod import checkpoints

tree = {"w": np.random.default_rng(0).normal(size=100_000)}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
checkpoints.save(sys.argv[1], 1, tree)
for limit in (0, 1_000, 100_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited[1]))
    try:
        checkpoints.save(sys.argv[1], 2, tree)
    except OSError as error:
        print(error)
    assert checkpoints.restore_latest(sys.argv[1], tree)[0] == 1
resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
checkpoints.save(sys.argv[1], 3, tree)
"""


def test_a_full_disk_is_said_and_the_checkpoint_before_stays(tmp_path):
    process = child(FULL_DISK, tmp_path)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    lines = output.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert f"step 2 could not be written to {tmp_path}: " in line
        assert "File too large" in line
    assert sorted(os.listdir(tmp_path)) == ["1", "3"]


SAVES_FOREVER = """
import itertools, sys
import numpy as np
from jaxmod import checkpoints

for step in itertools.count(1):
    checkpoints.save(sys.argv[1], step, {"w": np.full(100_000, step)})
    if step == 2:
        print("saving", flush=True)
"""


def test_sigkill_while_saving_leaves_a_good_checkpoint(tmp_path):
    folders = [tmp_path / str(i) for i in range(2)]
    processes = [child(SAVES_FOREVER, folder) for folder in folders]
    for i, (process, folder) in enumerate(zip(processes, folders, strict=True)):
        assert process.stdout is not None and process.stdout.readline() == "saving\n"
        time.sleep(0.02 * i)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        like = {"w": np.zeros(100_000, int)}
        step, tree = restore(folder, like)
        assert step >= 2
        np.testing.assert_array_equal(tree["w"], step)
        checkpoints.save(folder, step + 1, like)
        assert sorted(map(int, os.listdir(folder)))[-1] == step + 1
