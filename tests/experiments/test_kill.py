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
    "hidden": "32,16", "seeds": 2, "network_steps": 1000, "mask_steps": 1500, "chunk_steps": 25,
    "batch_size": 32, "num_samples": 2,
}  # fmt: skip
KILLS = 10


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

    def finish(folder):
        process = start(folder)
        output, _ = process.communicate()
        assert process.returncode == 0, output

    finish("whole")
    moments = random.Random(0)
    for kill in range(KILLS):
        process, chunks = start("killed"), moments.randrange(12)
        assert process.stdout is not None
        for line in process.stdout:
            chunks -= ": step " in line
            if chunks <= 0:
                break
        time.sleep(moments.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, f"ended before kill {kill + 1}"
    finish("killed")

    for file in ("results.json", "masks.npz"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    steps = {}
    for folder in ("killed", "whole"):
        lines = (tmp_path / folder / "metrics.jsonl").read_text().splitlines()
        entries = [json.loads(line) for line in lines]
        steps[folder] = [{k: v for k, v in e.items() if k != "steps_per_second"} for e in entries]
    assert steps["killed"] == steps["whole"]
