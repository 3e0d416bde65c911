"""Made-up examples of sequences."""

import numpy as np

SOURCE_WORDS, TARGET_WORDS, STEPS = 5, 4, 6


def made_up(count=6, seed=0):
    """Returns examples with up to `STEPS` tokens; some are that long. A long source has a long target."""
    random = np.random.default_rng(seed)
    batch, length = {}, random.integers(1, STEPS + 1, count)
    for side, words in (("source", SOURCE_WORDS), ("target", TARGET_WORDS)):
        batch[side] = random.integers(0, words, (count, STEPS)).astype(np.uint8)
        batch[f"{side}_length"] = np.maximum(length - random.integers(0, 2, count), 1).astype(np.int32)
        batch[f"{side}_length"][0] = STEPS
    return batch
