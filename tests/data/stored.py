"""Small data sets, made up, and the ways in which real ones are stored."""

import gzip
import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

SHAPES = {"mnist": (28, 28), "fashion_mnist": (28, 28), "cifar10": (32, 32, 3)}


def fake_arrays(name, train=40, test=20):
    """Returns random images; the label of the i-th is the last digit of i."""
    random = np.random.default_rng(7)
    arrays = {}
    for split, size in (("train", train), ("test", test)):
        arrays[f"x_{split}"] = random.integers(256, size=(size, *SHAPES[name]), dtype=np.uint8)
        arrays[f"y_{split}"] = (np.arange(size) % 10).astype(np.uint8)
    return arrays


def idx_bytes(array):
    """Returns a uint8 array in the IDX format, written by hand."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def write_idx(folder, arrays):
    """Writes the four files of Fashion-MNIST's Debian package."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, stem in (("train", "train"), ("test", "t10k")):
        for kind, end in (("x", "images-idx3"), ("y", "labels-idx1")):
            content = gzip.compress(idx_bytes(arrays[f"{kind}_{split}"]), mtime=0)
            (folder / f"{stem}-{end}-ubyte.gz").write_bytes(content)


class _Fake(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The images of `fake_arrays` in TFDS: as PNG, like the real ones."""

    VERSION = tfds.core.Version("3.0.10")

    def _info(self):
        shape = (*SHAPES[self.name], 1)[:3]
        features = {
            "image": tfds.features.Image(shape=shape),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples("train"), "test": self._generate_examples("test")}

    def _generate_examples(self, split):
        arrays = fake_arrays(self.name)
        for i, (image, label) in enumerate(zip(arrays[f"x_{split}"], arrays[f"y_{split}"], strict=True)):
            file = io.BytesIO()
            Image.fromarray(image).save(file, "PNG")
            file.seek(0)
            yield i, {"image": file, "label": int(label)}


def prepare_tfds(name, folder):
    """Prepares `fake_arrays(name)` as `tfds build NAME --file_format=array_record` would.

    Returns the folder. TensorFlow is not needed.
    """
    tfds.disable_progress_bar()
    # TFDS takes the name from the class.
    builder = type(name, (_Fake,), {"name": name}, skip_registration=True)
    builder(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder / name / "3.0.10"


class _FakeScan(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Lines of SCAN in TFDS."""

    VERSION = tfds.core.Version("1.1.1")
    name = "scan"
    lines: dict[str, list[tuple[str, str]]] = {}

    def _info(self):
        features = {"commands": tfds.features.Text(), "actions": tfds.features.Text()}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split):
        for i, (commands, actions) in enumerate(self.lines[split]):
            yield i, {"commands": commands, "actions": actions}


def prepare_scan(split, lines, folder):
    """Prepares `{"train": [(command, actions), ...], "test": ...}` as `tfds build scan/SPLIT` would."""
    tfds.disable_progress_bar()
    configs = [tfds.core.BuilderConfig(name=split)]
    builder = type("scan", (_FakeScan,), {"BUILDER_CONFIGS": configs, "lines": lines}, skip_registration=True)
    builder(config=split, data_dir=folder, file_format="array_record").download_and_prepare()
