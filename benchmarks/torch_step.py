"""Dense and masked training steps in PyTorch, for `benchmarks.mask_step` to set ours beside.

The method of Csordas et al. 2021 as plain eager code: masks get a leading axis of samples, every layer
takes such a batch of weights, and sample i sees the i-th of as many contiguous parts of the batch. A dense
step runs through the same functions with the weights as they are. Where PyTorch has a faster way to the
same result, it is taken: `scaled_dot_product_attention`, one product for all inputs of an LSTM layer, no
gradient of frozen weights. There is no dropout. Needs PyTorch: pip install 'jaxmod[bench-torch]'.
"""

import importlib
import math
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

__all__ = ["NETWORKS", "Network", "contender", "make_step", "masked_loss", "mean_loss", "sample_mask"]
__all__ += ["cnn", "digit_batch", "fnn", "image_batch", "lstm", "seq2seq", "token_batch", "transformer"]

Tensor = Any  # torch.Tensor; PyTorch is imported only inside functions
Weights = dict[str, Tensor]
"""By path, like "layer_1/kernel". A kernel is [out, in, ...], a masked one [samples, out, in, ...]."""
Batch = tuple[Any, Tensor]
Step = Callable[[], float]  # runs one training step and returns its loss, so a GPU has finished

BETA = 1e-4
WORDS, ACTIONS = 14, 7  # kinds of source and target tokens: those of SCAN, with an end token each
ZERO_STATE = ((None, 0.0), (None, 0.0))  # (h, c) of two layers; None saves the product with zeros


class Network(NamedTuple):
    """A network and its data."""

    forward: Callable[[Weights, Any], Tensor]
    """`forward(weights, inputs) -> logits`; kernels with an axis of samples share out the batch. A weight
    that is missing is drawn and kept: kernels as PyTorch's layers do, biases 0."""
    batch: Callable[[int], Batch]
    """`batch(size) -> (inputs, labels)`, random."""
    batch_size: int = 128


def contender(name: str, num_samples: int, batch_size: int | None = None) -> tuple[Step, Step]:
    """Returns `(dense, masked)`: each call trains the same network one step on the same random batch.

    Seeds PyTorch's generator; everything lies on PyTorch's default device. The names are those of
    `NETWORKS`, the batch has by default the size of the network's experiment.

    Raises:
      ValueError: there is no such network; `num_samples` does not divide the batch.
      ImportError: PyTorch cannot be imported.
    """
    if name not in NETWORKS:
        raise ValueError(f"name must be one of {', '.join(NETWORKS)}, got {name!r}.")
    network = NETWORKS[name]
    size = network.batch_size if batch_size is None else batch_size
    if num_samples < 1 or size < 1 or size % num_samples:
        raise ValueError(f"num_samples must divide the batch of {size}, got {num_samples}.")
    _torch().manual_seed(0)
    batch = network.batch(size)
    weights, frozen = {}, {}
    for drawn in (weights, frozen):
        network.forward(drawn, batch[0])
    logits = {path: _torch().full_like(x, 2.0) for path, x in frozen.items() if path.endswith("/kernel")}
    dense = make_step(lambda: mean_loss(network, weights, batch), weights.values(), 1e-3)
    masked = partial(masked_loss, network, frozen, logits, batch, num_samples)
    return dense, make_step(masked, logits.values(), 1e-2)


def make_step(objective: Callable[[], Tensor], trained: Iterable[Tensor], learning_rate: float) -> Step:
    """Returns a step of Adam on `trained`, in place, with gradients clipped to a global norm of 1."""
    trained = [x.requires_grad_() for x in trained]
    optimizer = _torch().optim.Adam(trained, lr=learning_rate)

    def step() -> float:
        optimizer.zero_grad()
        loss = objective()
        loss.backward()
        _torch().nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        return loss.item()

    return step


def mean_loss(network: Network, weights: Weights, batch: Batch) -> Tensor:
    """Returns the mean cross-entropy of all outputs."""
    logits = network.forward(weights, batch[0]).flatten(0, -2)
    return _torch().nn.functional.cross_entropy(logits, batch[1].flatten())


def masked_loss(network: Network, weights: Weights, logits: Weights, batch: Batch, samples: int) -> Tensor:
    """Returns the mean loss under fresh masks, plus beta / batch size times the sum of all logits."""
    masked = {path: weights[path] * sample_mask(x, samples) for path, x in logits.items()}
    penalty = BETA / len(batch[1]) * sum(x.sum() for x in logits.values())
    return mean_loss(network, weights | masked, batch) + penalty


def sample_mask(logits: Tensor, samples: int) -> Tensor:
    """Returns straight-through masks [samples, *shape] of zeros and ones; a single one has no such axis.

    s = sigmoid(l - log(log u / log v)) of uniform u and v; forward 1[s > 0.5], backward s.
    """
    torch = _torch()
    tiny = 1e-10  # in the three places where the authors have it; a uniform number may be 0
    u, v = torch.rand(2, *([samples] if samples > 1 else []), *logits.shape)
    soft = torch.sigmoid(logits - torch.log(torch.log(u + tiny) / torch.log(v + tiny) + tiny))
    return ((soft > 0.5).to(soft.dtype) - soft).detach() + soft


def fnn(weights: Weights, x: Tensor, hidden: Sequence[int]) -> Tensor:
    """Returns the digits' logits [batch, 2, 10] of the feed-forward network."""
    for i, size in enumerate(hidden, start=1):
        x = _linear(weights, f"layer_{i}", x, size).relu()
    return _linear(weights, "output", x, 20).unflatten(-1, (2, 10))


def lstm(weights: Weights, x: Tensor, hidden: int) -> Tensor:
    """Returns the digits' logits [batch, 2, 10] of the LSTM, which sees its input at three steps."""
    outputs, _ = _unroll(weights, "lstm", x[:, None].repeat(1, 3, 1), hidden)
    return _linear(weights, "output", outputs[:, -1], 20).unflatten(-1, (2, 10))


def cnn(weights: Weights, x: Tensor, channels: Sequence[int]) -> Tensor:
    """Returns the logits [batch, 10] of 3x3 convolutions with ReLU and pooling between them."""
    F, samples, inputs = _torch().nn.functional, 1, 3
    for i, size in enumerate(channels, start=1):
        kernel = _weight(weights, f"conv_{i}/kernel", size, inputs, 3, 3)
        bias = _weight(weights, f"conv_{i}/bias", size)
        if i == 1:  # samples go side by side, as groups of channels: [part, samples * channels, 32, 32]
            samples = math.prod(kernel.shape[:-4])
            x = x.unflatten(0, (samples, -1)).transpose(0, 1).flatten(1, 2)
        kernel, bias = kernel.reshape(-1, inputs, 3, 3), bias.repeat(samples)
        x = F.conv2d(x, kernel, bias, padding=1, groups=samples).relu()
        x, inputs = F.max_pool2d(x, 2) if i < len(channels) else x.mean((2, 3)), size
    means = x.unflatten(1, (samples, -1)).transpose(0, 1).flatten(0, 1)
    return _linear(weights, "output", means, 10)


def transformer(weights: Weights, tokens: Any, width: int, inner: int, heads: int, layers: int) -> Tensor:
    """Returns the logits [batch, time, tokens] of a post-norm encoder-decoder under teacher forcing."""
    torch, x, memory = _torch(), None, None
    for stack, words in zip(("encoder", "decoder"), tokens, strict=True):
        angles = torch.arange(words.shape[1])[:, None] / 10_000 ** (torch.arange(0, width, 2) / width)
        x = _embed(weights, stack, words, width) + torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
        for name in (f"{stack}/{i}" for i in range(layers)):
            x = _attend(weights, f"{name}/self", x, x, heads, causal=stack == "decoder")
            if memory is not None:
                x = _attend(weights, f"{name}/cross", x, memory, heads, causal=False)
            y = _linear(weights, f"{name}/feed/in", x, inner).relu()
            x = _add_norm(weights, f"{name}/feed", x, _linear(weights, f"{name}/feed/out", y, width))
        memory = x
    return _linear(weights, "output", x, ACTIONS)


def seq2seq(weights: Weights, tokens: Any, hidden: int) -> Tensor:
    """Returns the logits [batch, time, tokens] of an encoder-decoder LSTM under teacher forcing."""
    x, state = None, ZERO_STATE
    for stack, words in zip(("encoder", "decoder"), tokens, strict=True):
        x, state = _unroll(weights, stack, _embed(weights, stack, words, 16), hidden, state)
    return _linear(weights, "output", x, ACTIONS)


def digit_batch(size: int) -> Batch:
    """Returns inputs of addition and multiplication [size, 42], labels [size, 2]."""
    torch = _torch()
    digits, op = torch.eye(10)[torch.randint(10, (size, 4))], torch.eye(2)[torch.randint(2, (size,))]
    return torch.cat([digits.flatten(1), op], 1), torch.randint(10, (size, 2))


def image_batch(size: int) -> Batch:
    """Returns images [size, 3, 32, 32], labels [size]."""
    return _torch().randn(size, 3, 32, 32), _torch().randint(10, (size,))


def token_batch(size: int) -> Batch:
    """Returns (10 source tokens and an end, the target a step late), 40 target tokens and an end."""
    source, target = (_torch().randint(n, (size, t)) for n, t in ((WORDS, 11), (ACTIONS, 41)))
    return (source, target.roll(1, 1)), target


NETWORKS = {
    "fnn-400-400-200": Network(partial(fnn, hidden=(400, 400, 200)), digit_batch),
    "fnn-2000x4": Network(partial(fnn, hidden=(2000,) * 4), digit_batch),
    "lstm-2x256": Network(partial(lstm, hidden=256), digit_batch),
    "cnn": Network(partial(cnn, channels=(32, 64, 128, 256)), image_batch),
    "transformer": Network(partial(transformer, width=100, inner=200, heads=4, layers=3), token_batch, 256),
    "seq2seq": Network(partial(seq2seq, hidden=200), token_batch, 256),
}


def _weight(weights: Weights, path: str, *shape: int) -> Tensor:
    torch, kind = _torch(), path.split("/")[-1]
    if path not in weights and kind == "kernel":
        weights[path] = (2 * torch.rand(shape) - 1) / math.sqrt(math.prod(shape[1:]))
    elif path not in weights:
        weights[path] = {"bias": torch.zeros, "scale": torch.ones, "embedding": torch.randn}[kind](shape)
    return weights[path]


def _linear(weights: Weights, name: str, x: Tensor, size: int, biased: bool = True) -> Tensor:
    torch, kernel = _torch(), _weight(weights, f"{name}/kernel", size, x.shape[-1])
    bias = _weight(weights, f"{name}/bias", size) if biased else None
    if kernel.ndim == 2:
        return torch.nn.functional.linear(x, kernel, bias)
    parts = x.reshape(len(kernel), -1, x.shape[-1])
    y = torch.bmm(parts, kernel.mT) if bias is None else torch.baddbmm(bias, parts, kernel.mT)
    return y.reshape(*x.shape[:-1], size)


def _unroll(weights: Weights, name: str, x: Tensor, hidden: int, state: Any = ZERO_STATE) -> Any:
    """Returns the outputs [batch, time, hidden] of two LSTM layers, and each layer's last (h, c)."""
    torch, last = _torch(), []
    for layer, (h, c) in enumerate(state):
        outputs = []
        for z in _linear(weights, f"{name}/l{layer}_ih", x, 4 * hidden).unbind(1):
            if h is not None:
                z = z + _linear(weights, f"{name}/l{layer}_hh", h, 4 * hidden, biased=False)
            i, f, g, o = z.chunk(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        x = torch.stack(outputs, 1)
        last.append((h, c))
    return x, last


def _embed(weights: Weights, name: str, tokens: Tensor, width: int) -> Tensor:
    table = _weight(weights, f"{name}/embedding", WORDS if name == "encoder" else ACTIONS, width)
    return _torch().nn.functional.embedding(tokens, table)


def _attend(weights: Weights, name: str, x: Tensor, seen: Tensor, heads: int, causal: bool) -> Tensor:
    width, inputs = x.shape[-1], {"q": x, "k": seen, "v": seen}
    parts = [_linear(weights, f"{name}/{part}", y, width, biased=False) for part, y in inputs.items()]
    parts = [y.unflatten(-1, (heads, -1)).transpose(1, 2) for y in parts]
    y = _torch().nn.functional.scaled_dot_product_attention(*parts, is_causal=causal)
    y = y.transpose(1, 2).flatten(2)
    return _add_norm(weights, name, x, _linear(weights, f"{name}/out", y, width, biased=False))


def _add_norm(weights: Weights, name: str, x: Tensor, y: Tensor) -> Tensor:
    scale, bias = (_weight(weights, f"{name}/norm/{part}", x.shape[-1]) for part in ("scale", "bias"))
    return _torch().nn.functional.layer_norm(x + y, x.shape[-1:], scale, bias)


def _torch() -> Any:
    # PyTorch's threads would spin after each step, on the cores that the next contender needs.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise ImportError(f"{error}; the PyTorch column needs: pip install 'jaxmod[bench-torch]'.") from error
