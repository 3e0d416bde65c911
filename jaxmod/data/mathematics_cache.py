"""Generated text of the Mathematics Dataset, kept in files: questions are dear (differentiate: 10 ms each).

MODULE-LEVEL-seedS.npz      the text, and the versions that made it
MODULE-LEVEL-seedS.parts/   what is there so far, while it is being made

Processes make parts of `PART` questions each; a run that is stopped loses the parts it was at. However many
processes, the text is the same. The questions of a smaller number are the first of a larger one: a file that
has more than is asked for serves, and one that has less is carried on.
"""

import concurrent.futures
import contextlib
import json
import multiprocessing
import signal
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from jaxmod import files
from jaxmod.data import mathematics_generator
from jaxmod.data.mathematics_generator import LEVELS, PART, generate_part
from jaxmod.writers import Progress

__all__ = ["Pairs", "generated", "join_lines", "split_lines"]

Pairs: TypeAlias = list[tuple[str, str]]
"""Questions and answers."""

WORTH = 4000
"""Questions for each process: to start one takes as long as some thousand questions of most modules."""
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


class _Job(NamedTuple):
    level: str
    part: int
    size: int


def generated(
    folder: Path,
    module: str,
    count: int,
    *,
    seed: int = 0,
    entropy: tuple[float, float] | None = None,
    processes: int = 1,
    progress: bool = False,
) -> list[Pairs]:
    """Returns `count` questions and answers for each of the `LEVELS`, from the folder or made and kept there.

    What another version of the packages made, and what is damaged, is made anew, with a warning.

    Args:
      folder: of the files; made if missing.
      module: one of `mathematics_generator.MODULES`.
      count: of questions for each level.
      seed: of the questions.
      entropy: as in `generate_part`.
      processes: that make them, at most: fewer if each had less than `WORTH` questions to make. A script that
        asks for several must keep its own work under `if __name__ == "__main__":`.
      progress: report what has been made.

    Raises:
      ValueError: questions are not there, and the package that makes them is not installed.
      OSError: the folder cannot be written.
    """
    span = "" if entropy is None else f"-entropy{entropy[0]:g}to{entropy[1]:g}"
    stems = {level: folder / f"{module}-{level}{span}-seed{seed}" for level in LEVELS}
    wholes = {level: Path(f"{stem}.npz") for level, stem in stems.items()}
    found = {level: (_read(whole) or [])[:count] for level, whole in wholes.items()}
    missing = [level for level, pairs in found.items() if len(pairs) < count]
    jobs = [
        _Job(level, start // PART, min(PART, count - start))
        for level in missing
        for start in range(0, count, PART)
    ]
    paths = {job: Path(f"{stems[job.level]}.parts") / f"{job.part:05}.npz" for job in jobs}
    parts = {job: _part(found[job.level], job) or _read(path) for job, path in paths.items()}
    bar = Progress(f"questions of {module}", count * len(missing)) if progress else None
    wanted = [job for job in jobs if len(parts[job] or []) < job.size]
    made = sum(job.size for job in jobs) - sum(job.size for job in wanted)
    for done, (job, pairs) in enumerate(_make(wanted, module, seed, entropy, processes), start=1):
        _write(paths[job], pairs)
        parts[job] = pairs
        made += job.size
        if bar and (done == len(wanted) or done % -(-len(wanted) // 20) == 0):
            bar.update(made, {})
    for level in missing:
        found[level] = [pair for job in jobs if job.level == level for pair in (parts[job] or [])[: job.size]]
        _write(wholes[level], found[level])
    for path in paths.values():  # there may be more, of a run that asked for more and was stopped
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()
    return list(found.values())


def _part(pairs: Pairs, job: _Job) -> Pairs | None:
    """Returns the part from a file that has the first of all pairs, None if it does not reach so far."""
    start = job.part * PART
    return pairs[start : start + job.size] if start + job.size <= len(pairs) else None


def _make(
    jobs: Sequence[_Job], module: str, seed: int, entropy: Any, processes: int
) -> Iterator[tuple[_Job, Pairs]]:
    """Yields the jobs as they are done."""
    processes = min(processes, sum(job.size for job in jobs) // WORTH)
    if processes <= 1:
        for job in jobs:
            yield job, generate_part(module, job.level, job.part, job.size, seed, entropy)
        return
    # Not forked: JAX has threads.
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(processes, context, initializer=_leave_interrupts)
    try:
        futures = {
            pool.submit(generate_part, module, job.level, job.part, job.size, seed, entropy): job
            for job in jobs
        }
        for future in concurrent.futures.as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts() -> None:
    """Leaves Ctrl-C, which a terminal sends to all, to the process that waits for the parts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _write(path: Path, pairs: Pairs) -> None:
    # For each file: another process that makes the same may have been done, and removed its parts.
    path.parent.mkdir(parents=True, exist_ok=True)
    text = np.frombuffer(join_lines(pairs).encode(), np.uint8)
    made_by = np.array(json.dumps(mathematics_generator.versions()))
    files.write_atomically(path, lambda file: np.savez_compressed(file, text=text, versions=made_by))


def _read(path: Path) -> Pairs | None:
    """Returns the pairs of a file, None if it is missing, damaged or of other versions.

    Without the packages, which alone could make it anew, any version is good.
    """
    if not path.exists():
        return None
    now = mathematics_generator.versions()
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            made_by, text = json.loads(str(file["versions"])), file["text"].tobytes().decode()
        pairs = split_lines(text, str(path))
    except _UNREADABLE as error:
        warnings.warn(f"{path} is damaged and is made anew ({error}).", stacklevel=3)
        return None
    if now is not None and made_by != now:
        changed = ", ".join(
            f"{name} {made_by.get(name)}, now {now[name]}" for name in now if made_by.get(name) != now[name]
        )
        warnings.warn(f"{path} was made by other versions and is made anew ({changed}).", stacklevel=3)
        return None
    return pairs


def join_lines(pairs: Pairs) -> str:
    """Returns a line for each question and each answer, in turn, as the published files have them."""
    return "".join(f"{question}\n{answer}\n" for question, answer in pairs)


def split_lines(text: str, source: str, count: int | None = None) -> Pairs:
    r"""Returns the pairs of lines in turn question and answer; with `count` the first of them.

    >>> split_lines("Sum 1 and 2.\n3\n", "example")
    [('Sum 1 and 2.', '3')]

    Args:
      text: of a file.
      source: named in messages.
      count: of pairs, if not all.

    Raises:
      ValueError: an empty line, or a question without an answer; its number is named.
    """
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    if count is not None:
        lines = lines[: 2 * count]
    lines = [line.removesuffix("\r") for line in lines]
    if "" in lines:
        raise ValueError(
            f"{source}: line {lines.index('') + 1} is empty, expected questions and answers in turn."
        )
    if len(lines) % 2:
        raise ValueError(
            f"{source}: line {len(lines)}, {lines[-1]!r}, is a question without an answer; is it cut off?"
        )
    return list(zip(lines[::2], lines[1::2], strict=True))
