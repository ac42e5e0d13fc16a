"""Arms that compress: the track's own training, made smaller with its training data, beside the model as it was."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from surefoot.compress.compressor import compress
from surefoot.evidence.cost import Clock
from surefoot.evidence.entry import Arm
from surefoot.evidence.quantities import measure
from surefoot.evidence.trained import predictions

if TYPE_CHECKING:
    from surefoot.evidence.classification import Classification


def run_compressed(track: Classification, arm: Arm, *, seed: int, quantities: Collection[str] = ()) -> dict[str, float]:
    """Scores and quantities of the smaller model; `seconds` holds the training of the dense one too."""
    from surefoot.evidence.classification import scores

    world = track.world(seed)
    dense = track.tune(Arm(recipe=arm.recipe, named=arm.named), world, seed=seed)
    clock = Clock()
    with clock.running():
        small = compress(dense.model, arm.compress or {}, world.train, seed=seed)
    sets = {**world.tests, "train": world.train}
    if world.outside is not None:
        sets["outside"] = world.outside
    found = replace(dense, model=small, predicted=predictions(small, sets), seconds=dense.seconds + clock.seconds)
    return scores(found.world, found.predicted) | measure(found, quantities) | {"seconds": found.seconds}
