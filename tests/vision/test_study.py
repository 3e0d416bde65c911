"""What image experiments share: axes that are mapped, convolutions by their flag, missing data."""

import dataclasses

import jax
import pytest

from experiments import class_removal
from jaxmod import cli
from jaxmod.train.axes import Axes
from jaxmod.vision import networks, study
from tests.helpers import equations

CONFIG = study.StudyConfig(dataset="digits", channels=(3, 4), seeds=2, network_steps=2, batch_size=8)


def test_what_is_mapped_is_so_for_networks_and_masks():
    given = cli.parse("class_removal", class_removal.PRESETS, ["--config.mapped=tasks,samples"]).config
    assert class_removal.mask_config(given).axes == Axes(samples="map", tasks="map")
    assert study.network_config(given).axes == Axes(samples="map", tasks="map")
    assert study.mask_config(CONFIG).axes == Axes()


def test_masks_have_the_batch_size_they_are_given():
    found = study.mask_config(dataclasses.replace(CONFIG, beta=0.5, mask_steps=7), batch_size=64, times=2)
    assert (found.batch_size, found.steps, found.beta) == (64, 14, 0.5)
    assert study.mask_config(CONFIG).batch_size == 8


def convolutions(config):
    """Returns whether the network, and whether the masked network, has convolutions of XLA."""
    data = study.load_data(config)
    functions = study.functions_of(config, data)
    batch = {name: x[:8] for name, x in data.train.items()}
    key = jax.random.key(0)
    params = jax.eval_shape(functions.init, key)
    dense = jax.make_jaxpr(functions.dense_loss)(params, functions.state, batch, key)
    masked = jax.make_jaxpr(functions.mask_loss)({"params": params, **functions.state}, batch, key)
    return tuple(
        any(eqn.primitive.name == "conv_general_dilated" for eqn in equations(program.jaxpr))
        for program in (dense, masked)
    )


def test_on_a_gpu_kernels_that_are_vmapped_have_matrix_products(monkeypatch):
    assert convolutions(CONFIG) == (False, False)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    networks.make_functions.cache_clear()
    assert convolutions(dataclasses.replace(CONFIG, seeds=1)) == (True, False)
    assert convolutions(CONFIG) == (False, False)
    assert convolutions(dataclasses.replace(CONFIG, mapped=("runs",))) == (True, False)
    assert convolutions(dataclasses.replace(CONFIG, convolution="lax")) == (True, True)
    networks.make_functions.cache_clear()


def test_data_that_are_missing_are_asked_for_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXMOD_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"(?s)cifar10.*npz"):
        study.check(dataclasses.replace(CONFIG, dataset="cifar10", channels=(3, 4)))
