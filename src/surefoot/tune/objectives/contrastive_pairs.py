"""The contrastive loss of pairs: those that belong together are drawn together, others apart as far as a margin."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space, positive
from surefoot.tune.objectives.cosine_similarity import check_scores
from surefoot.tune.step import Step

HADSELL = Paper(
    "Dimensionality Reduction by Learning an Invariant Mapping",
    "Hadsell, Chopra and LeCun",
    2006,
    link="https://doi.org/10.1109/CVPR.2006.100",
)


@register("contrastive_pairs", kind="objective", family="contrastive", papers=[HADSELL])
class ContrastivePairs(Objective):
    """0.5 (s_i d_i^2 + (1 - s_i) relu(margin - d_i)^2), d_i = 1 - cos(a_i, p_i).

    a_i, p_i: features (D,) of anchor and positive; s_i: the pair's `score`, 1 for two that belong together, 0 for two that
    do not, or between. What FusionSent trains its second encoder by (`surefoot pairs label_description`), and
    sentence_transformers' ContrastiveLoss; the paper's d is Euclidean. Gives (B,), at least 0.

    margin: 0.5, that library's default, above 0. Raises RecipeError for another margin, and for data without pairs or
    without scores. Reference: Hadsell et al. 2006, equation 4.

    >>> ContrastivePairs(margin=1.0).margin
    1.0
    """

    needs = frozenset({"pairs"})
    reads_labels = False

    def __init__(self, *, margin: float = 0.5) -> None:
        super().__init__()
        self.margin = positive("margin", margin)

    def setup(self, context: Context) -> None:
        check_scores(context, "contrastive_pairs")

    def per_example(self, step: Step) -> Tensor:
        distances = 1 - F.cosine_similarity(step.output.features, step.pair("positive").features)
        assert step.pair_scores is not None
        scores = step.pair_scores.to(distances)
        apart = (self.margin - distances).clamp_min(0).square()
        return 0.5 * (scores * distances.square() + (1 - scores) * apart)

    @classmethod
    def space(cls, context: object = None) -> dict[str, Space]:
        return {"margin": Space(0.1, 1.0)}
