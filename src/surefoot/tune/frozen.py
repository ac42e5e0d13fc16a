"""Layers below the lowest that trains: they run without gradient, and once if nothing changes what they see."""

from __future__ import annotations

from surefoot.models.model import Model
from surefoot.tune.loss import Loss


def freeze(model: Model, loss: Loss, notes: list[str]) -> bool:
    """Freeze the layers of `model` below the lowest that trains; whether there are any whose output may be cached.

    It may not where an objective changes what they read, or reads what they say; `notes` is then told.
    """
    depth = model.lowest_trained()
    if depth == 0:
        return False
    blockers = sorted(
        name for name, objective in loss.terms.items() if objective.needs & {"inputs", "hidden_states", "attentions"}
    )
    if blockers:
        notes.append(
            f"the frozen layers are run in every step, not cached: {', '.join(f'`{name}`' for name in blockers)} changes or reads what they see"
        )
    model.freeze(depth)
    return not blockers
