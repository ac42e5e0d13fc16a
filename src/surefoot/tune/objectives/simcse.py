"""Unsupervised SimCSE: a text is its own positive, seen through another dropout."""

from __future__ import annotations

from torch import Tensor

from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Space
from surefoot.tune.objectives.views import DropoutViews, contrast
from surefoot.tune.step import Step

PAPER = Paper("SimCSE: Simple Contrastive Learning of Sentence Embeddings", "Gao et al.", 2021, arxiv="2104.08821")


@register("simcse", kind="objective", family="contrastive", papers=[PAPER])
class SimCSE(DropoutViews):
    """A text finds itself among the batch: l_i = -log exp(cos(z_i, z'_i) / t) / sum_j exp(cos(z_i, z'_j) / t).

    z_i = tanh(W f_i + b), z'_i the same of another pass with its own dropout, (D,); f_i: features of text i, pooled as the
    model pools (the paper's [CLS] is `pool="cls"`); W, b: BERT's pooler, random at the start, in training alone and dropped
    at the end. Gives (B,) in nats, log B where nothing is told apart, 0 for a batch of one. Needs no labels. It draws
    the features out of the narrow cone in which a language model leaves them: `uniformity` falls. The supervised form,
    with pairs, is `infonce`.

    temperature: t, above 0; the paper's 0.05. dropout: the rate of the whole training; None (default) for the model's
    own, 0.1 in BERT and MiniLM, the paper's best. With 0 both views are the same, and the paper finds 71.1 on STS-B where
    0.1 gives 82.5.

    Costs a pass more than a loss of labels does; both passes are shared with other objectives. State: W and b. Raises
    RecipeError for other values, or a model without dropout unless the rate 0 is asked for. Reference: Gao et al. 2021,
    section 3; princeton-nlp/SimCSE, simcse/models.py.

    >>> SimCSE(dropout=0.2).temperature
    0.05
    """

    name = "simcse"

    def __init__(self, *, temperature: float = 0.05, dropout: float | None = None) -> None:
        super().__init__(temperature=temperature, dropout=dropout)

    def per_example(self, step: Step) -> Tensor:
        return contrast(*self.views(step), self.temperature)

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"temperature": Space(0.01, 0.2, log=True), "dropout": Space(0.01, 0.3)}
