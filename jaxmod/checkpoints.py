"""Checkpoints: a thin layer over Orbax that notices damage and keeps the one before.

Orbax restores a flipped bit silently, and meets a damaged index with tracebacks from other threads.
So `manifest.json` holds a CRC32 per array and per file: the files are checked before Orbax reads
them, the arrays after. A checkpoint gets its name when all of it is on the disk, the last two are
kept, and a damaged one is passed over in favour of the one before.

With several hosts the folder is on storage that all of them share. Every host writes its part of the arrays
and says their CRC32; host 0 does the rest. Any number of hosts can read it again, and all read the same one.
"""

import contextlib
import functools
import itertools
import json
import logging
import os
import re
import shutil
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from jaxmod import files, hosts, trees
from jaxmod.train import devices

__all__ = ["restore_latest", "save"]

_KEPT = 2
_MANIFEST = "manifest.json"


class _BrokenError(Exception):
    """A checkpoint cannot be read, or its contents are not those that were saved."""


def save(directory: str | os.PathLike[str], step: int, tree: PyTree) -> None:
    """Saves a pytree of arrays as the newest checkpoint, `directory/step`.

    When it is complete, all but the last two checkpoints are deleted, and with them those of later
    steps: a run that went back to an earlier step has given them up.

    Args:
      directory: holds the checkpoints of one thing and is written by one study at a time.
      step: what `restore_latest` will return with the tree.
      tree: JAX or NumPy arrays; `None` leaves are fine. Every host gives its tree; what is not spread
        over them is taken from host 0.

    Raises:
      OSError: the checkpoint could not be written, because the disk is full for instance. The earlier
        ones are untouched.
    """
    directory = Path(os.path.abspath(directory))
    leaves = [
        (path, x if devices.on_several_hosts(x) else np.asarray(x))
        for path, x in trees.paths_and_leaves(tree)
    ]
    # Orbax refuses arrays of size 0 and empty trees. Leaves go by number: a name may hold anything.
    arrays = {str(i): x for i, (_, x) in enumerate(leaves) if x.size} | {"step": np.asarray(step)}
    fresh = directory / f"{step}.new"

    def prepare() -> None:
        directory.mkdir(parents=True, exist_ok=True)
        _tidy(directory)

    def seal(sums: list[int | list[int]]) -> None:
        entries = [[*_describe(path, x), crcs] for (path, x), crcs in zip(leaves, sums, strict=True)]
        files.write_json(fresh / _MANIFEST, _sealed(step, entries, _file_sums(fresh)))
        _settle(fresh)

    def write() -> None:
        with _orbax() as orbax:
            orbax.save(fresh, args=ocp.args.PyTreeSave(arrays))

    try:
        hosts.on_first(prepare)
        hosts.together(write)
        sums = _all_sums([x for _, x in leaves])
        hosts.on_first(lambda: seal(sums))
    except Exception as error:
        # What was written of it may be what fills the disk; a complete one only lacks its name.
        for half in directory.glob(f"{fresh.name}*"):
            if not (half / _MANIFEST).exists():
                shutil.rmtree(half, ignore_errors=True)
        raise OSError(
            f"The checkpoint of step {step} could not be written to {directory}: {_reason(error)}. "
            "Those before it are untouched: once there is room, the same command goes on from the last."
        ) from error
    if hosts.is_first():
        steps = _steps(directory)
        kept = [s for s in steps if s <= step][-_KEPT:]
        stale = [directory / str(s) for s in steps if s not in kept]
        for old in [*stale, *directory.glob("*.broken"), *directory.glob("*.new*")]:
            shutil.rmtree(old, ignore_errors=True)


def restore_latest(directory: str | os.PathLike[str], like: PyTree) -> tuple[int, PyTree] | None:
    """Returns `(step, tree)` of the newest checkpoint that is whole, None if there is none at all.

    A broken one (cut short, a file missing, a bit flipped) is passed over with a warning and set
    aside as `STEP.broken`; the next `save` deletes it.

    Args:
      directory: as given to `save`.
      like: has the structure, shapes and dtypes of the saved tree; arrays or `ShapeDtypeStruct`s.
        A leaf comes back as a NumPy array where this has one, else as a JAX array, with the sharding
        of the leaf here if that was placed on purpose. The saved one may have had another.

    Raises:
      ValueError: the checkpoint holds another tree than `like` (the first differing path is named).
      OSError: there are checkpoints but every one is broken.
    """
    directory = Path(os.path.abspath(directory))

    def steps() -> list[int]:
        _tidy(directory)
        return _steps(directory) if directory.is_dir() else []

    wanted = [_describe(path, leaf) for path, leaf in trees.paths_and_leaves(like)]
    broken: dict[int, str] = {}
    for step in reversed(hosts.exchange(hosts.on_first(steps))[0]):
        arrays, reason = hosts.together(functools.partial(_read, directory / str(step), wanted))
        # What one host cannot read, none goes on from.
        if reasons := [reason for reason in hosts.exchange(reason) if reason]:
            broken[step] = reasons[0]
            continue
        leaves, treedef = jax.tree.flatten(like)
        tree = jax.tree.unflatten(treedef, map(_place, arrays, leaves))
        for bad, reason in broken.items():
            hosts.on_first(functools.partial(_set_aside, directory / str(bad)))
            warnings.warn(
                f"The checkpoint of step {bad} in {directory} is broken ({reason}); "
                f"the one of step {step} is used instead.",
                stacklevel=2,
            )
        return step, tree
    if broken:
        reasons = "; ".join(f"step {step}: {reason}" for step, reason in broken.items())
        raise OSError(
            f"Every checkpoint in {directory} is broken ({reasons}). Put back a copy of this folder if there "
            "is one, or delete it to start this stage anew."
        )
    return None


@contextlib.contextmanager
def _orbax() -> Iterator[ocp.Checkpointer]:
    # Orbax logs routine events as warnings, and as errors what is raised here anyway.
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        # Trained weights do not compress: zstd would take four times as long for nothing.
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_compression=False)) as checkpointer:
            yield checkpointer
    finally:
        logger.setLevel(level)


def _describe(path: str, leaf: Any) -> list[Any]:
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return [path, np.dtype(leaf.dtype).name, list(leaf.shape)]


def _sum(x: np.ndarray) -> int:
    return zlib.crc32(files.raw_bytes(x))


def _all_sums(arrays: list[Any]) -> list[int | list[int]]:
    """Returns the CRC32 of each array; of one spread over hosts, those of the equal parts of the devices."""
    own = [[(part, _sum(data)) for part, data in devices.own_parts(x)] for x in arrays]
    # Host 0 comes last, so that what every host has counts as host 0 wrote it.
    told = reversed(hosts.exchange(own))
    merged = [dict(itertools.chain.from_iterable(parts)) for parts in zip(*told, strict=True)]
    sums = [[parts[i] for i in sorted(parts)] for parts in merged]
    return [crcs if devices.on_several_hosts(x) else crcs[0] for x, crcs in zip(arrays, sums, strict=True)]


def _sealed(step: int, arrays: list[list[Any]], sums: dict[str, int]) -> dict[str, Any]:
    """Returns the manifest with a checksum of itself: names are as exposed as numbers."""
    body = {"step": int(step), "arrays": arrays, "files": sums}
    return {**body, "crc32": zlib.crc32(json.dumps(body).encode())}


def _file_sums(path: Path) -> dict[str, int]:
    """Returns the CRC32 of every file of a checkpoint but the manifest."""
    sums = {}
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        crc = 0
        with open(file, "rb") as data:
            while block := data.read(1 << 24):
                crc = zlib.crc32(block, crc)
        sums[file.relative_to(path).as_posix()] = crc
    sums.pop(_MANIFEST, None)
    return sums


def _read(path: Path, wanted: list[list[Any]]) -> tuple[list[np.ndarray], str]:
    """Returns the arrays of a checkpoint, and why it is broken if it is."""
    try:
        manifest = _read_manifest(path)
        _check_fits(manifest, wanted, path)
        return _read_arrays(path, manifest), ""
    except _BrokenError as error:
        return [], str(error)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / _MANIFEST).read_bytes())
        sealed = _sealed(manifest["step"], manifest["arrays"], manifest["files"])
    except FileNotFoundError as error:
        raise _BrokenError(f"it has no {_MANIFEST}") from error
    except OSError:
        raise  # the disk or the process is in trouble, not the checkpoint
    except Exception as error:
        raise _BrokenError(f"{_MANIFEST} cannot be read: {_reason(error)}") from error
    if manifest != sealed or str(manifest["step"]) != path.name:
        raise _BrokenError(f"{_MANIFEST} is not as it was saved")
    return manifest


def _check_fits(manifest: dict[str, Any], wanted: list[list[Any]], path: Path) -> None:
    for entry, want in itertools.zip_longest([entry[:3] for entry in manifest["arrays"]], wanted):
        if entry != want:
            there, here = ("no more arrays" if e is None else "{!r}, {}{}".format(*e) for e in (entry, want))
            raise ValueError(
                f"The checkpoint {path} holds another tree: it has {there} where {here} is expected. "
                "It belongs to another model, optimizer or number of runs; use another folder."
            )


def _read_arrays(path: Path, manifest: dict[str, Any]) -> list[np.ndarray]:
    as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
    stored = {str(i): as_numpy for i, (_, _, shape, _) in enumerate(manifest["arrays"]) if 0 not in shape}
    sums = _file_sums(path)
    try:
        for name, crc in manifest["files"].items():
            if sums.get(name) != crc:
                raise _BrokenError(f"{name} is {'not as it was saved' if name in sums else 'missing'}")
        args = ocp.args.PyTreeRestore(restore_args={**stored, "step": as_numpy})
        with _orbax() as orbax:
            found = orbax.restore(path, args=args)
        arrays = [found.get(str(i), np.zeros(s, d)) for i, (_, d, s, _) in enumerate(manifest["arrays"])]
    except _BrokenError:
        raise
    except Exception as error:
        raise _BrokenError(f"it cannot be read: {_reason(error)}") from error
    for (leaf_path, dtype, shape, crcs), x in zip(manifest["arrays"], arrays, strict=True):
        parts = np.split(x, len(crcs)) if isinstance(crcs, list) else [x]
        sums = list(map(_sum, parts))
        if _describe(leaf_path, x) != [leaf_path, dtype, shape] or sums != np.atleast_1d(crcs).tolist():
            raise _BrokenError(f"{leaf_path!r} does not have the CRC32 it was saved with")
    return arrays


def _place(array: np.ndarray, like: Any) -> Any:
    if not isinstance(like, (jax.Array, jax.ShapeDtypeStruct)):
        return array
    # A leaf that nobody placed must stay free to follow the others in a computation.
    placed = not isinstance(like, jax.Array) or like.committed
    return devices.put(array, like.sharding) if placed and like.sharding else jax.device_put(array)


def _steps(directory: Path) -> list[int]:
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal())


def _settle(fresh: Path) -> None:
    """Gives a complete checkpoint its name, in place of an older one of the same step."""
    final = fresh.with_suffix("")
    if final.exists():
        shutil.rmtree(final)
    fresh.rename(final)


def _tidy(directory: Path) -> None:
    """Finishes what a killed process left: half a checkpoint goes, a complete one gets its name."""
    for fresh in directory.glob("*.new*"):
        if fresh.suffix == ".new" and (fresh / _MANIFEST).exists():
            _settle(fresh)
        else:
            shutil.rmtree(fresh)


def _set_aside(path: Path) -> None:
    aside = path.with_suffix(".broken")
    if aside.exists():
        shutil.rmtree(aside)
    path.rename(aside)


def _reason(error: Exception) -> str:
    """Returns what an exception says in a line; TensorStore's fill a page around an error number."""
    text = " ".join(str(error).split()) or type(error).__name__
    code = re.search(r"os_error_code='(\d+)'", text)
    if code:
        return os.strerror(int(code[1]))
    return text if len(text) <= 300 else text[:300] + " ..."
