"""Accuracy under attack: of which examples an attack finds no version that the model gets wrong."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from surefoot.attacks.attack import MOVABLE, Attack, Target
from surefoot.errors import ModelError, RecipeError
from surefoot.models.batching import evaluation_batches
from surefoot.models.model import Model
from surefoot.models.modes import evaluating
from surefoot.models.processor import Encoded
from surefoot.registry import methods
from surefoot.tune.build import Spec, build
from surefoot.tune.step import Batch

#: Examples attacked together.
BATCH = 64


def build_attack(spec: Spec, model: Model) -> Attack:
    """The attack that `spec` names (a name, or a mapping with `name` and options), if it fits what `model` reads.

    Raises RecipeError for unknown names, options and values out of range; ModelError where it does not fit.
    """
    attack: Attack = build("attack", spec)
    modality = model.processor.modality
    if attack.moves not in MOVABLE[modality]:
        name = spec if isinstance(spec, str) else spec["name"]
        fitting = ", ".join(f"`{each.name}`" for each in methods("attack") if each.make.moves in MOVABLE[modality])
        reads = {"text": "text", "image": "pixels", "features": "numbers"}[modality]
        moves = "pixels" if attack.moves == "values" else attack.moves
        raise ModelError(f"attack `{name}` moves {moves}, and `{model.name}` reads {reads}: use {fitting}")
    return attack


def number(name: str, value: str | float) -> float:
    """A number or a fraction as text.

    >>> number("epsilon", "8/255") == 8 / 255
    True
    """
    try:
        return float(Fraction(str(value).replace(" ", "")))
    except (ValueError, ZeroDivisionError):
        raise RecipeError(f"`{name}` is {value}: write a number or a fraction, such as 8/255") from None


def survivors(
    model: Model,
    encoded: Encoded,
    labels: np.ndarray,
    attack: Attack,
    *,
    seed: int = 0,
    advance: Callable[[int], None] = lambda examples: None,
) -> np.ndarray:
    """Whether the model gets each example right and the attack finds no version that it gets wrong: (N,) of bool.

    In float32: at 8/255 the rounding of bfloat16 is part of a perturbation. Deterministic for a seed and batch size.
    """
    found = np.zeros(len(labels), dtype=bool)
    forward = _float32(model)
    with evaluating(model):
        for index in evaluation_batches(encoded.lengths, most=BATCH):
            batch = Batch(
                inputs={name: value.to(model.device) for name, value in encoded.collate(index).items()},
                labels=torch.from_numpy(labels[index]).to(model.device),
                index=torch.from_numpy(index).to(model.device),
            )
            generator = torch.Generator(model.device).manual_seed(seed * 1_000_003 + int(index[0]))
            found[index] = resists(Target(model, batch, attack.moves, generator, forward=forward), attack).cpu().numpy()
            advance(len(index))
    return found


def resists(target: Target, attack: Attack) -> torch.Tensor:
    """Whether each example (N,) is right and stays so under attack. Only those that are right are attacked."""
    with torch.no_grad():
        right = target.logits(target.x).argmax(1) == target.labels
    if right.any():
        attacked = target.take(right.nonzero()[:, 0])
        moved = attack.perturb(attacked)
        with torch.no_grad():
            right[right.clone()] = attacked.logits(moved).argmax(1) == attacked.labels
    return right


def _float32(model: Model) -> Any:
    def forward(batch: Batch, **options: Any) -> Any:
        with torch.autocast(model.device.type, enabled=False):
            return model(batch, **options)

    return forward
