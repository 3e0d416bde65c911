"""The PyTorch column of the step benchmark, on networks of a few units."""

import sys
from functools import partial

import pytest

from benchmarks import torch_step
from benchmarks.torch_step import NETWORKS, Network

TINY = {
    "fnn": Network(partial(torch_step.fnn, hidden=(6, 5)), torch_step.digit_batch),
    "lstm": Network(partial(torch_step.lstm, hidden=4), torch_step.digit_batch),
    "cnn": Network(partial(torch_step.cnn, channels=(3, 4)), torch_step.image_batch),
    "transformer": Network(
        partial(torch_step.transformer, width=8, inner=6, heads=2, layers=1), torch_step.token_batch
    ),
    "seq2seq": Network(partial(torch_step.seq2seq, hidden=4), torch_step.token_batch),
}
BATCH, SAMPLES = 6, 3


@pytest.fixture
def torch():
    module = pytest.importorskip("torch")
    with module.random.fork_rng():
        module.manual_seed(0)
        yield module


def drawn(network, size=BATCH):
    """Returns a batch and weights, biases drawn too so that they count."""
    batch, weights = network.batch(size), {}
    network.forward(weights, batch[0])
    for path, x in weights.items():
        if path.endswith("/bias"):
            x.uniform_(-1, 1)
    return batch, weights


def logits_of(torch, weights):
    return {k: torch.zeros_like(x).requires_grad_() for k, x in weights.items() if k.endswith("/kernel")}


def part(x, i):
    """Returns the i-th of as many contiguous parts as there are samples."""
    if isinstance(x, tuple):
        return tuple(part(y, i) for y in x)
    return x.chunk(SAMPLES)[i]


@pytest.mark.parametrize(
    ("name", "masked"),
    [("fnn-400-400-200", 260_800), ("fnn-2000x4", 12_124_000), ("lstm-2x256", 834_560), ("seq2seq", 987_000)],
)
def test_as_many_weights_are_masked_as_in_the_experiment(torch, name, masked):
    _, weights = drawn(NETWORKS[name], size=1)
    assert sum(x.numel() for x in logits_of(torch, weights).values()) == masked


def test_the_cnn_is_that_of_the_experiment(torch):
    _, weights = drawn(NETWORKS["cnn"], size=1)
    biases = 32 + 64 + 128 + 256 + 10
    assert sum(x.numel() for x in weights.values()) == 390_986
    assert sum(x.numel() for x in logits_of(torch, weights).values()) == 390_986 - biases


def test_the_transformer_is_that_of_the_experiments(torch):
    # The paper masks the norms too. On the Mathematics Dataset the output layer is the embedding, unmasked.
    def masked_in_the_paper(weights):
        norms = [k for k in weights if "/norm/" in k]
        return sum(weights[k].numel() for k in {*logits_of(torch, weights), *norms})

    _, weights = drawn(NETWORKS["transformer"], size=1)
    assert masked_in_the_paper(weights) == 603_700
    size_of_mathematics = partial(torch_step.transformer, width=256, inner=512, heads=4, layers=3)
    _, weights = drawn(Network(size_of_mathematics, torch_step.token_batch), size=1)
    assert masked_in_the_paper(weights) - weights["output/kernel"].numel() == 3_939_840


@pytest.mark.parametrize("name", TINY)
def test_the_gradient_is_that_of_a_loop_over_samples(torch, name):
    network = TINY[name]
    batch, weights = drawn(network)
    logits = logits_of(torch, weights)
    masks = {k: torch_step.sample_mask(x, SAMPLES) for k, x in logits.items()}
    together = torch_step.mean_loss(network, weights | {k: weights[k] * m for k, m in masks.items()}, batch)

    alone = [
        torch_step.mean_loss(
            network, weights | {k: weights[k] * m[i] for k, m in masks.items()}, part(batch, i)
        )
        for i in range(SAMPLES)
    ]
    looped = torch.stack(alone).mean()
    torch.testing.assert_close(together, looped)
    assert torch.stack(alone).std() > 1e-4  # or it would not matter which part meets which mask

    got = torch.autograd.grad(together, list(logits.values()), retain_graph=True)
    expected = torch.autograd.grad(looped, list(logits.values()))
    assert all(x.abs().max() > 0 for x in got)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


def test_masks_are_drawn_with_the_probability_of_their_logit(torch):
    logits = torch.tensor([-2.0, 0.0, 2.0], requires_grad=True)
    mask = torch_step.sample_mask(logits.repeat(20_000, 1), 2)
    assert mask.shape == (2, 20_000, 3) and set(mask.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(mask.mean((0, 1)), torch.sigmoid(logits), atol=0.01, rtol=0)


def test_the_gradient_of_a_mask_is_that_of_the_soft_sample(torch, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape: torch.full(shape, 0.5))  # no noise
    logits = torch.tensor([-2.0, 0.1, 2.0], requires_grad=True)
    mask = torch_step.sample_mask(logits, 2)
    assert mask.tolist() == [[0, 1, 1]] * 2
    (gradient,) = torch.autograd.grad(mask.sum(), logits)
    soft = torch.sigmoid(logits)
    torch.testing.assert_close(gradient, 2 * soft * (1 - soft))


@pytest.mark.parametrize(("u", "v"), [(0, 0.5), (0.5, 0), (0, 1 - 2**-24), (1 - 2**-24, 0)])
def test_the_ends_of_a_uniform_number_are_harmless(torch, monkeypatch, u, v):
    monkeypatch.setattr(torch, "rand", lambda *shape: torch.tensor([[u], [v]]))
    logits = torch.zeros(1, requires_grad=True)
    mask = torch_step.sample_mask(logits, 1)
    assert mask.item() == (u > v)
    assert torch.autograd.grad(mask, logits)[0].isfinite().all()


def test_one_sample_has_no_axis(torch):
    assert torch_step.sample_mask(torch.zeros(4, 5), 1).shape == (4, 5)


@pytest.mark.parametrize("name", TINY)
def test_a_masked_step_trains_the_logits_and_no_weight(torch, name):
    batch, weights = drawn(TINY[name])
    logits = logits_of(torch, weights)
    before = {k: x.clone() for k, x in weights.items()}
    step = torch_step.make_step(
        lambda: torch_step.masked_loss(TINY[name], weights, logits, batch, SAMPLES), logits.values(), 1e-2
    )
    assert step() > 0 and step() > 0
    assert weights.keys() == before.keys()
    for path, x in weights.items():
        assert torch.equal(x, before[path]) and x.grad is None
    assert all((x != 0).any() for x in logits.values())


def test_the_penalty_is_the_sum_of_the_logits(torch):
    network = TINY["fnn"]
    batch, weights = drawn(network)
    logits = {k: torch.full_like(x, 50.0) for k, x in weights.items() if k.endswith("/kernel")}  # keeps all
    penalty = torch_step.masked_loss(network, weights, logits, batch, 2) - torch_step.mean_loss(
        network, weights, batch
    )
    assert float(penalty) == pytest.approx(1e-4 / BATCH * 50 * (42 * 6 + 6 * 5 + 5 * 20), rel=1e-3)


def test_gradients_are_clipped_to_a_global_norm_of_one(torch):
    weights = {"a": torch.zeros(2), "b": torch.zeros(3)}
    torch_step.make_step(lambda: sum(100 * x.sum() for x in weights.values()), weights.values(), 0.1)()
    assert sum((x.grad**2).sum() for x in weights.values()) == pytest.approx(1.0, rel=1e-4)
    torch.testing.assert_close(weights["a"].detach(), torch.full((2,), -0.1))


@pytest.mark.parametrize("samples", [1, 2])
def test_both_contenders_learn_their_batch(torch, monkeypatch, samples):
    monkeypatch.setitem(
        NETWORKS, "tiny", Network(partial(torch_step.fnn, hidden=(64,)), torch_step.digit_batch)
    )
    dense, masked = torch_step.contender("tiny", samples, batch_size=8)
    dense_losses, masked_losses = ([step() for _ in range(30)] for step in (dense, masked))
    assert dense_losses[-1] < dense_losses[0] - 0.1
    assert sum(masked_losses[-5:]) < sum(masked_losses[:5])


def test_the_transformers_decoder_sees_no_later_token(torch):
    network = TINY["transformer"]
    ((source, target), _), weights = drawn(network, size=1)
    later = target.clone()
    later[:, 20:] = (later[:, 20:] + 1) % torch_step.ACTIONS
    outputs, changed = (network.forward(weights, (source, x))[0] for x in (target, later))
    torch.testing.assert_close(outputs[:20], changed[:20])
    assert not torch.allclose(outputs[20:], changed[20:])


def test_names_of_the_networks():
    assert list(NETWORKS) == ["fnn-400-400-200", "fnn-2000x4", "lstm-2x256", "cnn", "transformer", "seq2seq"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fnn-9", 4), "one of fnn-400-400-200, fnn-2000x4.*got 'fnn-9'"),
        (("cnn", 3), "must divide the batch of 128, got 3"),
        (("cnn", 0), "must divide the batch of 128, got 0"),
        (("seq2seq", 4, 6), "must divide the batch of 6, got 4"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        torch_step.contender(*arguments)


def test_without_pytorch_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # an import of it fails
    with pytest.raises(ImportError, match=r"torch.*pip install 'jaxmod\[bench-torch\]'"):
        torch_step.contender("cnn", 4)
