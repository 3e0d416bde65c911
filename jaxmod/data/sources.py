"""Where data sets lie on this computer: `NAME.npz`, TensorFlow Datasets, a Debian package.

Nothing is downloaded, and what is found is returned as it is stored: `images` checks it.
"""

import gzip
import math
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

__all__ = ["ARRAYS", "Stored", "data_folder", "find", "read_idx", "read_npz", "read_tfds", "tfds_records"]

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
"""Images and labels of both splits, by their names in Keras."""

_DEBIAN_FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
_IDX_FILES = {
    "x_train": "train-images-idx3-ubyte.gz",
    "y_train": "train-labels-idx1-ubyte.gz",
    "x_test": "t10k-images-idx3-ubyte.gz",
    "y_test": "t10k-labels-idx1-ubyte.gz",
}
_UNREADABLE = (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error)
_KERAS_MNIST = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"


class Stored(NamedTuple):
    """A data set as it was found."""

    arrays: dict[str, np.ndarray]
    """The `ARRAYS`."""
    path: str
    """The file or folder."""
    in_order: bool
    """Whether the examples are in the order of their publication; TFDS shuffles them."""


def find(name: str, data_dir: str | os.PathLike[str] | None = None) -> Stored:
    """Returns the data set from the first place that has it.

    The places: `NAME.npz` in `data_dir` or else in `$JAXMOD_DATA`; a data set prepared by TensorFlow
    Datasets, in its own default folder (`$TFDS_DATA_DIR` or `~/tensorflow_datasets`); for
    Fashion-MNIST the Debian package.

    Raises:
      FileNotFoundError: no place has it; the commands that bring it are named. Or the folder does
        not exist.
      ValueError: what was found cannot be read.
    """
    folder = data_folder(data_dir)
    if folder and (folder / f"{name}.npz").exists():
        return read_npz(folder / f"{name}.npz")
    if prepared := read_tfds(name):
        return prepared
    if name == "fashion_mnist" and Path(_DEBIAN_FASHION_MNIST).exists():
        return read_idx(_DEBIAN_FASHION_MNIST)
    searched = f"{folder} has no {name}.npz" if folder else "neither data_dir nor JAXMOD_DATA is set"
    raise FileNotFoundError(
        f"{name} is not on this computer ({searched}, and TensorFlow Datasets has not prepared it). "
        f"{_how_to_bring(name)}"
    )


def read_npz(path: str | os.PathLike[str]) -> Stored:
    """Returns the data set of a file in Keras' layout: x_train, y_train, x_test, y_test.

    Raises:
      ValueError: the file is no such file. Pickled objects are never loaded.
    """
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            missing = [name for name in ARRAYS if name not in file.files]
            if missing:
                raise ValueError(f"it has no {', '.join(missing)}, only {', '.join(file.files) or 'nothing'}")
            return Stored({name: file[name] for name in ARRAYS}, str(path), in_order=True)
    except _UNREADABLE as error:
        raise ValueError(
            f"{path} cannot be used: {error}. Expected an .npz file with the arrays {', '.join(ARRAYS)}, "
            "without pickled objects."
        ) from error


def read_tfds(name: str, folder: str | os.PathLike[str] | None = None) -> Stored | None:
    """Returns a data set that TensorFlow Datasets has prepared, or None. TensorFlow is not needed.

    Args:
      name: its name in TFDS.
      folder: the `data_dir` of TFDS, by default its own.

    Raises:
      ValueError: it is stored in a format without random access, or is damaged.
    """
    if (found := tfds_records(name, folder)) is None:
        return None
    records, path = found
    arrays = {}
    for split, of_split in records.items():
        arrays[f"x_{split}"] = np.array([record["image"] for record in of_split])
        arrays[f"y_{split}"] = np.array([record["label"] for record in of_split])
    return Stored(arrays, path, in_order=False)


def tfds_records(
    name: str, folder: str | os.PathLike[str] | None = None
) -> tuple[dict[str, list[dict[str, Any]]], str] | None:
    """Returns the records of `train` and `test` that TFDS has prepared, and their folder, or None.

    Args:
      name: in TFDS, "NAME" or "NAME/CONFIG".
      folder: the `data_dir` of TFDS, by default its own.

    Raises:
      ValueError: as `read_tfds`.
    """
    import tensorflow_datasets as tfds

    # A version asked for makes TFDS read what is stored, whatever made it; "*.*.*" is the newest.
    builder: Any = tfds.builder(name, version="*.*.*", data_dir=folder)
    if not builder.data_path.exists():
        return None
    records = {}
    for split in ("train", "test"):
        try:
            source = builder.as_data_source(split)
            records[split] = source.__getitems__(list(range(len(source))))  # one by one takes twice as long
        except NotImplementedError as error:
            raise ValueError(
                f"{builder.data_dir} is not stored as array_record, so only TensorFlow can read it. "
                f"Remove it and run: tfds build {name} --file_format=array_record"
            ) from error
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"{builder.data_dir} is damaged or cannot be read ({error}). Remove and prepare it anew."
            ) from error
    return records, str(builder.data_dir)


def read_idx(folder: str | os.PathLike[str]) -> Stored:
    """Returns the data set of the four gzipped IDX files in which MNIST and Fashion-MNIST are published.

    Raises:
      FileNotFoundError: one of them is missing.
      ValueError: one of them is damaged or cannot be read.
    """
    arrays = {name: _read_idx_file(Path(folder) / file) for name, file in _IDX_FILES.items()}
    return Stored(arrays, str(folder), in_order=True)


def data_folder(data_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """Returns `data_dir` or else `$JAXMOD_DATA`, None if neither is given.

    Raises:
      FileNotFoundError: it is no folder.
    """
    said_by = "data_dir" if data_dir else "JAXMOD_DATA"
    given = data_dir or os.environ.get("JAXMOD_DATA")
    if not given:
        return None
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{said_by} is {str(given)!r}, which is not a folder.")
    return folder


def _how_to_bring(name: str) -> str:
    commands = [f"pip install -e '.[tfds]' && tfds build {name} --file_format=array_record"]
    if name == "mnist":
        commands.insert(0, f"curl -o DIR/mnist.npz {_KERAS_MNIST}")
    if name == "fashion_mnist":
        commands.insert(0, "apt-get install dataset-fashion-mnist")
    listed = "\n".join(f"  {command}" for command in commands)
    return (
        f"Bring it by one of these commands:\n{listed}\n"
        f"or put {name}.npz ({', '.join(ARRAYS)}) into a folder DIR; "
        "then give --data_dir=DIR or set JAXMOD_DATA=DIR."
    )


def _read_idx_file(path: Path) -> Shaped[np.ndarray, "..."]:
    # Two zero bytes, the type (8: unsigned byte), the number of axes, their sizes, the values.
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from error
    axes = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    start = 4 + 4 * axes
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist()) if len(content) >= start else ()
    if not axes or len(shape) != axes or len(content) - start != math.prod(shape):
        raise ValueError(f"{path} is not an IDX file of bytes, or is cut off ({len(content)} bytes).")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
