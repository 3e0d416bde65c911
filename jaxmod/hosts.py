"""Several hosts that run the same program: each computes, host 0 alone writes and speaks.

A host is one process of JAX's distributed runtime. Without `initialize` there is one, and nothing here does
anything. All hosts must call what talks between them in the same order.
"""

import json
import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils

__all__ = ["exchange", "initialize", "is_first", "on_first", "together"]

_T = TypeVar("_T")


def initialize() -> None:
    """Joins the hosts of this job; to be called before anything touches a device.

    JAX finds out about SLURM, Open MPI, Kubernetes and TPU pods by itself. Elsewhere every host is told by
    `JAX_COORDINATOR_ADDRESS` (host 0 with a free port), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`.

    Raises:
      ValueError: one of these is no number, or neither they nor the surroundings say who belongs together.
    """
    given: dict[str, Any] = {}
    if address := os.environ.get("JAX_COORDINATOR_ADDRESS"):
        given["coordinator_address"] = address
    for name in ("num_processes", "process_id"):
        if text := os.environ.get(f"JAX_{name.upper()}"):
            if not text.isdecimal():
                raise ValueError(f"JAX_{name.upper()}={text}: expected a whole number.")
            given[name] = int(text)
    try:
        jax.distributed.initialize(**given)
    except ValueError as error:
        raise ValueError(
            f"the hosts cannot be joined: {str(error).rstrip('.')}. Start every host under SLURM, Open MPI, "
            "Kubernetes or on a TPU pod, or set JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and "
            "JAX_PROCESS_ID on each."
        ) from error


def is_first() -> bool:
    """Returns whether this is host 0, the one that writes and speaks."""
    # Asked in this order so that a process that uses no device does not start them all for this.
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def on_first(f: Callable[[], _T]) -> _T | None:
    """Returns `f()`, called on host 0 alone; None on the others, which wait for it.

    Raises:
      OSError or ValueError: as `together`.
    """
    if not jax.distributed.is_initialized():
        return f()  # with no frames between, so that a warning of it names the line of the caller
    return together(lambda: f() if is_first() else None)


def together(f: Callable[[], _T]) -> _T:
    """Returns `f()`, called on every host; an error on one stops them all, none waits for another in vain.

    Raises:
      OSError: a host had one.
      ValueError: a host had another error. The host itself raises what it was.
    """
    if not jax.distributed.is_initialized():
        return f()
    value, error = None, None
    try:
        value = f()
    except Exception as caught:
        error = caught
    said = exchange(None if error is None else [isinstance(error, OSError), str(error)])
    if error is not None:
        raise error
    for from_disk, text in filter(None, said):
        raise (OSError if from_disk else ValueError)(text)
    return cast(_T, value)


def exchange(value: Any) -> list[Any]:
    """Returns the values of all hosts, in their order, on every host; anything that JSON can hold."""
    if not jax.distributed.is_initialized():
        return [value]
    text = json.dumps(value).encode()
    longest = int(multihost_utils.process_allgather(np.int32(len(text))).max())
    # JSON may end in spaces. Few different sizes, because each is compiled.
    size = max(1024, 1 << longest.bit_length())
    rows = multihost_utils.process_allgather(np.frombuffer(text.ljust(size), np.uint8))
    return [json.loads(bytes(row)) for row in np.reshape(rows, (-1, size))]
