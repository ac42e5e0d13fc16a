"""Task arithmetic in the tangent space: the sum of task vectors, by one coefficient that held-out labels choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from surefoot.errors import RecipeError
from surefoot.merge.combine import Weights
from surefoot.merge.fit import Fit, Runner, Seen, floats
from surefoot.models.model import Model
from surefoot.progress import Progress, Silent
from surefoot.registry import register
from surefoot.tune.selections import whole
from surefoot.tune.selections.tangent import PAPER

#: How parameters of a tangent are told from weights.
MARK = ".tangent."


@register("tangent_task_arithmetic", kind="merge", family="task vectors", papers=[PAPER])
class TangentTaskArithmetic(Fit):
    """theta = theta_0 + alpha sum_k tau_k, alpha the one of `points` from 0 to 1 with the best normalised accuracy.

    tau_k: of models that were tuned with the selection `tangent` their tangents, and what is merged is run as they are,
    f_lin(x) = f(x; theta_0) + alpha sum_k J(x; theta_0) tau_k; of other models theta_k - theta_0, the paper's ordinary
    task arithmetic. Normalised: the mean over tasks of the merged model's accuracy, by each task's own head on its
    held-out examples, over that of the task's own model. The logits of linearised models are linear in alpha, so that two
    passes serve for all of it; where the pooling is not linear each value takes a pass.

    points: 21, the paper's. Unlearning is the same with -tau (`task_arithmetic` with a negative scaling).
    `scaling_` holds alpha, `normalised_` the mean for each of its values. Raises RecipeError for fewer than 2 points,
    before `fit`, or for linearised models whose weights are not the base's.
    Reference: Ortiz-Jimenez, Favero and Frossard 2023; gortizji/tangent_task_arithmetic.

    >>> TangentTaskArithmetic().points
    21
    """

    sees = "tasks"

    def __init__(self, *, points: int = 21) -> None:
        self.points = whole("points", points, least=2)
        self.scaling_: float | None = None
        self.normalised_: list[float] = []

    def fit(
        self,
        model: Model,
        checkpoints: Sequence[Weights],
        base: Weights | None,
        seen: Sequence[Seen],
        *,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        start = padded(checkpoints[0], base)
        _check(checkpoints, start)
        run = Runner(model, checkpoints, start, seen)
        advance = (progress or Silent()).start("task arithmetic", len(seen))
        values = torch.linspace(0, 1, self.points).tolist()
        rows = []
        for own, each in zip(checkpoints, seen, strict=True):
            alone = run.accuracy(_moved([own], start, run.names, 1.0), [each])
            rows.append(
                [found / max(alone, 1e-12) for found in self._accuracies(run, checkpoints, start, each, values)]
            )
            advance(1)
        means = torch.tensor(rows, dtype=torch.float64).mean(0)
        self.normalised_, self.scaling_ = means.tolist(), values[int(means.argmax())]

    @staticmethod
    def _accuracies(
        run: Runner, checkpoints: Sequence[Weights], start: Weights, each: Seen, values: Sequence[float]
    ) -> list[float]:
        """On one task's set, for every alpha."""
        if not is_linear(run.model):
            return [run.accuracy(_moved(checkpoints, start, run.names, value), [each]) for value in values]
        (before, labels), (after, _) = (
            _logits(run, _moved(checkpoints, start, run.names, value), each) for value in (0.0, 1.0)
        )
        shares = [(((1 - value) * before + value * after).argmax(1) == labels).double().mean() for value in values]
        return [float(share) for share in shares]

    def merged(self, checkpoints: Sequence[Weights], base: Weights | None) -> dict[str, Tensor]:
        assert self.scaling_ is not None
        start = padded(checkpoints[0], base)
        return {**checkpoints[0], **_moved(checkpoints, start, floats(checkpoints[0]), self.scaling_)}

    def facts(self) -> dict[str, Any]:
        return {"scaling": self.scaling_, "normalised_accuracy": self.normalised_}


def padded(first: Weights, base: Weights | None) -> dict[str, Tensor]:
    """The base, with a zero for every tangent: where they start."""
    zeros = {name: torch.zeros_like(value) for name, value in first.items() if MARK in name}
    return {**zeros, **(base or {})}


def is_linear(model: Model) -> bool:
    """Whether its logits are linear in its tangents, all else held."""
    return (
        any(MARK in name for name, _ in model.named_parameters())
        and not model.normalize
        and model.pool in ("mean", "cls", "last")
    )


def _check(checkpoints: Sequence[Weights], start: Mapping[str, Tensor]) -> None:
    if not any(MARK in name for name in checkpoints[0]):
        return
    for each in checkpoints:
        moved = [name for name in floats(each) if MARK not in name and not torch.equal(each[name], start[name])]
        if moved:
            raise RecipeError(
                f"linearised models are merged around the weights that all were tuned from, and `{moved[0]}` is not the base's: give the base that they were tuned from"
            )


def _moved(checkpoints: Sequence[Weights], start: Weights, names: Sequence[str], scaling: float) -> dict[str, Tensor]:
    return {
        name: start[name] + scaling * torch.stack([each[name] - start[name] for each in checkpoints]).sum(0)
        for name in names
    }


@torch.no_grad()
def _logits(run: Runner, weights: Weights, each: Seen) -> tuple[Tensor, Tensor]:
    found = [(run(weights, batch, each.head).logits, batch.labels) for batch in each.batches(64, seed=0)]
    logits, labels = zip(*found, strict=True)
    return torch.cat(logits), torch.cat(labels)
