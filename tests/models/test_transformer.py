"""The Transformer against NumPy, what depends on what, and decoding against the naive loop."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmod as jm
from jaxmod import trees
from jaxmod.models.transformer import WHERE, Transformer, TransformerConfig, positions
from jaxmod.sequences import end_from_first_end, sequence_cross_entropy, sequence_right
from tests.helpers import assert_trees_equal

SIZES = TransformerConfig(features=12, feed_forward=10, heads=3, layers=1)
TINY = Transformer(source_vocabulary=7, target_vocabulary=5, config=SIZES)
TIED = Transformer(5, 5, TransformerConfig(features=12, feed_forward=10, heads=3, layers=2), tied=True)
END = 5


def batch(count=6, source_steps=5, target_steps=6, seed=0):
    """Returns `(source, source_length, target, target_length)`, no tokens in the padding."""
    random = np.random.RandomState(seed)
    arrays = []
    for steps in (source_steps, target_steps):
        length = random.randint(1, steps + 1, count)
        length[0] = steps
        rows = random.randint(0, END, (count, steps))
        rows[np.arange(steps)[None] >= length[:, None]] = -100
        arrays += [jnp.asarray(rows), jnp.asarray(length)]
    return tuple(arrays)


@functools.cache
def init_shapes(model):
    """Returns the shapes of the params, without making any."""
    return jax.eval_shape(functools.partial(model.init, jax.random.key(0)), *batch(count=1))["params"]


def random_params(model=TINY, seed=20):
    """Returns params that are all different; with small biases, so that answers vary with the source."""
    random = np.random.RandomState(seed)

    def draw(path, x):
        values = random.randn(*x.shape) * (1 if x.ndim == 2 else 0.2)
        return jnp.asarray(values + path.endswith("scale"), x.dtype)

    return trees.map_with_path(draw, init_shapes(model))


@pytest.fixture(scope="module")
def params():
    return random_params()


def apply(params, *args, model=TINY, **kwargs):
    return model.apply({"params": params}, *args, **kwargs)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def numpy_norm(p, x):
    x = x - x.mean(-1, keepdims=True)
    return p["scale"] * x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) + p["bias"]


def numpy_attention(p, x, read, causal, heads):
    """Returns what every step of `x` [steps, features] reads, head by head and step by step."""
    q, k, v = x @ p["query"]["kernel"], read @ p["key"]["kernel"], read @ p["value"]["kernel"]
    size = x.shape[1] // heads
    found = np.zeros_like(x)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for t in range(len(x)):
            last = t + 1 if causal else len(read)
            weights = softmax(k[:last, part] @ q[t, part] / math.sqrt(size))
            found[t, part] = weights @ v[:last, part]
    return found @ p["output"]["kernel"]


def numpy_layer(p, x, memory, heads):
    own = numpy_attention(p["self_attention"], x, x, memory is not None, heads)
    x = numpy_norm(p["self_norm"], x + own)
    if memory is not None:
        other = numpy_attention(p["cross_attention"], x, memory, False, heads)
        x = numpy_norm(p["cross_norm"], x + other)
    hidden, output = p["feed_forward"]["hidden"], p["feed_forward"]["output"]
    branch = np.maximum(x @ hidden["kernel"] + hidden["bias"], 0) @ output["kernel"] + output["bias"]
    return numpy_norm(p["feed_forward_norm"], x + branch)


def numpy_forward(params, source, source_length, target, target_length, model=TINY):
    """Returns the outputs of each example, without its padding."""
    p = jax.tree.map(lambda w: np.asarray(w, np.float64), params)
    tables = [
        p["embedding" if model.tied else f"{side}_embedding"]["embedding"] for side in ("source", "target")
    ]
    answers = []
    for row, size, goal, goal_size in zip(
        *map(np.asarray, (source, source_length, target, target_length)), strict=True
    ):
        x = tables[0][[*row[:size], model.source_vocabulary]]
        y = tables[1][[model.target_vocabulary, *goal[:goal_size]]]
        x, y = (z + positions(*z.shape) for z in (x, y))
        for k in range(model.config.layers):
            x = numpy_layer(p[f"encoder_{k}"], x, None, model.config.heads)
        for k in range(model.config.layers):
            y = numpy_layer(p[f"decoder_{k}"], y, x, model.config.heads)
        if model.tied:
            answers.append(y @ tables[1].T / math.sqrt(model.config.features))
        else:
            answers.append(y @ p["output"]["kernel"] + p["output"]["bias"])
    return answers


def masked_scalars(model):
    """Returns how many weights `WHERE` selects."""
    shapes = init_shapes(model)
    chosen = trees.select(jax.tree.map(lambda x: np.zeros((1,) * x.ndim, x.dtype), shapes), WHERE)
    sizes = jax.tree.map(lambda x, c: math.prod(x.shape) if c else 0, shapes, chosen)
    return sum(jax.tree.leaves(sizes))


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (Transformer(), 603_700),
        (Transformer(70, 70, TransformerConfig(256, 512), tied=True), 3_939_840),
        (Transformer(70, 70, TransformerConfig(512, 2048, heads=8, layers=6), tied=True), 44_070_912),
    ],
)
def test_masked_scalars_of_the_paper(model, count):
    assert masked_scalars(model) == count


def test_where_selects_weights_and_norms():
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), init_shapes(TINY))
    rest = {path for path, chosen in trees.paths_and_leaves(trees.select(params, WHERE)) if not chosen}
    tables = {"source_embedding/embedding", "target_embedding/embedding", "output/bias"}
    parts = [
        f"{side}_0/feed_forward/{layer}" for side in ("encoder", "decoder") for layer in ("hidden", "output")
    ]
    assert rest == tables | {f"{part}/bias" for part in parts}


@pytest.mark.parametrize("model", [TINY, TIED])
def test_forward_is_numpy(model):
    params, data = random_params(model), batch()
    outputs = jax.jit(functools.partial(apply, model=model))(params, *data)
    assert outputs.shape == (6, 7, 6)
    for ours, theirs in zip(outputs, numpy_forward(params, *data, model), strict=True):
        np.testing.assert_allclose(ours[: len(theirs)], theirs, rtol=1e-3, atol=1e-3)


def test_the_tied_model_has_one_table():
    names = set(init_shapes(TIED))
    assert names == {"embedding", "encoder_0", "encoder_1", "decoder_0", "decoder_1"}
    assert init_shapes(TIED)["embedding"]["embedding"].shape == (6, 12)


def test_positions():
    ours = positions(200, 100)
    for t, channel in ((0, 0), (0, 1), (1, 0), (7, 41), (199, 98), (199, 99)):
        angle = t / 10000 ** (2 * (channel // 2) / 100)
        expected = math.cos(angle) if channel % 2 else math.sin(angle)
        assert math.isclose(ours[t, channel], expected, rel_tol=1e-5, abs_tol=1e-6)


@pytest.mark.parametrize(("model", "seed"), [(TINY, 20), (TIED, 6)])
def test_greedy_decoding_is_the_naive_loop(model, seed):
    params = random_params(model, seed)
    source, source_length, *_ = batch()
    steps = 8
    whole = jax.jit(functools.partial(apply, params, source, source_length, model=model))
    tokens = np.zeros((len(source), steps), int)
    for t in range(steps):
        outputs = whole(jnp.asarray(tokens), jnp.full(len(source), t))
        tokens[:, t] = jnp.argmax(outputs[:, t], axis=-1)
    decode = jax.jit(lambda p: apply(p, source, source_length, steps, model=model, method="decode"))
    np.testing.assert_array_equal(decode(params), end_from_first_end(jnp.asarray(tokens), END))
    # The test tells something: answers differ, and some end.
    assert len({tuple(row) for row in tokens.tolist()}) > 2 and END in tokens


def test_a_step_sees_the_source_and_the_tokens_before_it(params):
    """Every token occurs once, so the slopes of the embeddings say which steps were read."""
    source, target = jnp.arange(5)[None], jnp.array([[3, 0, 4, 1, 2]])

    def totals(embeddings):
        outputs = apply(params | embeddings, source, jnp.array([3]), target, jnp.array([4]))
        return jnp.sum(jnp.square(outputs[0]), axis=-1)

    sides = ("source_embedding", "target_embedding")
    slopes = jax.jit(jax.jacrev(totals))({side: params[side] for side in sides})
    for t in range(6):
        read = [set(np.flatnonzero(np.abs(slopes[side]["embedding"][t]).max(axis=1))) for side in sides]
        # 7 is the end of the source. The fifth target token is padding: the end token stands there.
        assert read == [{0, 1, 2, 7}, {END, *target[0, : min(t, 4)].tolist()}]


def test_padding_changes_nothing(params):
    source, source_length, target, target_length = batch()

    @jax.jit
    def run(params, source, target):
        def loss(params):
            outputs = apply(params, source, source_length, target, target_length)
            return jnp.mean(sequence_cross_entropy(outputs, target, target_length))

        tokens = apply(params, source, source_length, 7, method="decode")
        return *jax.value_and_grad(loss)(params), tokens

    expected = run(params, source, target)
    assert np.isfinite(expected[0])
    other = run(params, jnp.where(source < 0, 3, source), jnp.where(target < 0, 999, target))
    assert_trees_equal(other, expected)
    longer = [jnp.pad(x, ((0, 0), (0, 4))) for x in (source, target)]
    outputs = jax.jit(apply)(params, longer[0], source_length, longer[1], target_length)
    total = jnp.mean(sequence_cross_entropy(outputs, longer[1], target_length))
    np.testing.assert_allclose(total, expected[0], rtol=1e-4)


def test_dropout_is_for_training_only(params, key):
    data = batch()
    train = jax.jit(lambda key: apply(params, *data, train=True, rngs={"dropout": key}))
    first, second = train(key), train(jax.random.fold_in(key, 1))
    plain = jax.jit(apply)(params, *data)
    assert not np.allclose(first, second) and not np.allclose(first, plain)
    none = TINY.clone(config=TransformerConfig(12, 10, 3, 1, dropout=0.0))
    same = jax.jit(functools.partial(apply, model=none, train=True))(params, *data)
    np.testing.assert_array_equal(same, plain)


def test_dropout_keeps_the_mean(params, key):
    """Of the embeddings a tenth are zero, and the rest are larger by as much."""
    tokens = jnp.zeros((500, 20), int)

    def embed(model, train):
        return model._embed(tokens, "source", jnp.zeros((20, 12)), train)

    drawn = TINY.apply({"params": params}, True, rngs={"dropout": key}, method=embed)
    plain = TINY.apply({"params": params}, False, method=embed)
    assert abs(np.mean(drawn == 0) - 0.1) < 5 * math.sqrt(0.09 / drawn.size)
    kept = np.asarray(drawn) != 0
    np.testing.assert_allclose(drawn[kept], plain[kept] / 0.9, rtol=1e-6)


def test_init_is_that_of_the_paper():
    model = Transformer(config=TransformerConfig(layers=1))
    params = jax.jit(lambda key: model.init(key, *batch(count=1))["params"])(jax.random.key(2))
    bounds = {"output/kernel": math.sqrt(6 / 107), "output/bias": 0.1}
    for name in ("encoder_0", "decoder_0"):
        for attention in ("self_attention", "cross_attention")[: 2 if name[0] == "d" else 1]:
            for part in ("query", "key", "value", "output"):
                bounds[f"{name}/{attention}/{part}/kernel"] = math.sqrt(6 / 200)
        bounds[f"{name}/feed_forward/hidden/kernel"] = math.sqrt(2) * math.sqrt(6 / 300)
        bounds[f"{name}/feed_forward/output/kernel"] = math.sqrt(6 / 300)
        bounds[f"{name}/feed_forward/hidden/bias"] = 1 / math.sqrt(100)
        bounds[f"{name}/feed_forward/output/bias"] = 1 / math.sqrt(200)
    for path, leaf in trees.paths_and_leaves(params):
        if bound := bounds.pop(path, None):
            assert 0.85 * bound < np.abs(leaf).max() <= bound or leaf.size < 10
            assert abs(leaf.std() / (bound / math.sqrt(3)) - 1) < 5 * math.sqrt(0.2 / leaf.size)
        elif path.endswith("_embedding/embedding"):
            assert abs(leaf.std() - 1) < 5 / math.sqrt(2 * leaf.size)
        else:
            assert "norm" in path
            np.testing.assert_array_equal(leaf, 1 if path.endswith("scale") else 0)
    assert not bounds


def test_half_precision_stays(params):
    half = jax.tree.map(lambda w: w.astype(jnp.bfloat16), params)
    outputs, tokens = jax.eval_shape(
        lambda p: (apply(p, *batch()), apply(p, *batch()[:2], 4, method="decode")), half
    )
    assert (outputs.dtype, tokens.dtype) == (jnp.bfloat16, jnp.int32)


def test_it_learns_to_copy(key):
    model = Transformer(3, 3, TransformerConfig(32, 32, heads=2, layers=1, dropout=0.0), tied=True)
    tx = optax.adam(3e-3)

    def draw(key):
        return jax.random.randint(key, (64, 4), 0, 3), jax.random.randint(key, (64,), 1, 5)

    def loss(params, data):
        return jnp.mean(sequence_cross_entropy(apply(params, *data, *data, model=model), *data))

    @jax.jit
    def train(key):
        params = model.init(key, *draw(key), *draw(key))["params"]

        def step(carry, key):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params, draw(key)), state)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), jax.random.split(key, 300))
        source, length = draw(jax.random.fold_in(key, 2))
        tokens = apply(params, source, length, 5, model=model, method="decode")
        return jnp.mean(sequence_right(tokens, source, length, end=3))

    assert train(key) > 0.95


def test_runs_are_vmapped():
    data = batch()
    stacked = jax.tree.map(lambda w: jnp.stack([w, -w]), random_params())
    one = jax.jit(lambda p: apply(p, *data))
    together = jax.jit(jax.vmap(one))(stacked)
    for i in range(2):
        alone = one(jax.tree.map(lambda w, i=i: w[i], stacked))
        np.testing.assert_allclose(together[i], alone, rtol=1e-3, atol=1e-3)


def test_masks_of_two_steps(key):
    model = Transformer(5, 5, TransformerConfig(8, 6, heads=2, layers=1))
    params = random_params(model)

    def loss_fn(params, batch, key):
        del key
        return jnp.mean(sequence_cross_entropy(apply(params, *batch, model=model), *batch[2:]))

    found = jm.find_modules(
        loss_fn,
        params,
        {"first": batch(count=8), "second": batch(count=8, seed=1)},
        keys=key,
        config=jm.MaskConfig(steps=2, batch_size=4, num_samples=1),
        where=WHERE,
    )
    selected = {path for path, chosen in trees.paths_and_leaves(trees.select(params, WHERE)) if chosen}
    for module in found.values():
        assert np.isfinite(module.history["loss"]).all()
        trained = trees.paths_and_leaves(jax.tree.map(lambda x: bool((x != 2).any()), module.logits))
        assert {path for path, changed in trained if changed} == selected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 0}, "layers must be a positive integer, got 0"),
        ({"features": 9, "heads": 3}, "features=9 must be even"),
        ({"heads": 3}, "a multiple of heads=3"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
    ],
)
def test_impossible_sizes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TransformerConfig(**changes)


def test_a_tied_model_of_two_vocabularies_is_refused():
    with pytest.raises(ValueError, match="tied=True wants one vocabulary, got source_vocabulary=7"):
        init_shapes(TINY.clone(tied=True))
