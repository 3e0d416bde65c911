"""What only one class needs: masks trained without it (Csordas et al. 2021, section 5).

A class that is never shown leaves its weights without a use, and the penalty takes them. Beside the control
mask, which keeps what any class needs, the mask trained without a class shows which weights are its own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, PyTree

from jaxmod import trees
from jaxmod.find import Found, find_modules
from jaxmod.train import inputs
from jaxmod.train.tasks import num_examples
from jaxmod.types import BinaryMask, Estimator, Logits, Params, Where
from jaxmod.workdir import Stage

__all__ = ["ClassMasks", "find_class_masks"]

_HIGH = 1e6
"""A score that no training reaches."""


class ClassMasks(NamedTuple):
    """Modules of each run, leading runs axis."""

    control: Found
    """Trained on all classes."""
    without: list[Found]
    """By the class that was left out."""


def find_class_masks(
    loss_fn: Callable[..., Any],
    params: Params,
    labels: Int[np.ndarray, " examples"],
    *,
    data: PyTree,
    output: str,
    keys: Key[Array, " runs"],
    estimator: Estimator,
    where: Where = trees.DEFAULT_WHERE,
    stage: Callable[[str], Stage | None] = lambda name: None,
    **options: Any,
) -> ClassMasks:
    """Returns the control mask, and for every class a mask trained on all examples but those of the class.

    The output layer's part of these is the control's and is not trained: it would only forget the class's
    output, and nothing would be learned of the layers below (appendix C.7). All classes and runs train
    together, in one program.

    Args:
      loss_fn: as for `find_modules`.
      params: frozen, leading runs axis.
      labels: the class of each example; classes count from 0.
      data: the examples, a pytree of arrays.
      output: a regex on the paths of the output layer's masked leaves.
      keys: one for each run.
      estimator: of the masks.
      where: the leaves to mask.
      stage: `name -> stage` of a workdir, for the stages "control" and "classes".
      **options: more of `find_modules`: `config`, `evaluate`, `progress`.

    Raises:
      ValueError: as `find_modules`; labels are not as many as examples; a class has no example; `output`
        matches no masked leaf.
    """
    labels = np.asarray(labels)
    if (examples := num_examples(data, "data")) != len(labels):
        raise ValueError(f"labels: there are {len(labels)}, expected one for each of {examples} examples.")
    classes = int(labels.max()) + 1
    if absent := sorted(set(range(classes)) - set(labels.tolist())):
        raise ValueError(f"labels: no example of class {', '.join(map(str, absent))}; it cannot be left out.")
    shared = {"keys": keys, "estimator": estimator, "params_axis": 0, "data": data, **options}
    rows = np.arange(len(labels))
    control = find_modules(
        loss_fn, params, {"control": rows}, where=where, workdir=stage("control"), **shared
    )["control"]
    # From where the control started, so that nothing but the class that is left out makes a difference.
    start = inputs.start_logits(keys, inputs.one_run(params, 0), where, estimator, None)
    without = find_modules(
        loss_fn,
        params,
        {f"without {c}": rows[labels != c] for c in range(classes)},
        logits=_copied(start, control, output, ranks=not estimator.stochastic),
        trainable=f"(?!(?:{output})$).*",
        workdir=stage("classes"),
        **shared,
    )
    return ClassMasks(control, [without[f"without {c}"] for c in range(classes)])


def _copied(start: Logits, control: Found, output: str, ranks: bool) -> Logits:
    """Returns start values whose output layer is the control's.

    An estimator that ranks all layers together keeps the copied mask only if no score of another layer comes
    in between.
    """
    chosen = trees.select(start, output)

    def copied(is_output: bool, logits: Array, learned: Array, mask: Array) -> Array:
        if not is_output:
            return logits
        return jnp.where(mask, _HIGH, -_HIGH) if ranks else learned

    mask: BinaryMask = control.mask
    return jax.tree.map(copied, chosen, start, control.logits, mask)
