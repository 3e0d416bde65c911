"""The same study on one device, on eight, and on two hosts one of which may die."""

import json
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from jaxmod import checkpoints
from tests import spread


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("spread")


def run(folder, name, *workdir, **options):
    """Returns what a study gave and what each host said."""
    said = spread.finish(spread.start(folder / name, *workdir, cache=folder / "cache", **options))
    return spread.load(folder / name), said


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(folder):
    return run(folder, "alone")[0]


@pytest.fixture(scope="module")
def whole(folder):
    """Returns the study of two hosts with a workdir, and what they said."""
    return run(folder, "whole", folder / "whole", of=2)


def test_eight_devices_are_as_one(folder, alone):
    study, (said,) = run(folder, "eight", devices=8)
    assert "of" in said and "on each of 8 devices" in said
    spread.assert_same_study(study, alone)


def test_two_hosts_are_as_one(folder, alone, whole):
    study, (first, second) = whole
    spread.assert_same_study(study, alone)
    other = spread.load(folder / "whole", host=1)
    assert all(np.array_equal(study[path], other[path]) for path in study)
    # Host 0 alone speaks and writes, but both write the checkpoints.
    assert "masks: step 50 of 50" in first and "step" not in second and "memory" not in second
    assert [line["step"] for line in metrics(folder / "whole")] == 2 * list(
        range(spread.CHUNK, spread.STEPS + 1, spread.CHUNK)
    )
    assert (folder / "whole" / "results.json").exists()
    newest = folder / "whole" / "checkpoints" / "masks" / str(spread.STEPS)
    assert all(any((newest / f"ocdbt.process_{host}" / "d").iterdir()) for host in (0, 1))
    sums = {path: crcs for path, _, _, crcs in json.loads((newest / "manifest.json").read_text())["arrays"]}
    assert len(sums["state/logits/output/kernel"]) == 2  # a part of each host
    assert isinstance(sums["history/loss"], int)


def test_damage_to_the_part_of_one_host_is_noticed(folder, whole, tmp_path):
    del whole
    copy = shutil.copytree(folder / "whole" / "checkpoints" / "masks", tmp_path / "masks")
    newest, before = (copy / str(step) for step in (spread.STEPS, spread.STEPS - spread.CHUNK))
    entries = json.loads((before / "manifest.json").read_text())["arrays"]
    like: dict = {}
    for path, dtype, shape, _ in entries:
        like[path] = jax.ShapeDtypeStruct(shape, dtype)
    data = max((newest / "ocdbt.process_1" / "d").iterdir(), key=lambda file: file.stat().st_size)
    damaged = bytearray(data.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    data.write_bytes(damaged)
    with pytest.warns(
        UserWarning, match="step 50 .* is broken .*ocdbt.process_1/d/.* is not as it was saved"
    ):
        restored = checkpoints.restore_latest(copy, like)
    assert restored is not None and restored[0] == spread.STEPS - spread.CHUNK


@pytest.fixture(scope="module")
def killed(folder):
    """Returns the workdir of a study of two hosts, one of which was killed in the middle."""
    hosts = spread.start(folder / "killed", folder / "killed", of=2, cache=folder / "cache")
    try:
        assert hosts[0].stderr is not None
        next(line for line in hosts[0].stderr if line.startswith("masks: step 20"))
        hosts[1].send_signal(signal.SIGKILL)
        time.sleep(1)
    finally:
        # Left to itself the other one ends when it has heard nothing for a while, at most 100 s.
        for host in hosts:
            host.kill()
            host.communicate()
    steps = {line["step"] for line in metrics(folder / "killed") if line["phase"] == "masks"}
    assert 20 in steps and spread.STEPS not in steps
    return folder / "killed"


@pytest.mark.parametrize(
    ("of", "devices"),
    [(1, 2), pytest.param(2, 1, marks=pytest.mark.slow), pytest.param(1, 1, marks=pytest.mark.slow)],
)
def test_a_host_that_dies_leaves_a_resumable_workdir(folder, whole, killed, tmp_path, of, devices):
    workdir = shutil.copytree(killed, tmp_path / "killed")
    study, said = run(folder, f"resumed {of} {devices}", workdir, of=of, devices=devices)
    assert "masks: step 15 of" not in said[0]  # it went on, and did not start anew
    for path in study:
        compare = np.testing.assert_array_equal if "/mask/" in path else np.testing.assert_allclose
        compare(study[path], whole[0][path], err_msg=path)
