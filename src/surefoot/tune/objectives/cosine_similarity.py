"""Cosine similarity: the cosine of a pair is drawn to its score."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective
from surefoot.tune.step import Step

REIMERS = Paper(
    "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks", "Reimers and Gurevych", 2019, arxiv="1908.10084"
)


@register("cosine_similarity", kind="objective", family="contrastive", papers=[REIMERS])
class CosineSimilarity(Objective):
    """(cos(a_i, p_i) - s_i)^2: regression of cosines on how alike two texts are said to be.

    a_i, p_i: features (D,) of anchor and positive; s_i: the pair's `score`, in the units of a cosine, -1 to 1. What SetFit
    trains an encoder by, with scores of 1 for two examples of one class and 0 for others (`surefoot pairs setfit`), and
    sentence_transformers' CosineSimilarityLoss. Gives (B,), 0 to 4. Has no settings. Raises RecipeError for data without
    pairs or without scores. Reference: Reimers and Gurevych 2019, section 3.

    >>> CosineSimilarity().reads_labels
    False
    """

    needs = frozenset({"pairs"})
    reads_labels = False

    def setup(self, context: Context) -> None:
        check_scores(context, "cosine_similarity")

    def per_example(self, step: Step) -> Tensor:
        cosines = F.cosine_similarity(step.output.features, step.pair("positive").features)
        assert step.pair_scores is not None
        return (cosines - step.pair_scores.to(cosines)).square()


def check_scores(context: Context, name: str) -> None:
    """RecipeError, in the objective's name, for training data without scores."""
    if context.pairs is None or context.pairs.scores is None:
        raise RecipeError(
            f"{name} needs pairs with a `score`, how alike the two are: add the column, or choose another objective such as infonce"
        )
