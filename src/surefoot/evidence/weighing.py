"""Quantities of the weights that a training ends with, and of what they take."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from surefoot.evidence.quantities import quantity
from surefoot.evidence.trained import Trained
from surefoot.models.compressed import stored_bytes
from surefoot.tune.selections.sub_lora import SubLoRA


@quantity
def distance(trained: Trained) -> float:
    """distance of the pretrained weights from where they started, ||w - w0||."""
    total = sum(float((w - w0).square().sum()) for name, w0, w in trained.moves() if not name.startswith("head."))
    return float(np.sqrt(total))


@quantity
def mean_absolute_move(trained: Trained) -> float:
    """mean |w - w0| of the weights that train."""
    return _over_trained(trained, lambda w0, w: float((w - w0).abs().sum()))


@quantity
def mean_squared_move(trained: Trained) -> float:
    """mean (w - w0)^2 of the weights that train."""
    return _over_trained(trained, lambda w0, w: float((w - w0).square().sum()))


@quantity
def mean_absolute_weight(trained: Trained) -> float:
    """mean |w| of the weights that train."""
    return _over_trained(trained, lambda w0, w: float(w.double().abs().sum()))


@quantity
def mean_squared_weight(trained: Trained) -> float:
    """mean w^2 of the weights that train."""
    return _over_trained(trained, lambda w0, w: float(w.double().square().sum()))


@quantity
def near_zero_weights(trained: Trained) -> float:
    """share of the backbone's matrices that is smaller than a tenth of their root mean square."""
    matrices = [w for name, _, w in trained.moves() if w.ndim > 1 and not name.startswith("head.")]
    small = sum(int((w.abs() < 0.1 * w.square().mean().sqrt()).sum()) for w in matrices)
    return small / sum(w.numel() for w in matrices)


@quantity
def trained_share(trained: Trained) -> float:
    """share of the model's weights that are trained, in additions to them counted as such."""
    total = sum(each.numel() for each in trained.model.parameters())
    return sum(each.numel() for each in trained.fit.trained.values()) / total


@quantity
def certified_error(trained: Trained) -> float:
    """error below which the training says that data like its own will stay, with probability 95%."""
    selection = trained.fit.selection
    assert isinstance(selection, SubLoRA)
    return selection.certificate_.bound


@quantity
def moved_share(trained: Trained) -> float:
    """share of the pretrained weights that are not what they were."""
    moves = [(w != w0) for name, w0, w in trained.moves() if not name.startswith("head.")]
    return sum(int(each.sum()) for each in moves) / sum(each.numel() for each in moves)


@quantity
def zero_share(trained: Trained) -> float:
    """share of the pretrained weights that are exactly zero."""
    weights = [w for name, _, w in trained.moves() if not name.startswith("head.")]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


@quantity
def stored_size(trained: Trained) -> float:
    """megabytes that the weights take on disk."""
    return stored_bytes(trained.model) / 1e6


@quantity
def feature_volume(trained: Trained) -> float:
    """geometric mean of the deviations of the features' numbers, each raised by 1, home test."""
    return float(np.exp(np.log1p(trained.home.features.astype(np.float64).std(0)).mean()))


@quantity
def features_read(trained: Trained) -> float:
    """share of the features that the head reads."""
    return float((trained.model.head.weight != 0).any(0).float().mean())


@quantity
def optimizer_state(trained: Trained) -> float:
    """numbers that the optimizer keeps for each weight that trains."""
    state = trained.fit.optimizer.state_dict()
    state = state.get("inner", state)["state"]
    kept = sum(
        value.numel() for each in state.values() for value in each.values() if torch.is_tensor(value) and value.ndim
    )
    return kept / sum(each.numel() for each in trained.fit.trained.values())


def _over_trained(trained: Trained, total: Callable[[torch.Tensor, torch.Tensor], float]) -> float:
    names = set(trained.fit.trained)
    moves = [(w0, w) for name, w0, w in trained.moves() if name in names]
    return sum(total(w0, w) for w0, w in moves) / sum(w.numel() for _, w in moves)
