"""Strict settings for every test: two simulated devices, no silent broadcasting between ranks.

Warnings are errors, and the shapes in jaxmod's signatures are checked at run time: `pyproject.toml`.
"""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

from tests.flags import QUICK_COMPILING

# Read when NumPy is imported, so by xdist's workers: they fill the cores, and threads of BLAS would spin.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Read when JAX starts its backend, so it has to be set before the first array is made.
_FLAGS = f"--xla_force_host_platform_device_count=2 {QUICK_COMPILING}"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAGS}".strip()

import jaxtyping  # noqa: E402

# Shapes and types of every call into the modules of arrays are checked; an int is welcome as a float.
# The functions that check their own input (find_modules and below) are left to their own messages.
jaxtyping.install_import_hook(
    [f"jaxmod.{name}" for name in ("analysis", "data", "estimators", "losses", "masks", "models", "noise")]
    + [f"jaxmod.{name}" for name in ("deep_r", "edge_popup", "hard_concrete")]
    + [f"jaxmod.structure.{name}" for name in ("eigen", "graph", "kmeans")],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")

# A first example compiles and so takes seconds; the examples are the same in every run.
hypothesis.settings.register_profile(
    "jaxmod", max_examples=25, deadline=None, derandomize=True, database=None
)
hypothesis.settings.load_profile("jaxmod")


def pytest_collection_finish() -> None:
    """Spares the garbage collector what was imported: it stays, and each round would go through all of it."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def key() -> jax.Array:
    """A typed random key, the same for every test."""
    return jax.random.key(0)


@pytest.fixture(scope="module", autouse=True)
def few_programs() -> Iterator[None]:
    """Forgets compiled programs before a process has so many that it dies.

    Linux gives a process 65,530 mappings of memory. Each program takes several, so that the whole suite would
    take more, and the compiler then ends the process.
    """
    yield
    mappings = Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
