"""Alignment and uniformity: the two properties that a contrastive loss asks of features on the sphere."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space, one_of, positive
from surefoot.tune.objectives.pairs import check_dropout, mean_where, same_class, unit
from surefoot.tune.step import Step

PAPER = Paper(
    "Understanding Contrastive Representation Learning through Alignment and Uniformity on the Hypersphere",
    "Wang and Isola",
    2020,
    arxiv="2005.10242",
)
#: Below this a squared distance has no direction, and its root no derivative.
TINY = 1e-12


@register("alignment", kind="objective", family="contrastive", papers=[PAPER])
class Alignment(Objective):
    """Features of positive pairs lie close together: E over pairs of ||u_i - u_j||^alpha.

    u_i: features of example i (D,), scaled to unit length. Gives (B,) in units of distance to the power alpha, at most
    2^alpha: example i's mean over its positives, 0 where the batch holds none. Alone it is least where all features
    are one point: `uniformity` beside it, or cross-entropy, keeps them apart.

    positives: what counts as a pair.
    "same_class" (default): two examples of the batch with one label. Costs no further pass, and works in models without
    dropout. "dropout": two passes over one example, each with its own dropout, as SimCSE does for texts where the paper
    has two augmentations of an image; the pass is shared with other objectives that ask for it.
    alpha: power of the distance, above 0; the paper's 2 for images (1 and 2 were tried).

    Raises RecipeError if alpha is not above 0, `positives` is neither, or the model has no dropout to tell two passes
    apart. Reference: Wang and Isola 2020, section 4.1; ssnl/align_uniform.

    >>> Alignment(alpha=2.0).alpha
    2.0
    """

    def __init__(self, *, positives: Literal["same_class", "dropout"] = "same_class", alpha: float = 2.0) -> None:
        super().__init__()
        self.positives = one_of("positives", positives, ["same_class", "dropout"])
        self.reads_labels = positives == "same_class"
        self.alpha = positive("alpha", alpha)

    def setup(self, context: Context) -> None:
        if self.positives == "dropout":
            check_dropout(context.model, "alignment")

    def per_example(self, step: Step) -> Tensor:
        u = unit(step.output.features)
        if self.positives == "dropout":
            return self._power((u - unit(step.second_output.features)).square().sum(1))
        distances = self._power((u[:, None] - u).square().sum(2))
        return mean_where(distances, same_class(step.labels))

    def _power(self, squared: Tensor) -> Tensor:
        """||.||^alpha from ||.||^2."""
        return squared if self.alpha == 2 else squared.clamp_min(TINY).pow(self.alpha / 2)

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"alpha": Space(0.5, 4.0)}


@register("uniformity", kind="objective", family="contrastive", papers=[PAPER])
class Uniformity(Objective):
    """Features spread over the sphere: log of the mean over pairs i < j of exp(-t ||u_i - u_j||^2).

    u_i: features of example i (D,), scaled to unit length. Gives a scalar, between -4 t and 0; 0 where all features are
    one point, or the batch one example. It pushes examples of one class apart as well: `alignment` beside it holds
    them together.

    t: how far a pair is felt, above 0; the paper's 2.

    Raises RecipeError if t is not above 0. Reference: Wang and Isola 2020, section 4.1; ssnl/align_uniform.

    >>> Uniformity(t=2.0).t
    2.0
    """

    reads_labels = False

    def __init__(self, *, t: float = 2.0) -> None:
        super().__init__()
        self.t = positive("t", t)

    def forward(self, step: Step) -> Tensor:
        u = unit(step.output.features)
        first, second = torch.triu_indices(len(u), len(u), offset=1, device=u.device)
        if not len(first):
            return 0 * u.sum()
        squared = (u[first] - u[second]).square().sum(1)
        return torch.logsumexp(-self.t * squared, 0) - torch.tensor(float(len(squared)), device=u.device).log()

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"t": Space(0.5, 8.0, log=True)}
