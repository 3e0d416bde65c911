"""What a run was begun with: kept in a file, compared with what comes later and with the other hosts."""

import importlib.metadata
import json
import platform
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxmod import files, hosts

__all__ = ["check_environment", "check_hosts_agree", "check_record", "read_json"]

_PACKAGES = ("jax", "jaxlib", "jaxmod", "numpy", "flax", "optax")


def check_hosts_agree(record: Mapping[str, Any], owner: str) -> None:
    """Raises ValueError, on every host, naming the values that another host has than host 0."""
    first, *others = hosts.exchange(files.plain(record, lambda _, number: str(number)))
    for host, other in enumerate(others, start=1):
        if differing := _differences(first, other, ("on host 0", f"on host {host}")):
            raise ValueError(
                f"{owner} was given other values on host {host}:\n"
                + "\n".join(f"  {line}" for line in differing)
                + "\nGive every host the same command and data."
            )


def check_record(file: Path, record: Mapping[str, Any], owner: str) -> None:
    """Keeps a record in `file` the first time, and refuses another one from then on.

    Raises:
      ValueError: the file has another record (the differing keys are named), or cannot be read.
    """
    here = files.plain(record, lambda _, number: str(number))
    there = read_json(file, f"Put the file back, or delete {file.parent} to start anew.")
    if there is None:
        files.write_json(file, here)
    elif differing := _differences(there, here):
        raise ValueError(
            f"{owner} belongs to a run with another config:\n"
            + "\n".join(f"  {line}" for line in differing)
            + "\nGive another workdir, or delete this one to start anew."
        )


def check_environment(path: Path) -> None:
    """Keeps versions and device in `environment.json` of a workdir, and warns if they were others."""
    file = path / "environment.json"
    here: dict[str, Any] = {name: _version(name) for name in _PACKAGES}
    here |= {"python": platform.python_version(), "platform": jax.default_backend()}
    here |= {"device": jax.devices()[0].device_kind}
    there = read_json(file, "It only says on what the run began; delete it.")
    if there is None:
        files.write_json(file, here)
    elif differing := _differences(there, here):
        warnings.warn(
            f"workdir {path} was begun in another environment, so the numbers may differ in the last bits: "
            + "; ".join(differing),
            stacklevel=6,
        )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _differences(
    there: Mapping[str, Any], here: Mapping[str, Any], sides: tuple[str, str] = ("there", "here")
) -> list[str]:
    old, new = _flatten(there), _flatten(here)
    keys = [*old, *(key for key in new if key not in old)]
    shown = {key: [repr(side[key]) if key in side else "absent" for side in (old, new)] for key in keys}
    return [
        f"{key}: {shown[key][0]} {sides[0]}, {shown[key][1]} {sides[1]}"
        for key in keys
        if key not in old or key not in new or old[key] != new[key]
    ]


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            flat |= _flatten(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat


def read_json(file: Path, advice: str) -> dict[str, Any] | None:
    """Returns the object in a JSON file, None if there is no such file.

    Raises:
      ValueError: it cannot be read as one; `advice` says what to do then.
    """
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read ({error}): cut short or edited? {advice}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{file} holds no JSON object: cut short or edited? {advice}")
    return value
