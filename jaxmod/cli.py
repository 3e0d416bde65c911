"""The command line of every experiment: preset, overrides, workdir, and what is printed at the end.

    python -m experiments.NAME --preset=cpu --workdir=runs/mine --config.seeds=3 --config.hidden=800,800

Flags live in a set of their own, not in absl's global one, so that importing an experiment defines none.
"""

import contextlib
import dataclasses
import math
import os
import re
import sys
import time
import typing
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from absl import flags
from ml_collections import config_flags

from jaxmod import hosts, reports
from jaxmod.configs import KEY_IMPL, check_choice
from jaxmod.train import devices
from jaxmod.types import Estimator
from jaxmod.workdir import Workdir

__all__ = ["Command", "Refused", "main", "parse"]

_OPTIONS = "--preset, --workdir, --data_dir, --distributed or --config.FIELD=VALUE"


class Refused(ValueError):
    """What the user can mend, and only a run can find: its message alone is shown."""


class Command(NamedTuple):
    """What a command line asks for."""

    preset: str
    config: Any
    workdir: Path
    distributed: bool = False
    data_dir: str | None = None


def main(
    name: str,
    presets: Mapping[str, Any],
    run: Callable[..., dict[str, Any]],
    check: Callable[[Any], None] | None = None,
    argv: Sequence[str] | None = None,
    *,
    estimator: Callable[[Any], Estimator] | None = None,
) -> None:
    """Runs an experiment as the command line says, and leaves results, figures and report in its workdir.

    A finished run is shown again, not computed again; one that was stopped goes on. What the user can
    mend ends the process with one sentence and exit code 2, Ctrl-C with 130; a bug keeps its traceback.

    Args:
      name: of the experiment.
      presets: name -> config, dataclasses of one type; the first is the default.
      run: `run(config, workdir, progress) -> results`.
      check: raises ValueError for a config that cannot work, or data that are not there; not called for
        a finished run.
      argv: default: the process's arguments.
      estimator: `config -> estimator` of the masks. Its name is recorded in `config.json`, as is the
        generator of the keys: both decide the results.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "-help", "--help"} & set(arguments):
        print(_usage(name, presets, run))
        return
    devices.one_for_each_core()
    with _sentences(name, ValueError):
        command = parse(name, presets, arguments)
        if command.data_dir is not None:
            os.environ["JAXMOD_DATA"] = command.data_dir
        if command.distributed:
            try:
                hosts.initialize()
            except RuntimeError as error:  # of JAX: the other hosts cannot be reached
                raise ValueError(f"--distributed: {error}") from error
        # A finished run is shown whether its data are still there or not; another config is refused below.
        if check is not None and not (command.workdir / "results.json").exists():
            check(command.config)
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.showwarning = _show_warning
        # A terminal that has no "±" must not end a run.
        for stream in (sys.stdout, sys.stderr):
            getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
        with _sentences(name, ValueError, OSError, ImportError):
            # Not at the top: matplotlib is optional, and to miss it after the work would be late.
            from jaxmod import figures, pages  # noqa: F401

            record = {"experiment": name, **dataclasses.asdict(command.config), "key_impl": KEY_IMPL}
            if estimator is not None:
                record["estimator"] = estimator(command.config).name
            workdir = stack.enter_context(Workdir.open(command.workdir, record))
            results = workdir.results()
        # FloatingPointError: a loss that is not finite. Other errors from here on are bugs.
        with _sentences(name, Refused, OSError, FloatingPointError, MemoryError):
            try:
                _finish(command, record, workdir, results, run)
            except KeyboardInterrupt:
                print("\nInterrupted. The same command resumes where it stopped.", file=sys.stderr)
                raise SystemExit(130) from None


def parse(name: str, presets: Mapping[str, Any], argv: Sequence[str]) -> Command:
    """Returns what the arguments ask for: the preset, with the overrides that were really given.

    Raises:
      ValueError: an unknown option, field or preset, or a value of the wrong type; the message names it
        and what is allowed.
    """
    default = next(iter(presets))
    hints = typing.get_type_hints(type(presets[default]))
    for argument in argv:
        if field := re.match(r"--?(?:no)?config\.([^=]*)", argument):
            check_choice("--config.", field[1], hints)
        if re.match(r"--?config(=|$)", argument):
            raise ValueError(f"{argument}: set one field at a time, --config.FIELD=VALUE.")
    argv = [_quoted(argument, hints) for argument in argv]
    values = flags.FlagValues()
    flags.DEFINE_string("preset", default, "", flag_values=values)
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    flags.DEFINE_bool("distributed", False, "", flag_values=values)
    flags.DEFINE_string("data_dir", None, "", flag_values=values)
    config_flags.DEFINE_config_dataclass(
        "config", dataclasses.replace(presets[default]), flag_values=values, sys_argv=list(argv)
    )
    try:
        _, *rest = values([name, *argv])
    except flags.UnrecognizedFlagError as error:
        raise ValueError(f"--{error.flagname} is no option; expected {_OPTIONS}.") from None
    except flags.IllegalFlagValueError as error:
        field = re.match(r"flag --config\.(\w+)=(.*?): ", str(error), re.DOTALL)
        if field is None:
            raise ValueError(str(error)) from None
        raise _wrong_type(field[1], field[2], hints[field[1]]) from None
    except flags.Error as error:
        raise ValueError(f"{str(error).rstrip('.')}.") from None
    if rest:
        raise ValueError(f"{rest[0]!r} is no option; expected {_OPTIONS}.")
    preset = str(values["preset"].value)
    check_choice("--preset=", preset, presets)
    overrides = config_flags.get_override_values(values["config"])
    config = dataclasses.replace(
        presets[preset], **{field: _typed(field, value, hints[field]) for field, value in overrides.items()}
    )
    workdir = Path(values["workdir"].value or f"runs/{name}-{preset}")
    data_dir = values["data_dir"].value
    return Command(preset, config, workdir, bool(values["distributed"].value), data_dir and str(data_dir))


def _quoted(argument: str, hints: Mapping[str, Any]) -> str:
    """Returns an override whose words have quotes: the flags read it as Python, and paths are no Python."""
    given = re.fullmatch(r"(--?config\.(\w+)=)([^(\['\"].*)", argument, re.DOTALL)
    if given is None or typing.get_args(hints[given[2]])[:1] != (str,):
        return argument
    return given[1] + repr(tuple(word.strip() for word in given[3].split(",")))


def _typed(field: str, value: Any, hint: Any) -> Any:
    """Returns an override as its field's type; the flags leave the elements of tuples unchecked."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"--config.{field}={value}: expected a finite number.")
    if not isinstance(value, tuple):
        return value
    kind = typing.get_args(hint)[0]
    if kind is str:
        return tuple(part for item in value for part in str(item).split(",") if part)
    if value == ("",):
        return ()
    # An integer is a number too; a bool is no integer.
    if not all(type(part) is kind or (type(part), kind) == (int, float) for part in value):
        raise _wrong_type(field, reports.format_value(value), hint)
    return tuple(map(kind, value))


def _wrong_type(field: str, value: str, hint: Any) -> ValueError:
    if typing.get_origin(hint) is tuple:
        many = {int: "integers", float: "numbers"}
        expected = f"{many.get(typing.get_args(hint)[0], 'words')} separated by commas"
    else:
        names = {int: "an integer", float: "a number", bool: "true or false", str: "a word"}
        expected = " or ".join(names[kind] for kind in (hint, *typing.get_args(hint)) if kind in names)
    return ValueError(f"--config.{field}={value}: expected {expected}.")


def _usage(name: str, presets: Mapping[str, Any], run: Callable[..., Any]) -> str:
    text = (getattr(sys.modules.get(run.__module__), "__doc__", None) or name).strip()
    default, *others = presets
    columns = [dataclasses.asdict(config) for config in presets.values()]
    lines = [["--config.", *presets]] + [
        [field, *(reports.format_value(values[field]) for values in columns)] for field in columns[0]
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    table = ("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)
    options = [
        f"--preset=NAME     {', '.join([f'{default} (default)', *others])}",
        f"--workdir=FOLDER  default: runs/{name}-PRESET",
        "--data_dir=FOLDER where data sets lie, for experiments that need them; default: $JAXMOD_DATA",
        "--distributed     one of several hosts, each given the same command",
        "--config.FIELD=VALUE; the fields, and their values in each preset:",
    ]
    return "\n".join([text, "", *options, "", *(f"  {line}" for line in table)])


def _finish(
    command: Command,
    record: Mapping[str, Any],
    workdir: Workdir,
    results: dict[str, Any] | None,
    run: Callable[..., dict[str, Any]],
) -> None:
    """Computes what is missing of results, figures and report, and prints the tables."""
    from jaxmod import figures, pages

    started = time.monotonic()
    report = workdir.path / "report.html"
    finished = results is not None
    if results is None:
        made = run(command.config, workdir, progress=True)
        workdir.write_results({"experiment": record["experiment"], "preset": command.preset, **made})
        # As read back, so that figures drawn later are the same.
        results = workdir.results() or {}
    if not hosts.is_first():
        return
    paths = figures.figure_paths(results, workdir.path / "figures")
    if not finished or not all(path.exists() for path in (report, *paths.values())):
        drawn = figures.draw_all(results, workdir.path / "figures")
        pages.write_report(results, record, drawn, report)
    if finished:
        print(f"This run is finished; nothing is computed again. Report: {report}\n")
        print(reports.summary(results))
        return
    print(f"\n{reports.summary(results)}\n")
    print(f"Report: {report}\nFinished in {_duration(time.monotonic() - started)}.")


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h"] * (hours > 0) + [f"{minutes} min"] * (minutes > 0 or hours > 0) + [f"{seconds} s"]
    return " ".join(parts)


@contextlib.contextmanager
def _sentences(name: str, *kinds: type[Exception]):
    """Ends the process with the message alone for errors that the user can mend."""
    try:
        yield
    except kinds as error:
        _refuse(name, error)


def _refuse(name: str, error: Exception) -> NoReturn:
    message = str(error)
    if isinstance(error, ImportError):
        message = f"{message}; install what experiments need: pip install 'jaxmod[experiments]'."
    print(f"{name}: {message}", file=sys.stderr)
    raise SystemExit(2) from None


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    if hosts.is_first():
        print(f"warning: {message}", file=sys.stderr)
