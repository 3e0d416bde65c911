"""Buckets of lengths: every example is as likely as without them, and has the same loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxmod as jm
from jaxmod.language import networks
from jaxmod.language.buckets import make_buckets
from jaxmod.models.seq2seq import Seq2SeqLSTM
from jaxmod.models.transformer import Transformer, TransformerConfig
from tests.helpers import assert_trees_close
from tests.language.examples import made_up

MODELS = {
    "lstm": Seq2SeqLSTM(5, 4, embedding=3, hidden=4, layers=1),
    "transformer": Transformer(5, 4, TransformerConfig(4, 6, heads=2, layers=1)),
}
TASKS = {"few": made_up(23, seed=1), "many": made_up(60, seed=2)}


@pytest.fixture(scope="module")
def buckets():
    return make_buckets(TASKS, 2)


def rows_of(examples):
    return sorted(np.concatenate([np.atleast_2d(x.T).T for x in examples.values()], axis=1).tolist())


def test_tasks_keep_their_examples(buckets):
    assert len(buckets.shapes) == 2
    few = {name: x[:23] for name, x in buckets.examples.items()}
    many = {name: x[23:] for name, x in buckets.examples.items()}
    assert rows_of(few) == rows_of(TASKS["few"]) and rows_of(many) == rows_of(TASKS["many"])


def test_a_bucket_has_room_for_its_examples(buckets):
    for name in TASKS:
        batches = draw(buckets, name, 200, shared=True)
        for i, shape in enumerate(buckets.shapes):
            of = batches["bucket"] == i
            assert of.any()
            for side, steps in zip(("source", "target"), shape, strict=True):
                assert batches[f"{side}_length"][of].max() <= steps
    assert buckets.shapes[0][0] + buckets.shapes[0][1] < 12  # it saves something


def test_the_last_bucket_has_room_for_all():
    """Batches drawn without a shared key are of all lengths and are not cut."""
    wide = made_up(4, seed=1) | {
        "source_length": np.array([9, 1, 1, 1]),
        "target_length": np.array([1, 1, 2, 20]),
    }
    assert make_buckets({"wide": wide}, 2).shapes[-1] == (9, 20)


def draw(buckets, name, count, shared):
    """Returns `count` batches of 4, `[count, 4]`, by the run's key and the shared key of each step."""
    data = jax.tree.map(jnp.asarray, buckets.examples)
    data["row"] = jnp.arange(len(data["source"]))

    def one(key):
        run, both = jax.random.split(key)
        return buckets.tasks[name](run, 4, data, both if shared else None)

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(8), count)))


@pytest.mark.parametrize("shared", [True, False])
def test_every_example_is_as_likely(buckets, shared):
    for name, first, last in (("few", 0, 23), ("many", 23, 83)):
        batches = draw(buckets, name, 20_000, shared)
        # One of each batch: the four are from the same bucket, so their counts vary more.
        counts = np.bincount(batches["row"][:, 0], minlength=83)[first:last]
        assert counts.sum() == 20_000
        assert stats.chisquare(counts).pvalue > 1e-3
        assert (batches["bucket"] == batches["bucket"][:, :1]).all()
        assert shared or (batches["bucket"] == len(buckets.shapes) - 1).all()


def test_within_its_bucket_a_batch_is_independent(buckets):
    batches = draw(buckets, "many", 20_000, True)
    for bucket in range(2):
        rows = batches["row"][batches["bucket"][:, 0] == bucket]
        size = len(np.unique(rows))
        pairs = np.bincount((rows[:, 0] - rows.min()) * size + rows[:, 1] - rows.min(), minlength=size**2)
        assert stats.chisquare(pairs).pvalue > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_an_example_has_the_same_loss_and_gradient_in_every_bucket(buckets, name, key):
    model = MODELS[name]
    plain = networks.make_functions(model)
    inside = networks.make_functions(model, shapes=buckets.shapes)
    params = jax.jit(plain.init)(key)

    def value_and_grad(functions):
        return jax.jit(jax.value_and_grad(functions.mask_loss))

    expected, found = value_and_grad(plain), value_and_grad(inside)
    short = (buckets.examples["source_length"] <= buckets.shapes[0][0]) & (
        buckets.examples["target_length"] <= buckets.shapes[0][1]
    )
    batch = {part: x[short][:4] for part, x in buckets.examples.items()}
    for shared in (jax.random.key(0), jax.random.key(1)):  # the coin's sides
        whole = expected(params, batch, key, shared)
        for bucket in range(len(buckets.shapes)):
            with_bucket = batch | {"bucket": np.full(4, bucket)}
            assert_trees_close(found(params, with_bucket, key, shared), whole, rtol=1e-4, atol=1e-6)


def test_runs_together_compute_one_bucket(buckets, key):
    """The decision is not batched over runs: it stays a branch, and no bucket is computed in vain.

    And a branch returns its loss and gradient, nothing that others need for their backward passes.
    """
    functions = networks.make_functions(MODELS["lstm"], shapes=buckets.shapes)
    data = jax.tree.map(jnp.asarray, buckets.examples)
    params = jax.eval_shape(jax.vmap(functions.init), jax.random.split(key, 2))

    def step(params, key, shared):
        batch = buckets.tasks["many"](key, 4, data, shared)
        return functions.mask_loss(params, batch, key, shared)

    gradient = jax.vmap(jax.value_and_grad(step), (0, 0, None))
    program = jax.make_jaxpr(gradient)(params, jax.random.split(key, 2), key)
    (switch,) = (e for e in program.jaxpr.eqns if e.primitive.name == "cond")
    assert len(switch.params["branches"]) == 2
    assert len(switch.outvars) == 1 + len(jax.tree.leaves(params))


def test_training_draws_buckets_that_have_room(buckets, key):
    functions = networks.make_functions(MODELS["lstm"], shapes=buckets.shapes)
    room = jnp.asarray(buckets.shapes)

    def drawn(batch):
        over = jnp.stack([batch["source_length"], batch["target_length"]], axis=1) - room[batch["bucket"]]
        return {"bucket": jnp.mean(batch["bucket"] * 1.0), "over": jnp.max(over) * 1.0}

    def mask_loss(params, batch, key, shared_key):
        return functions.mask_loss(params, batch, key, shared_key), drawn(batch)

    def dense_loss(params, state, batch, key, shared_key):
        loss, (state, _) = functions.dense_loss(params, state, batch, key, shared_key)
        return loss, (state, drawn(batch))

    trained = jm.train_network(
        dense_loss,
        functions.init,
        buckets.tasks["many"],
        data=buckets.examples,
        keys=key,
        config=jm.DenseConfig(steps=12, batch_size=4, chunk_steps=1),
        optimizer=networks.make_optimizer(1e-2, 5.0),
    )
    found = jm.find_modules(
        mask_loss,
        trained.params,
        {"few": buckets.tasks["few"]},
        keys=key,
        config=jm.MaskConfig(steps=12, batch_size=4, num_samples=1, chunk_steps=1),
        where=functions.where,
        data=buckets.examples,
        has_aux=True,
    )["few"]
    for history in (trained.history, found.history):
        assert set(history["bucket"].ravel()) == {0, 1}  # of the whole batch
        assert history["over"].max() == 0
        assert np.isfinite(history["loss"]).all()
    assert all((x != 2).any() for x in jax.tree.leaves(found.logits))


def test_equal_lengths_are_one_bucket():
    same = {name: x[:1].repeat(5, axis=0) for name, x in TASKS["few"].items()}
    assert make_buckets({"same": same}, 4).shapes == ((6, 6),)


def test_no_buckets_are_refused():
    with pytest.raises(ValueError, match="buckets=0: expected 1 or more"):
        make_buckets(TASKS, 0)
    with pytest.raises(ValueError, match="task 'few' has no examples"):
        make_buckets({"few": {name: x[:0] for name, x in TASKS["few"].items()}}, 2)
