"""The folder of a run: one owner, one config, resumable stages.

config.json       every value that decides the results, the estimator among them; others are refused
environment.json  versions and device; others are warned about
metrics.jsonl     a line per chunk of a stage
results.json      written last: a run that has it is finished
checkpoints/NAME  the checkpoints of a stage

With several hosts the folder is on storage that all of them share. Each calls everything here, in the same
order; host 0 owns the folder and writes, but for the checkpoints, to which every host adds its part.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxmod import checkpoints, files, hosts, records, trees

__all__ = ["Stage", "Workdir", "fingerprint", "open_stage"]


class Stage(NamedTuple):
    """One stage of training in a workdir: its checkpoints and its lines in `metrics.jsonl`."""

    name: str
    workdir: Path

    @property
    def folder(self) -> Path:
        """The folder of this stage's checkpoints."""
        return self.workdir / "checkpoints" / self.name

    def guard(self, record: Mapping[str, Any]) -> None:
        """Makes sure that the stage goes on with what it was begun with.

        Args:
          record: all that decides the stage's result; kept beside its checkpoints.

        Raises:
          ValueError: the stage was begun with another record, or another host has another one (the differing
            keys are named).
        """
        file = self.folder.with_name(f"{self.name}.json")  # a name may have dots
        owner = f"stage {self.name!r} of workdir {self.workdir}"

        def check() -> None:
            file.parent.mkdir(exist_ok=True)
            records.check_record(file, record, owner)

        records.check_hosts_agree(record, owner)
        hosts.on_first(check)

    def restore(self, like: PyTree) -> tuple[int, PyTree] | None:
        """Returns `(step, tree)` of the newest good checkpoint, None if the stage has none.

        Lines of the stage in `metrics.jsonl` after that step are dropped: the run will write them
        again. See `checkpoints.restore_latest` for `like`, warnings and errors.
        """
        restored = checkpoints.restore_latest(self.folder, like)
        last = -float("inf") if restored is None else restored[0]
        if hosts.is_first():
            _rewrite_metrics(
                self.workdir, lambda entry: entry.get("phase") != self.name or entry.get("step", 0) <= last
            )
        return restored

    def save(self, step: int, tree: PyTree) -> None:
        """Saves a checkpoint, after the step's line is logged: a kill in between loses no line."""
        checkpoints.save(self.folder, step, tree)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends `{"phase": name, "step": step, **values}` to `metrics.jsonl`; NaN becomes null."""
        if not hosts.is_first():
            return
        entry = {"phase": self.name, "step": step, **values}
        line = json.dumps(files.plain(entry, lambda path, number: None), allow_nan=False)
        with open(_metrics(self.workdir), "a", encoding="utf-8") as file:
            file.write(line + "\n")


class Workdir:
    """The folder of a run, owned by this process until `close`; a context manager.

    >>> with tempfile.TemporaryDirectory() as folder, Workdir.open(folder, {"seeds": 3}) as workdir:
    ...     workdir.write_results({"accuracy": 0.5})
    ...     workdir.results()
    {'accuracy': 0.5}
    """

    path: Path

    def __init__(self, path: Path, lock: TextIO | None):
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, path: str | os.PathLike[str], config: Mapping[str, Any]) -> "Workdir":
        """Returns the workdir at `path`, made if missing, for a run with this config.

        Args:
          path: the folder. It can be opened again after `close`, or after its owner died.
          config: every value that decides the results, nested as it likes.

        Raises:
          ValueError: the folder cannot be written, is in use by another process, has another config (the
            differing keys are named), its `config.json` is damaged, or another host has another config.
        """
        path = Path(path)
        records.check_hosts_agree(config, f"workdir {path}")
        return cls(path, hosts.on_first(lambda: _own(path, config)))

    def results(self) -> dict[str, Any] | None:
        """Returns what `write_results` wrote, as host 0 reads it; None if the run is not finished."""
        file = self.path / "results.json"
        advice = "Delete the file to compute the results again."
        return hosts.exchange(hosts.on_first(lambda: records.read_json(file, advice)))[0]

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Writes `results.json`, which says that the run is finished. NaN is refused."""
        files.write_json(self.path / "results.json", results)

    def part(self, name: str, compute: Callable[[], Any]) -> Any:
        """Returns `compute()` as JSON keeps it, from `parts/NAME.json` if an earlier call wrote that.

        For what takes minutes and is no training, so that a run that was stopped does not repeat it. The
        config of the workdir must decide the value. Host 0 computes.

        Raises:
          ValueError: the name cannot serve as a file's, or the file is damaged.
        """
        _check_name(name)
        file = self.path / "parts" / f"{name}.json"

        def get() -> Any:
            if (kept := records.read_json(file, "Delete the file to compute it again.")) is None:
                file.parent.mkdir(exist_ok=True)
                files.write_json(file, {"value": compute()})
                kept = records.read_json(file, "")
            return kept and kept["value"]

        return hosts.exchange(hosts.on_first(get))[0]

    def stage(self, name: str) -> Stage:
        """Returns the stage of this name; ValueError unless it can serve as a folder's name."""
        _check_name(name)
        return Stage(name, self.path)

    def close(self) -> None:
        """Gives the folder up for others; once is enough, twice does no harm."""
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> "Workdir":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def open_stage(
    workdir: "str | os.PathLike[str] | Workdir | Stage | None",
    name: str,
    record: Callable[[], dict[str, Any]],
) -> Iterator[Stage | None]:
    """Yields the stage to work in, None without a workdir.

    Args:
      workdir: a folder, which is then a workdir of its own; an open `Workdir`; or one of its stages.
      name: of the stage, if `workdir` is none.
      record: gives all that decides the result; called only if there is a workdir to guard.

    Raises:
      ValueError: the workdir or stage was begun with another record, or cannot be used.
    """
    if workdir is None:
        yield None
    elif isinstance(workdir, Stage | Workdir):
        stage = workdir if isinstance(workdir, Stage) else workdir.stage(name)
        stage.guard(record())
        yield stage
    else:
        with Workdir.open(workdir, record()) as folder:
            yield folder.stage(name)


def fingerprint(tree: PyTree) -> str:
    """Returns the SHA-256 over path, dtype, shape and contents of every array of a pytree.

    It is the same in every process and on every device. Typed PRNG keys count with their data.

    Raises:
      ValueError: a leaf is no array of numbers.
    """
    digest = hashlib.sha256()
    for path, leaf in trees.paths_and_leaves(tree):
        is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        kind = str(jax.random.key_impl(leaf)) if is_key else ""
        array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        if array.dtype.hasobject:
            raise ValueError(f"leaf {path!r} is {leaf!r} of type {type(leaf).__name__}, expected an array.")
        # The header tells how many bytes follow, so that two trees never give the same stream.
        digest.update(json.dumps([path, kind, array.dtype.name, array.shape]).encode() + b"\n")
        digest.update(files.raw_bytes(array))
    return digest.hexdigest()


def _check_name(name: str) -> None:
    if not re.fullmatch(r"\w[\w .,=+-]{0,99}", name, re.ASCII):
        raise ValueError(
            f"{name!r} cannot name a stage, part or task in a workdir, where it names a folder or file. "
            "Expected a letter, a digit or _, then at most 99 letters, digits, spaces or any of _.,=+-"
        )


def _own(path: Path, config: Mapping[str, Any]) -> TextIO:
    """Returns the lock of a folder that is ours, brought in order for a run with this config."""
    lock = _lock(path)
    try:
        records.check_record(path / "config.json", config, f"workdir {path}")
        files.remove_leftovers(path)
        records.check_environment(path)
        _rewrite_metrics(path, lambda entry: True)
    except BaseException:
        lock.close()
        raise
    return lock


def _lock(path: Path) -> TextIO:
    """Returns the open lock file of a folder that is ours and truly writable."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = open(path / ".lock", "a+", encoding="utf-8")
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        # The kernel drops the lock with the process, however that ends: a dead owner blocks nobody.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Permissions do not tell (root, read-only mounts, a full disk); writing does.
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(b"x")
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read()
        lock.close()
        raise ValueError(
            f"workdir {path} is in use by the running process {owner or '(unknown)'}; wait for it, stop it, "
            "or give another workdir."
        ) from None
    except OSError as error:
        lock.close()
        raise _unusable(path, error) from error
    return lock


def _unusable(path: Path, error: OSError) -> ValueError:
    return ValueError(
        f"workdir {path} cannot be written: {error.strerror or error}. "
        "Give a folder that can be made and written."
    )


def _metrics(workdir: Path) -> Path:
    return workdir / "metrics.jsonl"


def _rewrite_metrics(workdir: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Drops the lines of `metrics.jsonl` that `keep` does not want, and a line cut short by a kill."""

    def wanted(line: bytes) -> bool:
        try:
            entry = json.loads(line)
        except ValueError:
            return False
        return line.endswith(b"\n") and isinstance(entry, dict) and keep(entry)

    file = _metrics(workdir)
    if not file.exists():
        return
    lines = file.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if wanted(line)]
    if kept != lines:
        files.write_atomically(file, lambda out: out.write(b"".join(kept)))
