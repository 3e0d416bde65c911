"""A small study run by processes of their own, on as many devices and hosts as a test asks for.

    python -m tests.spread OUT [WORKDIR]

trains networks and masks, and writes OUT.HOST.npz on every host: what every step drew, losses and masks.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmod as jm
from jaxmod import hosts, trees
from jaxmod.train.steps import without_state
from tests.flags import QUICK_COMPILING
from tests.helpers import tiny_data, tiny_loss, tiny_params

RUNS, STEPS, CHUNK = 8, 50, 5


def seen_loss(params, batch, key):
    """Returns the loss, and numbers that tell which examples were drawn and which weights dropped."""
    weights = jnp.ravel(params["layer_1"]["kernel"])
    dropped = jnp.sum(jnp.where(weights == 0, jnp.arange(len(weights), dtype=jnp.uint32) ** 2, 0))
    rows = jnp.sum(batch["row"] * jnp.arange(len(batch["row"]), dtype=jnp.uint32))
    return tiny_loss(params, batch, key), {"rows": jnp.float32(rows), "dropped": jnp.float32(dropped)}


def study(workdir=None):
    """Returns all that a study gives, as one tree of arrays."""
    keys = jax.random.split(jax.random.key(1), RUNS)
    data = tiny_data() | {"row": np.arange(200, dtype=np.uint32)}
    sizes = {"batch_size": 8, "chunk_steps": CHUNK, "eval_examples": 16}
    network = jm.train_network(
        without_state(tiny_loss), tiny_params, data, keys=keys, optimizer=optax.adam(1e-2),
        config=jm.DenseConfig(STEPS, **sizes), workdir=workdir and workdir.stage("network"),
        progress=True,
    )  # fmt: skip
    found = jm.find_modules(
        seen_loss, network.params, {"task": data}, keys=keys, has_aux=True, params_axis=0,
        config=jm.MaskConfig(STEPS, num_samples=2, learning_rate=0.1, **sizes),
        workdir=workdir and workdir.stage("masks"), progress=True,
    )["task"]  # fmt: skip
    if workdir:
        workdir.write_results({"density": jm.density(found.mask)})
        assert workdir.results() is not None
    return {"network": network._asdict(), "found": found._asdict()}


def main(out, folder=None):
    """Writes what the study gives."""
    if "JAX_NUM_PROCESSES" in os.environ:
        hosts.initialize()
    print(f"host {jax.process_index()} has {jax.local_device_count()} devices", file=sys.stderr, flush=True)
    if folder is None:
        result = study()
    else:
        with jm.Workdir.open(folder, {"of": "tests"}) as workdir:
            result = study(workdir)
    np.savez(f"{out}.{jax.process_index()}.npz", **dict(trees.paths_and_leaves(result)))


def start(*arguments, devices=1, of=1, cache):
    """Returns the started processes of a study over `of` hosts with so many devices each."""
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    shared = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {QUICK_COMPILING}",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    if of > 1:
        shared |= {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": str(of)}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.spread", *map(str, arguments)],
            cwd=Path(__file__).parents[1],
            env={**os.environ, **shared, "JAX_PROCESS_ID": str(host)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host in range(of)
    ]


def finish(processes):
    """Waits for processes that must succeed; returns what they said."""
    said = [process.communicate(timeout=300)[1] for process in processes]
    for process, text in zip(processes, said, strict=True):
        assert process.returncode == 0, text
    return said


def load(out, host=0):
    """Returns `{path: array}`."""
    with np.load(f"{out}.{host}.npz") as arrays:
        return dict(arrays)


def assert_same_study(a, b):
    """Draws bit for bit, losses to rounding, the same masks."""
    assert a.keys() == b.keys()
    for path in a:
        if path.endswith(("/rows", "/dropped")) or "/mask/" in path:
            np.testing.assert_array_equal(a[path], b[path], path)
        else:
            np.testing.assert_allclose(a[path], b[path], rtol=1e-4, atol=1e-5, err_msg=path)
    # The draws differ from chunk to chunk and from run to run, so to be equal says something.
    assert a["found/history/rows"].shape == (RUNS, STEPS // CHUNK)
    for path in ("found/history/rows", "found/history/dropped"):
        assert len(np.unique(a[path])) > 0.8 * a[path].size
    assert 0 < np.mean(a["found/mask/layer_1/kernel"]) < 1


if __name__ == "__main__":
    main(*sys.argv[1:])
