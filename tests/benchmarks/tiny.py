"""A network of eight units, for benchmarks that run in no time."""

import functools

from benchmarks import networks
from jaxmod.data.arithmetic import load_addmul
from jaxmod.models.fnn import FNN

TINY = networks.arithmetic(FNN((8,), outputs=20), chunk_steps=3)._replace(
    examples=functools.partial(load_addmul, "train", 300), targets={"cpu": 1e9}
)
WEIGHTS = 42 * 8 + 8 * 20
