"""Seeds of everything random in a training, by number of step and epoch, so that no random state has to be saved."""

from __future__ import annotations

import numpy as np

#: What a seed is for, so that two uses in one training never share a stream.
HEAD, SELECTION, STEP, EPOCH = 1, 2, 3, 4


def seed_of(*parts: int) -> int:
    """A 63-bit seed from several numbers: neighbours give unrelated streams."""
    return int(np.random.SeedSequence(list(parts)).generate_state(1, np.uint64)[0] >> 1)
