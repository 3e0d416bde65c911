"""The encoder-decoder LSTM against a NumPy loop, what depends on what, and its masks."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmod as jm
from jaxmod import trees
from jaxmod.models import seq2seq
from jaxmod.models.seq2seq import Seq2SeqLSTM
from jaxmod.sequences import end_from_first_end, sequence_cross_entropy, sequence_right
from tests.helpers import assert_trees_close, assert_trees_equal

TINY = Seq2SeqLSTM(source_vocabulary=7, target_vocabulary=5, embedding=3, hidden=4, layers=2)
END = 5


def batch(model=TINY, count=6, source_steps=5, target_steps=6, seed=0):
    """Returns `(source, source_length, target, target_length)`, no tokens in the padding."""
    random = np.random.RandomState(seed)
    tokens = []
    for steps, vocabulary in (
        (source_steps, model.source_vocabulary),
        (target_steps, model.target_vocabulary),
    ):
        length = random.randint(1, steps + 1, count)
        length[0] = steps
        rows = random.randint(0, vocabulary, (count, steps))
        rows[np.arange(steps)[None] >= length[:, None]] = -100
        tokens += [jnp.asarray(rows), jnp.asarray(length)]
    return tuple(tokens)


def init_shapes(model):
    """Returns the shapes of the params, without making any."""
    init = functools.partial(model.init, jax.random.key(0))
    return jax.eval_shape(init, *batch(model, count=1))["params"]


def random_params(model=TINY):
    """Returns params that are all different; `TINY` answers variedly, and ends after some steps or never."""
    random = np.random.RandomState(71)
    return jax.tree.map(lambda x: jnp.asarray(1.5 * random.randn(*x.shape), x.dtype), init_shapes(model))


@pytest.fixture(scope="module")
def params():
    return random_params()


def apply(params, *args, model=TINY, **kwargs):
    return model.apply({"params": params}, *args, **kwargs)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_step(p, state, x, kept=None, rate=0.0):
    """Returns the next `[(h, c), ...]` of one example; each layer's inputs that are kept grow by dropout."""
    new = []
    for layer, (h, c) in enumerate(state):
        if kept is not None:
            x = kept[layer] * x / (1 - rate)
        ih, hh = p[f"l{layer}_ih"], p[f"l{layer}_hh"]
        i, f, g, o = np.split(x @ ih["kernel"] + h @ hh["kernel"] + ih["bias"], 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        x = sigmoid(o) * np.tanh(c)
        new.append((x, c))
    return new


def numpy_forward(params, source, source_length, target, target_length, forcing, model=TINY):
    """Returns the outputs of each example at its valid steps, and the argmax that was fed on."""
    p = jax.tree.map(lambda w: np.asarray(w, np.float64), params)
    answers = []
    for row, size, goal, goal_size in zip(
        *map(np.asarray, (source, source_length, target, target_length)), strict=True
    ):
        state = [(np.zeros(model.hidden),) * 2] * model.layers
        for token in row[:size]:
            state = numpy_step(p["encoder"], state, p["source_embedding"]["embedding"][token])
        token, outputs = model.target_vocabulary, []
        for step in range(goal_size + 1):
            state = numpy_step(p["decoder"], state, p["target_embedding"]["embedding"][token])
            outputs.append(state[-1][0] @ p["output"]["kernel"] + p["output"]["bias"])
            token = goal[step] if forcing and step < goal_size else outputs[-1].argmax()
        answers.append(np.array(outputs))
    return answers


def test_masked_scalars_of_the_paper():
    shapes = init_shapes(Seq2SeqLSTM())
    chosen = trees.select(jax.tree.map(lambda x: np.zeros((1,) * x.ndim, x.dtype), shapes))
    sizes = jax.tree.map(lambda x, c: math.prod(x.shape) if c else 0, shapes, chosen)
    assert sum(jax.tree.leaves(sizes)) == 987_000
    picked = {path for path, c in trees.paths_and_leaves(chosen) if c}
    cells = {
        f"{side}/l{k}_{w}/kernel" for side in ("encoder", "decoder") for k in (0, 1) for w in ("ih", "hh")
    }
    assert picked == cells | {"output/kernel"}


@pytest.mark.parametrize("forcing", [True, False])
@pytest.mark.parametrize("layers", [1, 3])
def test_forward_is_numpy(forcing, layers):
    model = TINY.clone(layers=layers)
    params, data = random_params(model), batch(model)
    run = jax.jit(lambda p, coin: apply(p, *data, model=model, teacher_forcing=coin))
    outputs = run(params, jnp.array(forcing))
    assert outputs.shape == (6, 7, 6)
    for ours, theirs in zip(outputs, numpy_forward(params, *data, forcing, model), strict=True):
        np.testing.assert_allclose(ours[: len(theirs)], theirs, rtol=1e-4, atol=1e-4)


def test_the_coin_may_be_known_while_tracing(params):
    data = batch()
    known = jax.jit(lambda coin: apply(params, *data, teacher_forcing=coin), static_argnums=0)
    traced = jax.jit(lambda coin: apply(params, *data, teacher_forcing=coin))
    for coin in (True, False):
        np.testing.assert_allclose(known(coin), traced(jnp.array(coin)), rtol=1e-5, atol=1e-5)


def test_own_argmax_has_no_gradient(params):
    """The loss without teacher forcing is the loss with the model's own tokens forced on it."""
    source, source_length, target, target_length = batch()
    run = jax.jit(functools.partial(apply, teacher_forcing=False))
    own = jnp.argmax(run(params, source, source_length, target, target_length), axis=-1)

    def loss(params, fed, fed_length, forcing):
        outputs = apply(params, source, source_length, fed, fed_length, teacher_forcing=forcing)
        return jnp.sum(sequence_cross_entropy(outputs, target, target_length))

    value_and_grad = jax.jit(jax.value_and_grad(loss))
    free = value_and_grad(params, target, target_length, jnp.array(False))
    whole = jnp.full_like(target_length, target.shape[1])
    forced = value_and_grad(params, own[:, :-1], whole, jnp.array(True))
    assert_trees_close(free, forced, rtol=1e-4, atol=1e-5)


def test_greedy_decoding_is_the_naive_loop(params):
    source, source_length, *_ = batch()
    steps = 8
    whole = jax.jit(functools.partial(apply, params, source, source_length))
    tokens = np.zeros((len(source), steps), int)
    for t in range(steps):
        outputs = whole(jnp.asarray(tokens), jnp.full(len(source), t))
        tokens[:, t] = jnp.argmax(outputs[:, t], axis=-1)
    decode = jax.jit(lambda p: apply(p, source, source_length, steps, method="decode"))
    np.testing.assert_array_equal(decode(params), end_from_first_end(jnp.asarray(tokens), END))
    # The test tells something: answers differ, and some end.
    assert len({tuple(row) for row in tokens.tolist()}) > 2 and END in tokens


def test_a_step_sees_the_source_and_the_tokens_before_it(params):
    """Every token occurs once, so the slopes of the embeddings say which steps were read."""
    source, target = jnp.arange(5)[None], jnp.array([[3, 0, 4, 1, 2]])

    def totals(embeddings):
        outputs = apply(params | embeddings, source, jnp.array([3]), target, jnp.array([4]))
        return jnp.sum(outputs[0], axis=-1)

    sides = ("source_embedding", "target_embedding")
    slopes = jax.jit(jax.jacrev(totals))({side: params[side] for side in sides})
    for t in range(6):
        read = [set(np.flatnonzero(np.abs(slopes[side]["embedding"][t]).max(axis=1))) for side in sides]
        # The fifth target token is padding: the end token stands there, as it does at the start.
        assert read == [{0, 1, 2}, {END, *target[0, : min(t, 4)].tolist()}]


def test_padding_changes_nothing(params):
    source, source_length, target, target_length = batch()

    @jax.jit
    def run(params, source, target):
        def loss(params):
            outputs = apply(params, source, source_length, target, target_length)
            return jnp.sum(sequence_cross_entropy(outputs, target, target_length))

        tokens = apply(params, source, source_length, 7, method="decode")
        return *jax.value_and_grad(loss)(params), tokens

    expected = run(params, source, target)
    assert np.isfinite(expected[0])
    assert_trees_equal(
        run(params, jnp.where(source < 0, 3, source), jnp.where(target < 0, 999, target)), expected
    )
    longer = run(params, *(jnp.pad(x, ((0, 0), (0, 4))) for x in (source, target)))
    assert_trees_close(longer, expected, rtol=1e-4, atol=1e-5)


def test_dropout_is_for_training_only(params, key):
    data = batch()
    train = jax.jit(lambda key: apply(params, *data, train=True, rngs={"dropout": key}))
    first, second = train(key), train(jax.random.fold_in(key, 1))
    plain = jax.jit(apply)(params, *data)
    assert not np.allclose(first, second) and not np.allclose(first, plain)
    none = functools.partial(apply, model=TINY.clone(dropout=0.0), train=True)
    np.testing.assert_array_equal(jax.jit(none)(params, *data), plain)


def test_dropout_is_of_the_inputs_of_each_layer_and_keeps_their_mean(params):
    """Not of the state that goes on in time, nor of what the output reads."""
    random = np.random.RandomState(3)
    state = tuple((random.randn(4), random.randn(4)) for _ in range(2))
    x, kept = random.randn(3), (np.array([True, False, True]), np.array([True, True, False, False]))
    cells = seq2seq._Cells(hidden=4, layers=2, dropout=0.3)
    found = cells.apply(
        {"params": params["encoder"]}, *jax.tree.map(lambda a: jnp.asarray(a[None]), (state, x, kept))
    )
    expected = numpy_step(jax.tree.map(np.asarray, params["encoder"]), state, x, kept, 0.3)
    assert_trees_close(jax.tree.map(lambda a: a[0], list(found)), expected, rtol=1e-5, atol=1e-6)


def test_dropout_drops_its_share(key):
    model = Seq2SeqLSTM(7, 5, embedding=50, hidden=60, layers=2, dropout=0.3)
    bound = model.bind({}, rngs={"dropout": key})
    inputs, between = bound._draw_kept((20, 10), train=True)
    assert inputs.shape == (20, 10, 50) and between.shape == (20, 10, 60)
    for kept in (inputs, between):
        assert abs(kept.mean() - 0.7) < 5 * math.sqrt(0.21 / kept.size)
    assert not np.array_equal(inputs[0], inputs[1])  # anew at every step
    assert not np.array_equal(inputs, between[..., :50])


def test_init_is_that_of_the_paper():
    model = Seq2SeqLSTM()
    params = jax.jit(lambda key: model.init(key, *batch(model, count=1))["params"])(jax.random.key(2))
    for side in ("encoder", "decoder"):
        for name, inputs in (("l0_ih", 16), ("l1_ih", 200)):
            blocks = np.split(np.asarray(params[side][name]["kernel"]), 4, axis=1)
            for gate, block in enumerate(blocks):
                std = math.sqrt(1 / (inputs + 200)) * (5 / 3 if gate == 2 else 1)
                assert abs(block.std() / std - 1) < 5 / math.sqrt(2 * block.size)
            np.testing.assert_array_equal(params[side][name]["bias"], np.repeat([0.0, 1, 0, 0], 200))
        for name in ("l0_hh", "l1_hh"):
            g = np.asarray(params[side][name]["kernel"])[:, 400:600].astype(np.float64)
            np.testing.assert_allclose(g @ g.T, (5 / 3) ** 2 / 2 * np.eye(200), atol=1e-5)
    assert np.abs(params["output"]["kernel"]).max() <= 1 / math.sqrt(200)
    tables = [params[f"{side}_embedding"]["embedding"] for side in ("source", "target")]
    assert [table.shape for table in tables] == [(13, 16), (7, 16)]
    assert abs(np.concatenate(tables).std() - 1) < 5 / math.sqrt(2 * 20 * 16)


def test_half_precision_stays(params):
    half = jax.tree.map(lambda w: w.astype(jnp.bfloat16), params)
    outputs, tokens = jax.eval_shape(
        lambda p: (apply(p, *batch()), apply(p, *batch()[:2], 4, method="decode")), half
    )
    assert (outputs.dtype, tokens.dtype) == (jnp.bfloat16, jnp.int32)


def copy_loss(model, forcing):
    def loss(params, data):
        outputs = apply(params, *data, *data, model=model, teacher_forcing=forcing)
        return jnp.mean(sequence_cross_entropy(outputs, *data))

    return loss


def test_it_learns_to_copy(key):
    model = Seq2SeqLSTM(3, 3, embedding=8, hidden=32, layers=1, dropout=0.0)
    tx = optax.adam(1e-2)

    def draw(key):
        return jax.random.randint(key, (64, 3), 0, 3), jax.random.randint(key, (64,), 1, 4)

    @jax.jit
    def train(key):
        params = model.init(key, *draw(key), *draw(key))["params"]

        def step(carry, key):
            params, state = carry
            coin = jax.random.bernoulli(jax.random.fold_in(key, 1))
            loss, slopes = jax.value_and_grad(copy_loss(model, coin))(params, draw(key))
            updates, state = tx.update(slopes, state)
            return (optax.apply_updates(params, updates), state), loss

        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), jax.random.split(key, 400))
        source, length = draw(jax.random.fold_in(key, 2))
        tokens = apply(params, source, length, 4, model=model, method="decode")
        return jnp.mean(sequence_right(tokens, source, length, end=3))

    assert train(key) > 0.95


def test_runs_are_vmapped(key):
    data = batch()
    trees_of_params = [random_params(), jax.tree.map(lambda w: -w, random_params())]
    stacked = jax.tree.map(lambda *w: jnp.stack(w), *trees_of_params)
    coins = jnp.array([True, False])
    one = jax.jit(lambda p, coin: apply(p, *data, teacher_forcing=coin))
    together = jax.jit(jax.vmap(one))(stacked, coins)
    for i, params in enumerate(trees_of_params):
        np.testing.assert_allclose(together[i], one(params, coins[i]), rtol=1e-4, atol=1e-4)


def test_masks_of_two_steps(key):
    model = TINY.clone(layers=1)
    params = random_params(model)

    def loss_fn(params, batch, key, shared_key):
        del key
        coin = jax.random.bernoulli(shared_key)
        outputs = apply(params, *batch, model=model, teacher_forcing=coin)
        return jnp.mean(sequence_cross_entropy(outputs, *batch[2:]))

    def evaluate(params, batch):
        source, source_length, target, target_length = batch
        tokens = apply(params, source, source_length, target.shape[1] + 1, model=model, method="decode")
        return {"accuracy": sequence_right(tokens, target, target_length, END)}

    found = jm.find_modules(
        loss_fn,
        params,
        {"first": batch(count=8), "second": batch(count=8, seed=1)},
        keys=key,
        config=jm.MaskConfig(steps=2, batch_size=4, num_samples=2, eval_examples=4),
        evaluate=evaluate,
    )
    selected = {path for path, chosen in trees.paths_and_leaves(trees.select(params)) if chosen}
    assert len(selected) == 5
    for module in found.values():
        assert np.isfinite(module.history["loss"]).all() and "accuracy" in module.history
        trained = trees.paths_and_leaves(jax.tree.map(lambda x: bool((x != 2).any()), module.logits))
        assert {path for path, changed in trained if changed} == selected
