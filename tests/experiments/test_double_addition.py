"""The double addition experiment at toy size: the whole chain, and its parts by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import double_addition as experiment
from jaxmod import configs, files
from jaxmod.data.arithmetic import encode_double_addition, load_double_addition

TINY = experiment.Config(
    hidden=(16, 12), seeds=1, network_steps=20, mask_steps=4, batch_size=8, num_samples=1, chunk_steps=20
)


@pytest.fixture(scope="module")
def pool():
    return jax.tree.map(jnp.asarray, load_double_addition("valid"))


def test_results_have_the_figures_numbers(tmp_path):
    results = experiment.run(dataclasses.replace(TINY, copy_weights=True))
    files.write_json(tmp_path / "results.json", results)
    assert results["layers"] == ["layer 1", "layer 2", "output"]
    assert {"iid", "pair 1", "pair 2"} == set(results["accuracy"]["control"])
    assert {"not pair 1, control I/O", "not pair 2, full I/O"} <= set(results["accuracy"])
    assert results["weights"]["pair 1"]["total"]["mean"] == 80 * 16 + 16 * 12 + 12 * 40
    # Copied wiring: pair 1 is added exactly as well as pair 2 would be with its operands.
    assert len(results["checks"]) == 3


def test_the_lstm_runs_one_pair_at_a_time():
    config = dataclasses.replace(TINY, model="lstm", mode="one_at_a_time", lstm_hidden=8, mask_steps=2)
    results = experiment.run(config)
    assert results["layers"] == ["l0 ih", "l0 hh", "l1 ih", "l1 hh", "output"]
    assert len(results["checks"]) == 6


def test_the_fnn_sees_pair_1_first_each_pair_alone(key, pool):
    both = experiment.make_task(TINY, (0, 1))(key, 16, pool)
    rows = jax.random.randint(key, (8,), 0, len(pool["labels"]))
    np.testing.assert_array_equal(both["digits"][:8], pool["digits"][rows])
    np.testing.assert_array_equal(both["digits"][8:], pool["digits"][rows])
    np.testing.assert_array_equal(both["shown"], [[1, 0]] * 8 + [[0, 1]] * 8)
    np.testing.assert_array_equal(both["wanted"], both["shown"])
    second = experiment.make_task(TINY, (1,))(key, 16, pool)
    np.testing.assert_array_equal(second["wanted"], [[0, 1]] * 16)


@pytest.mark.parametrize("zero_other_pair", [True, False])
def test_the_lstm_sees_both_pairs_in_an_example(key, pool, zero_other_pair):
    config = dataclasses.replace(TINY, model="lstm", zero_other_pair=zero_other_pair)
    second = experiment.make_task(config, (1,))(key, 16, pool)
    np.testing.assert_array_equal(second["wanted"], [[0, 1]] * 16)
    np.testing.assert_array_equal(second["shown"], [[0 if zero_other_pair else 1, 1]] * 16)
    both = experiment.make_task(config, (0, 1))(key, 16, pool)
    np.testing.assert_array_equal(both["wanted"], np.ones((16, 2)))


def test_alpha_stays_what_it_is_with_the_fnns_double_batch():
    config = experiment.Config()
    fnn = configs.mask_config(config, config.views)
    assert (fnn.batch_size, fnn.num_samples) == (256, 8)
    assert float(fnn.beta) / fnn.batch_size == pytest.approx(4e-4 / 128)
    config = experiment.Config(model="lstm")
    lstm = configs.mask_config(config, config.views)
    assert (lstm.batch_size, lstm.num_samples, float(lstm.beta)) == (128, 4, 1e-4)


@pytest.mark.parametrize("name", experiment.MODES)
def test_lstm_modes_show_and_read_what_they_say(pool, name):
    mode = experiment.MODES[name]
    encoded = encode_double_addition(pool["digits"][:2], jnp.ones((2, 2)))
    seen = np.asarray(experiment.lstm_inputs(mode, encoded))
    pairs = np.asarray(encoded).reshape(2, 2, 40)
    for step in range(6):
        turn = step // 3
        if mode.shared_input:
            expected = pairs[:, turn]
        elif mode.input_in_turn:
            expected = pairs.copy()
            expected[:, 1 - turn] = 0
            expected = expected.reshape(2, 80)
        else:
            expected = encoded
        np.testing.assert_array_equal(seen[:, step], expected)
    width = 20 if mode.shared_output else 40
    outputs = jnp.arange(2 * 6 * width, dtype=jnp.float32).reshape(2, 6, width)
    answers = np.asarray(experiment.lstm_answers(mode, outputs)).reshape(2, 2, 20)
    first_step = 2 if mode.output_in_turn else 5
    np.testing.assert_array_equal(answers[:, 0], outputs[:, first_step, :20])
    np.testing.assert_array_equal(answers[:, 1], outputs[:, 5, -20:])


def test_copied_weights_make_both_pairs_one_function(key, pool):
    init, predict = experiment.make_network(TINY)
    params = experiment.copy_second_pair(init(key))
    digits = pool["digits"][:5]
    swapped = digits[:, ::-1]
    first = predict(params, digits, jnp.tile(jnp.array([[1.0, 0.0]]), (5, 1)))[:, 0]
    second = predict(params, swapped, jnp.tile(jnp.array([[0.0, 1.0]]), (5, 1)))[:, 1]
    np.testing.assert_allclose(first, second, rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "alone"}, "mode='alone': expected one of .*together"),
        ({"mode": "same_io"}, "use model=lstm"),
        ({"model": "lstm", "copy_weights": True}, "use model=fnn"),
        ({"temperature": 0.0}, "temperature=0.0: expected a number above 0"),
        ({"noise": "philox"}, "noise='philox': expected one of mix32, jax"),
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0"),
    ],
)
def test_impossible_values_are_refused_before_any_work(values, message):
    with pytest.raises(ValueError, match=message):
        experiment.validate(dataclasses.replace(experiment.Config(), **values))


@pytest.mark.parametrize("preset", experiment.PRESETS)
def test_presets_are_possible(preset):
    experiment.validate(experiment.PRESETS[preset])
