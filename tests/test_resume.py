"""find_modules in a folder: stopped, killed, called again, or called with something else."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxmod as jm
from jaxmod import find
from jaxmod.train import loops
from tests.helpers import assert_trees_equal, tiny_data, tiny_evaluate, tiny_loss, tiny_params, two_tasks

ROOT = Path(__file__).parents[1]
CONFIG = jm.MaskConfig(steps=6, batch_size=8, num_samples=1, chunk_steps=2, eval_examples=16)


def search(workdir, **options):
    key = jax.random.key(0)
    options = {"keys": jax.random.split(key, 2), "config": CONFIG, "evaluate": tiny_evaluate} | options
    params, tasks = options.pop("params", tiny_params(key)), options.pop("tasks", two_tasks())
    return jm.find_modules(tiny_loss, params, tasks, workdir=workdir, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Returns a folder with a finished run, and what the run returned."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, search(folder)


def metrics_lines(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: x for name, x in line.items() if name != "steps_per_second"} for line in lines]


def test_a_folder_holds_config_metrics_checkpoints_and_masks(finished):
    folder, found = finished
    assert {"config.json", "environment.json", "metrics.jsonl", "masks.npz", "checkpoints"} <= set(
        os.listdir(folder)
    )
    config = json.loads((folder / "config.json").read_text())
    assert config["config"]["steps"] == 6 and config["config"]["beta"] == 1e-4
    assert config["estimator"] == "gumbel_sigmoid(temperature=1.0, init=2.0, noise='mix32')"
    assert config["key_impl"] == "threefry2x32"
    assert config["masked"] == ["layer_1/kernel", "output/kernel"] and config["tasks"] == [
        "forward",
        "backward",
    ]
    assert [(line["phase"], line["step"], line["task"]) for line in metrics_lines(folder)] == [
        ("masks", step, task) for step in (2, 4, 6) for task in ("forward", "backward")
    ]
    saved = jm.load_masks(folder / "masks.npz", like=tiny_params(jax.random.key(0)))
    assert_trees_equal(saved, {name: module.mask for name, module in found.items()})


def test_without_a_folder_the_modules_are_the_same(finished):
    assert_trees_equal(search(None), finished[1])


class OnlyShapes:
    """A compiled chunk that may be traced, but not run."""

    trace = loops._compiled_chunk.trace

    def __call__(self, *args):
        raise AssertionError("trained again")


def test_the_same_call_again_trains_nothing(finished, monkeypatch):
    folder, found = finished
    before = (folder / "metrics.jsonl").read_bytes()
    monkeypatch.setattr(loops, "_compiled_chunk", OnlyShapes())
    assert_trees_equal(search(folder), found)
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_a_run_stopped_between_chunks_goes_on(finished, tmp_path, monkeypatch):
    class Stops:
        def __init__(self, label, steps):
            assert (label, steps) == ("masks", 6)

        def update(self, step, metrics):
            if step == 4:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(find, "Progress", Stops)
        search(tmp_path, progress=True)
    assert not (tmp_path / "masks.npz").exists()
    folder, found = finished
    assert_trees_equal(search(tmp_path), found)
    assert (tmp_path / "masks.npz").read_bytes() == (folder / "masks.npz").read_bytes()
    assert metrics_lines(tmp_path) == metrics_lines(folder)


def test_a_lost_masks_file_is_written_again(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    masks = (folder / "masks.npz").read_bytes()
    (folder / "masks.npz").unlink()
    search(folder)
    assert (folder / "masks.npz").read_bytes() == masks


def test_a_stage_of_a_larger_run(finished, tmp_path):
    with jm.Workdir.open(tmp_path, {"larger": True}) as workdir:
        found = search(workdir.stage("second part"))
        assert_trees_equal(found, finished[1])
        assert not (tmp_path / "masks.npz").exists()  # the caller saves, under names of its own
        assert {line["phase"] for line in metrics_lines(tmp_path)} == {"second part"}


def changed(tree):
    return jax.tree.map(lambda x: x + 1 if x.dtype == np.float32 else x, tree)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": dataclasses.replace(CONFIG, beta=1e-3, chunk_steps=3)},
         r"config\.beta: 0\.0001 there, 0\.001 here\n  config\.chunk_steps: 2 there, 3 here\nGive another"),
        ({"config": dataclasses.replace(CONFIG, beta=[1e-4, 0])},
         r"config\.beta: 0\.0001 there, \[0\.0001, 0\] here"),
        ({"estimator": jm.gumbel_sigmoid(temperature=0.5)}, r"estimator: .*=1\.0.* there, .*=0\.5.* here"),
        ({"where": "output/kernel"}, r"masked: \['layer_1/kernel', 'output/kernel'\] there, \['output/k"),
        ({"trainable": "output/kernel"}, r"trained: .* here"),
        ({"keys": jax.random.split(jax.random.key(8), 2)}, r"\n  keys: '\w+' there, '\w+' here\nGive"),
        ({"keys": jax.random.split(jax.random.key(0, impl="philox4x32"), 2)}, "key_impl: .*philox4x32' here"),
        ({"params": tiny_params(jax.random.key(9))}, r"\n  params: '\w+' there, '\w+' here\nGive"),
        ({"tasks": {"forward": tiny_data()}}, r"tasks: \['forward', 'backward'\] there, \['forward'\] here"),
        ({"tasks": changed(two_tasks())}, r"\n  data: '\w+' there, '\w+' here\nGive"),
        ({"tasks": {"forward": np.arange(9), "backward": np.arange(9)}, "data": tiny_data()}, r"\n  data: "),
    ],
)  # fmt: skip
def test_a_folder_of_something_else_is_refused_by_what_differs(finished, options, message):
    folder, _ = finished
    before = (folder / "config.json").read_bytes(), (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match=message):
        search(folder, **options)
    assert ((folder / "config.json").read_bytes(), (folder / "metrics.jsonl").read_bytes()) == before


HOLDS = """
import fcntl, os, sys

lock = open(sys.argv[1] + "/.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
lock.write(str(os.getpid()))
lock.flush()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_folder_in_use_by_another_process_is_refused(tmp_path):
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert owner.stdout is not None and owner.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"in use by the running process {owner.pid}; wait for it"):
            search(tmp_path)
    finally:
        owner.communicate("")
    assert not (tmp_path / "config.json").exists()


def test_bad_input_leaves_no_folder_behind(tmp_path):
    with pytest.raises(ValueError, match="selects no leaf"):
        search(tmp_path / "new", where="conv")
    assert not (tmp_path / "new").exists()


KILLED = """
import sys

import jax
import numpy as np

import jaxmod as jm
from jaxmod import trees
from tests.helpers import tiny_evaluate, tiny_loss, tiny_params, two_tasks

folder, chunks, out = sys.argv[1:]
key = jax.random.key(0)
print("ready", flush=True)
found = jm.find_modules(
    tiny_loss, tiny_params(key), two_tasks(), keys=jax.random.split(key, 2), evaluate=tiny_evaluate,
    config=jm.MaskConfig(50 * int(chunks), batch_size=8, num_samples=1, chunk_steps=50, eval_examples=16),
    workdir=folder, progress=True,
)
arrays = {name: (module.mask, module.logits, module.history) for name, module in found.items()}
np.savez(out, **dict(trees.paths_and_leaves(arrays)))
"""


class Child:
    """A process that runs the search and prints a line for every chunk."""

    def __init__(self, folder, chunks, out, cache):
        # Compiled programs are kept on the disk, so that a restart is quick.
        cached = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(folder), str(chunks), str(out)],
            cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu", **cached},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = []

    def wait_for(self, text):
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            if line.startswith(text):
                return
        raise AssertionError(f"ended before it said {text!r}:\n{''.join(self.output)}")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()
        assert self.process.returncode == -signal.SIGKILL, "ended before it was killed"

    def finish(self):
        rest, _ = self.process.communicate(timeout=600)
        assert self.process.returncode == 0, "".join(self.output) + rest


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_at_random_and_restarted_the_end_is_the_same_bit_for_bit(tmp_path, kills):
    moments, chunks = random.Random(5), 15 * kills  # too many for the kills to come too late

    def start(folder):
        return Child(tmp_path / folder, chunks, tmp_path / f"{folder}.npz", tmp_path / "cache")

    start("whole").finish()
    for _ in range(kills):
        child = start("killed")
        child.wait_for("ready")
        for _ in range(moments.randrange(3)):
            child.wait_for("masks: step")
        time.sleep(moments.uniform(0, 0.2))
        child.kill()
    steps = {line["step"] for line in metrics_lines(tmp_path / "killed")}
    assert 0 < len(steps) < chunks  # so there was something to go on from, and to do
    start("killed").finish()

    assert (tmp_path / "killed.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    masks = [(tmp_path / folder / "masks.npz").read_bytes() for folder in ("killed", "whole")]
    assert masks[0] == masks[1]
    assert metrics_lines(tmp_path / "killed") == metrics_lines(tmp_path / "whole")
    with np.load(tmp_path / "whole.npz") as arrays:
        assert arrays["forward/2/loss"].shape == (2, chunks) and np.isfinite(arrays["forward/2/loss"]).all()
