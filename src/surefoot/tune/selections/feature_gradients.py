"""Feature gradients: a head on the features that explain the labels, and on no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from surefoot.assess.learnability import COEFFICIENTS, FeatureScores
from surefoot.assess.learnability import feature_gradients as score
from surefoot.errors import DataError, RecipeError
from surefoot.models.modes import evaluating
from surefoot.models.probe import fit_probe
from surefoot.registry import Paper, register
from surefoot.tune.objective import Space, fraction, positive
from surefoot.tune.selection import Selection, Training
from surefoot.tune.selections import check_plain, head_names, train_only, whole
from surefoot.tune.selections.reparametrized import Reparametrization, fold, reparametrize

if TYPE_CHECKING:
    from surefoot.models.model import Model


class Chosen(Reparametrization):
    """A head's weight (C, D) with zeros for the features that were not chosen."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


@register(
    "feature_gradients",
    kind="selection",
    family="sparse",
    papers=[
        Paper(
            "Feature Gradients: Scalable Feature Selection via Discrete Relaxation",
            "Sheth and Fusi",
            2019,
            arxiv="1908.10382",
        )
    ],
)
class FeatureGradients(Selection):
    """Only the head trains, and it reads only the features that explain most of the labels together.

    z(s) = sum_{k=1..order} c_k / C(N, k+1) y' up(X diag(s) X')^k y  estimates the share of the labels' variance that
    features X weighed by s explain, without fitting a model; s = sigmoid(2 x) follows the gradient of
    (1 - w) (1 - sqrt(z)) / 2 + w mean(s), and the features with the largest s are kept
    (see `surefoot.assess.learnability.feature_gradients`, which also works on any array).

    X: the model's features of up to `examples` training examples before the first step, in eval mode. The head starts as
    a probe on what is kept, whatever the recipe's `head`; its weights on the rest are zero and stay so.
    share: of the features that are kept, 0.25, this library's choice; 1 keeps all, to the bit what `head` does. order 4,
    penalty 1 (w = penalty / (penalty + 1)): the authors' defaults; order up to 6. examples: 10,000.
    Raises RecipeError for settings out of range, DataError where there are too few examples.
    Reference: Sheth and Fusi 2019; microsoft/nni, gradient_selector/learnability.py.

    >>> FeatureGradients(share=0.5)
    FeatureGradients(share=0.5, order=4, penalty=1.0, examples=10000)
    """

    wraps = True
    reads_labels = True
    starts_there = False

    def __init__(self, *, share: float = 0.25, order: int = 4, penalty: float = 1.0, examples: int = 10_000) -> None:
        self.share = fraction("share", positive("share", share), one=True)
        self.order = whole("order", order, least=1)
        if order not in COEFFICIENTS:
            raise RecipeError(f"`order` is {order}: it must be at most {max(COEFFICIENTS)}")
        self.penalty = positive("penalty", penalty, zero=True)
        self.examples = whole("examples", examples, least=2)
        self.scores_: FeatureScores | None = None
        self.chosen_: np.ndarray | None = None

    def setup(self, model: Model, training: Training) -> None:
        if self.share == 1:
            return
        features, labels = [], []
        with evaluating(model), torch.no_grad():
            for batch in training.batches(self.examples, size=256):
                found = model(batch).features.float().cpu()
                if len(bad := batch.index.cpu()[~torch.isfinite(found).all(1)]):
                    raise DataError(
                        f"the features of training row {int(bad[0]) + 1} are not finite: leave it out or mend it"
                    )
                features.append(found.numpy())
                labels.append(batch.labels.cpu().numpy())
        self.features_, self.labels_ = np.concatenate(features), np.concatenate(labels)
        self.scores_ = score(self.features_, self.labels_, order=self.order, penalty=self.penalty)
        self.chosen_ = self.scores_.best(max(1, round(self.share * model.dim)))

    def apply(self, model: Model) -> None:
        check_plain(model, "feature gradients")
        if self.share == 1:
            train_only(model, head_names(model))
            return
        if self.chosen_ is None:
            raise RecipeError("feature gradients choose by data: call `setup` before `apply`")
        mask = torch.zeros(model.dim, device=model.device)
        mask[torch.from_numpy(self.chosen_)] = 1.0
        fit_probe(model, self.features_ * mask.cpu().numpy(), self.labels_)
        train_only(model, head_names(model))
        reparametrize(model, {"head.weight": Chosen(mask)}, freeze=False)

    def finish(self, model: Model) -> None:
        fold(model, Chosen)

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"share": Space(0.05, 1.0)}

    def __repr__(self) -> str:
        return f"FeatureGradients(share={self.share}, order={self.order}, penalty={self.penalty}, examples={self.examples})"
