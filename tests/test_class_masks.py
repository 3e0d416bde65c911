"""Masks without a class: the output layer is the control's, the rest is trained on the other classes."""

import jax
import numpy as np
import pytest

import jaxmod as jm
from jaxmod import class_masks
from jaxmod.workdir import Workdir
from tests.helpers import assert_trees_close, tiny_data, tiny_loss, tiny_params

CONFIG = jm.MaskConfig(8, batch_size=16, num_samples=2, learning_rate=0.2, beta=0.1, chunk_steps=4)
KEYS = jax.random.split(jax.random.key(0), 2)


@pytest.fixture(scope="module")
def params():
    return jax.vmap(tiny_params)(KEYS)


def find(params, estimator, data, **options):
    labels = np.asarray(data["y"])
    return class_masks.find_class_masks(
        tiny_loss, params, labels, output="output/kernel", keys=KEYS, estimator=estimator,
        data=data, config=CONFIG, **options,
    )  # fmt: skip


@pytest.mark.parametrize("estimator", [jm.gumbel_sigmoid(), jm.edge_popup(0.5)], ids=["gumbel", "edge_popup"])
def test_the_output_layer_is_the_controls_and_each_class_is_left_out_once(params, estimator, tmp_path):
    data = tiny_data()
    labels = np.asarray(data["y"])
    with Workdir.open(tmp_path, {}) as workdir:
        found = find(params, estimator, data, stage=workdir.stage)
        assert (tmp_path / "checkpoints" / "classes").exists()
    assert len(found.without) == labels.max() + 1
    for c, module in enumerate(found.without):
        np.testing.assert_array_equal(module.mask["output"]["kernel"], found.control.mask["output"]["kernel"])
        hidden = module.mask["layer_1"]["kernel"]
        assert not np.array_equal(hidden, found.control.mask["layer_1"]["kernel"]) or estimator.stochastic
        if c:
            assert not np.array_equal(
                module.logits["layer_1"]["kernel"], found.without[0].logits["layer_1"]["kernel"]
            )


def test_a_mask_is_that_of_find_modules_on_the_other_examples(params):
    data, estimator = tiny_data(), jm.gumbel_sigmoid()
    labels = np.asarray(data["y"])
    found = find(params, estimator, data)
    start = jax.vmap(estimator.init)(KEYS, params)
    start = {**start, "output": found.control.logits["output"]}
    alone = jm.find_modules(
        tiny_loss, params, {"only": np.flatnonzero(labels != 1)}, keys=KEYS, config=CONFIG,
        estimator=estimator, data=data, params_axis=0, logits=start, trainable="layer_1/kernel",
    )["only"]  # fmt: skip
    assert_trees_close(alone.logits, found.without[1].logits, atol=1e-5)


def test_a_class_without_examples_cannot_be_left_out(params):
    data = tiny_data()
    data["y"] = np.where(np.asarray(data["y"]) == 1, 0, data["y"])
    with pytest.raises(ValueError, match="no example of class 1"):
        find(params, jm.gumbel_sigmoid(), data)
