"""What a training loop carries from step to step: arrays only, the same structure throughout."""

from typing import Any

import flax.struct

from jaxmod.types import Logits, Params

__all__ = ["DenseState", "JointState", "MaskState"]


@flax.struct.dataclass
class MaskState:
    """Masks in training; the frozen weights are inputs of the step, not state."""

    logits: Logits
    opt_state: Any


@flax.struct.dataclass
class DenseState:
    """A network in training, with what its layers carry along (BatchNorm statistics)."""

    params: Params
    model_state: Any
    opt_state: Any


@flax.struct.dataclass
class JointState:
    """Weights and the mask over them, trained together (transfer)."""

    params: Params
    logits: Logits
    opt_state: Any
