"""Image networks: the published split, augmentation, and what each mode of a network does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmod as jm
from jaxmod import trees
from jaxmod.data.images import Images, load_images
from jaxmod.vision import networks, study


def images(shape=(6, 6, 3), train=300, test=50):
    random = np.random.default_rng(0)
    x = [random.integers(0, 256, (n, *shape), dtype=np.uint8) for n in (train, test)]
    y = [np.arange(n, dtype=np.int32) % 10 for n in (train, test)]
    return Images(x[0], y[0], x[1], y[1], "made up")


@pytest.mark.parametrize(("size", "train"), [(50_000, 40_053), (60_000, 48_017)])
def test_the_split_is_that_of_the_authors_code(size, train):
    found = networks.image_data(images((1, 1, 1), size, 10), "cnn")
    assert len(found.train["label"]) == len(found.train["image"]) == train
    assert len(found.valid["label"]) == size - train


def test_pixels_are_scaled_by_all_training_images():
    given = images()
    found = networks.image_data(given, "cnn-no-dropout")
    pixels = given.x_train / 255
    np.testing.assert_allclose(found.mean, pixels.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(found.std, pixels.std(axis=(0, 1, 2)))
    resnet = networks.image_data(given, "resnet")
    assert resnet.mean == (0.4914, 0.4822, 0.4465) and len(resnet.train["label"]) == 300
    np.testing.assert_array_equal(resnet.valid["image"], given.x_test)
    grey = networks.image_data(load_images("digits"), "cnn")
    assert grey.train["image"].shape[1:] == (8, 8, 1) and len(grey.mean) == 1


def test_a_class_without_images_is_named():
    given = images()
    with pytest.raises(ValueError, match="no training image of class 3"):
        networks.image_data(given._replace(y_train=np.where(given.y_train == 3, 0, given.y_train)), "cnn")


def test_augmented_images_are_shifted_or_mirrored(key):
    image = np.zeros((400, 9, 9, 1), np.uint8)
    image[:, 4, 4] = 255  # stays inside, wherever it is shifted to
    image[:, 4, 5] = 100
    found = np.asarray(networks.augmented(key, image))[..., 0]
    rows, columns = np.array([np.argwhere(x == 255)[0] for x in found]).T
    assert set(rows) == set(range(9)) and set(columns) == set(range(9))
    inside = (columns > 0) & (columns < 8)
    right = np.array(
        [x[r, c + 1] == 100 for x, r, c in zip(found[inside], rows[inside], columns[inside], strict=True)]
    )
    left = np.array(
        [x[r, c - 1] == 100 for x, r, c in zip(found[inside], rows[inside], columns[inside], strict=True)]
    )
    assert (right ^ left).all() and 0.4 < right.mean() < 0.6
    assert np.isin(found, (0, 100, 255)).all()


@pytest.fixture(scope="module")
def resnet():
    data = networks.image_data(images((8, 8, 3)), "resnet")
    config = study.StudyConfig(
        architecture="resnet",
        blocks=1,
        network_steps=3,
        network_learning_rate=0.1,
        batch_size=16,
        chunk_steps=3,
    )
    functions = study.functions_of(config, data)
    variables = study.train(config, functions, data, jax.random.split(jax.random.key(0), 2))
    return data, functions, variables


def test_batch_norm_moves_while_training_and_not_under_masks(resnet, key):
    data, functions, variables = resnet
    moved = jax.tree.leaves(variables["batch_stats"])
    start = jax.tree.leaves(functions.state["batch_stats"])
    assert any(not np.allclose(a[0], b) for a, b in zip(moved, start, strict=True))
    batch = {"image": jnp.asarray(data.train["image"][:8]), "label": jnp.asarray(data.train["label"][:8])}
    one = jax.tree.map(lambda x: x[0], variables)
    # The gradient of the statistics is not asked for, and a mask has no place for them.
    masked = jm.gumbel_sigmoid().init(key, one, networks.MASKED)
    assert not jax.tree.leaves(masked["batch_stats"]) and jax.tree.leaves(masked["params"])
    count = sum(x.size for x in jax.tree.leaves(masked))
    assert count == sum(x.size for x in jax.tree.leaves(one["params"]))
    assert functions.mask_loss(one, batch, key) != functions.mask_loss(
        one, batch, jax.random.key(9)
    )  # augmented


def test_predictions_are_those_of_each_run(resnet):
    data, functions, variables = resnet
    image = jnp.asarray(data.valid["image"])
    found = networks.predict(functions, variables, image)
    for run in range(2):
        one = jax.tree.map(lambda x, run=run: x[run], variables)
        np.testing.assert_array_equal(found[run], jnp.argmax(functions.logits(one, image), axis=-1))


def test_dropout_is_for_the_training_of_weights_alone(key):
    model = networks.make_model("cnn", (3, 4), 1)
    functions = networks.make_functions(model, (4, 4, 1), (0.5,), (0.25,), False)
    params = functions.init(key)
    assert functions.state == {}
    batch = {"image": jnp.full((4, 4, 4, 1), 200, jnp.uint8), "label": jnp.arange(4)}
    keys = jax.random.split(key, 2)
    dense = [functions.dense_loss(params, {}, batch, k)[0] for k in keys]
    assert dense[0] != dense[1]
    masked = [functions.mask_loss({"params": params}, batch, k) for k in keys]
    assert masked[0] == masked[1]
    plain = networks.make_functions(
        networks.make_model("cnn-no-dropout", (3, 4), 1), (4, 4, 1), (0.5,), (0.25,), False
    )
    np.testing.assert_allclose(plain.dense_loss(params, {}, batch, key)[0], masked[0], rtol=1e-6)


def test_the_masks_of_the_paper_are_over_all_weights_and_biases(key):
    model = networks.make_model("cnn", (32, 64, 128, 256), 1)
    variables = model.init(key, jnp.zeros((1, 32, 32, 3)))
    chosen = trees.select(variables, networks.MASKED)
    sizes = jax.tree.map(lambda x, m: x.size if m else 0, variables, chosen)
    assert sum(jax.tree.leaves(sizes)) == 390_986


def test_the_rate_of_the_resnet_falls_twice():
    tx = networks.make_optimizer("resnet", 8, 0.1, 1.0)
    params, rates = {"w": jnp.zeros(1)}, []
    state = tx.init(params)
    for _ in range(8):
        # Without momentum's past the step is the rate: a fresh trace with the schedule's count.
        updates, state = tx.update({"w": jnp.ones(1)}, state, params)
        rates.append(-float(jax.tree.leaves(updates)[0][0]))
    momentum = [sum(0.9**j for j in range(i + 1)) for i in range(8)]
    expected = [0.1] * 4 + [0.01] * 2 + [0.001] * 2
    np.testing.assert_allclose(rates, np.array(momentum) * expected, rtol=1e-4)
