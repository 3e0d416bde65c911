"""Files that are either whole or not there: atomic replacement, and JSON of plain values."""

import contextlib
import json
import os
import re
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np
from jaxtyping import Shaped

from jaxmod import hosts

__all__ = ["plain", "raw_bytes", "remove_leftovers", "write_atomically", "write_json"]


def write_atomically(path: str | os.PathLike[str], write: Callable[[BinaryIO], Any]) -> None:
    """Replaces the file at `path` by what `write(file)` writes, once all of it is on the disk.

    Whatever goes wrong (a full disk, an exception, a kill), the old file stays as it was. With several
    hosts, which all have the same to write, host 0 alone does.

    Raises:
      OSError: the file cannot be written; the message names it.
    """
    if not hosts.is_first():
        return
    path = Path(path)
    # Not `tempfile`: its files are private to the user, and that mode would outlive the renaming.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise OSError(error.errno, f"{path} cannot be written and is left as it was: {reason}") from error
        raise


def remove_leftovers(folder: Path) -> None:
    """Removes what a killed `write_atomically` left in a folder, and nothing else."""
    for file in folder.iterdir():
        if re.fullmatch(r"\..+\.[0-9a-f]{32}\.tmp", file.name) and file.is_file():
            file.unlink()


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `value` as JSON, atomically; the keys of a dict stay in their order.

    NumPy and JAX scalars and arrays become numbers and lists.

    Raises:
      ValueError: a number is not finite, or a value has no form in JSON; its path is named.
    """
    text = json.dumps(plain(value), indent=1, allow_nan=False)
    write_atomically(path, lambda file: file.write(text.encode() + b"\n"))


def _refuse(path: str, number: float) -> Any:
    raise ValueError(f"{path or 'the value'} is {number}, which JSON cannot hold; store null (None) instead.")


def plain(value: Any, non_finite: Callable[[str, float], Any] = _refuse, path: str = "") -> Any:
    """Returns `value` in the types of JSON: dict with str keys, list, str, bool, int, float, None.

    Args:
      value: nested mappings, sequences, scalars and arrays (NumPy's or JAX's).
      non_finite: `(path, number) -> value` to store for NaN and infinities; refuses them by default.
      path: where in the whole the value stands, for messages.

    Raises:
      ValueError: a value has no form in JSON; its dotted path is named.

    >>> plain({"beta": (np.float64(0.5), 1)})
    {'beta': [0.5, 1]}
    """
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        value = np.asarray(value).tolist()
    if isinstance(value, Mapping):
        return {str(k): plain(v, non_finite, f"{path}.{k}" if path else str(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v, non_finite, f"{path}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, float) and not np.isfinite(value):
        return non_finite(path, value)
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise ValueError(
        f"{path or 'the value'} is {value!r} of type {type(value).__name__}, which has no form in JSON; "
        "expected numbers, strings, bools, None, arrays, or lists and dicts of these."
    )


def raw_bytes(array: Shaped[np.ndarray, "..."]) -> memoryview:
    """Returns the contents of an array in C order, for checksums; any dtype, bfloat16 too."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
