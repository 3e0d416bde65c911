"""A run that is killed again and again ends like one that never was."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

COMMAND = [sys.executable, "-m", "experiments.addmul", "--preset=quick"]
TINY = {
    "hidden": "32", "seeds": 2, "network_steps": 600, "mask_steps": 600, "chunk_steps": 50,
    "batch_size": 32, "num_samples": 2,
}  # fmt: skip


@pytest.mark.slow
def test_ten_kills_change_nothing(tmp_path):
    command = [*COMMAND, *(f"--config.{name}={value}" for name, value in TINY.items())]
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": "",
    }

    def start(folder):
        return subprocess.Popen(
            [*command, f"--workdir={tmp_path / folder}"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    begun = time.monotonic()
    whole = start("whole")
    output, _ = whole.communicate()
    assert whole.returncode == 0, output
    duration = time.monotonic() - begun

    rng, kills = random.Random(0), 0
    while kills < 10:
        process = start("killed")
        try:
            process.communicate(timeout=rng.uniform(0.1, 0.7) * duration)
            assert process.returncode == 0
            break  # done before ten kills: the checkpoints carried it through
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
    assert kills >= 3
    last = start("killed")
    output, _ = last.communicate()
    assert last.returncode == 0, output

    for file in ("results.json", "masks.npz"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    steps = {}
    for folder in ("killed", "whole"):
        lines = (tmp_path / folder / "metrics.jsonl").read_text().splitlines()
        entries = [json.loads(line) for line in lines]
        steps[folder] = [{k: v for k, v in e.items() if k != "steps_per_second"} for e in entries]
    assert steps["killed"] == steps["whole"]
