"""DefSent+: a definition tells which entry of a dictionary it is of, entries lying where their definitions say, spread evenly."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.models.model import Model
from surefoot.models.modes import evaluating
from surefoot.models.predict import predict
from surefoot.models.shallow_decoder import checkpoint_head, checkpoint_pooler, pooled
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space, positive
from surefoot.tune.selections import whole
from surefoot.tune.step import Step


@register(
    "defsent_plus",
    kind="objective",
    family="contrastive",
    papers=[
        Paper(
            "DefSent+: Improving sentence embeddings of language models by projecting definition sentences into a quasi-isotropic or isotropic vector space of unlimited dictionary entries",
            "Liu",
            2024,
            arxiv="2405.16153",
        )
    ],
)
class DefSentPlus(Objective):
    """Cross-entropy of the entry that a definition is of: l_i = -log softmax(E g(v_i))[y_i].

    The data are a dictionary: each text a definition, its label y the entry, a word or a phrase, which may have several
    definitions. v (D,): the definition's vector as the model pools it, not scaled to unit length; g: a projection, tanh(W v +
    c), the checkpoint's own pooler, or GELU(W v + c) with the dense layer of its output for masked words where it has no
    pooler (what the authors take for RoBERTa), or a fresh one. E (entries, D) is built before the first step and stays: the
    mean vector of an entry's definitions in the model as it starts, then

        E = 100 FastICA(standardise(mean vectors)),  each column of unit variance, columns independent

    which spreads entries evenly in every direction, where a model's own vectors lie in a narrow cone; tied to no table of
    words, it has a row for any entry. Gives (B,) in nats.

    scale: 100, the authors'; iterations: of FastICA (logcosh, tolerance 1e-4), at most 200, scikit-learn's default, where
    they leave the number to the user. With fewer entries than D + 2 only as many columns as entries allow, the rest zeros.

    The paper then builds E from the model that came out and trains on from there, until it no longer helps: train again
    from the saved model. Use `head: zero`: the head is not read, and a probe over all entries would take long. At test the
    projection is gone. Costs a pass over the data before the first step. State: g; E follows from data and start. Raises
    RecipeError for other values, for fewer than two entries, or for a model that reads no text. Reference: Liu
    2024, and its code (`ICA-transform.py`, `TrainEncoder.py`).

    >>> DefSentPlus(scale=50.0).iterations
    200
    """

    needs = frozenset({"inputs", "hidden_states", "texts", "tokens"})

    def __init__(self, *, scale: float = 100.0, iterations: int = 200) -> None:
        super().__init__()
        self.scale = positive("scale", scale)
        self.iterations = whole("iterations", iterations, least=1)

    def setup(self, context: Context) -> None:
        entries, there = len(context.classes), len(set(context.labels.tolist()))
        if context.texts is None or there < 2:
            raise RecipeError(
                f"defsent_plus tells entries of a dictionary apart, and the data have {there}: give definitions as texts and their entries as labels"
            )
        vectors = unscaled(context.model, list(context.texts))
        labels = context.labels.numpy()
        sums = np.zeros((entries, vectors.shape[1]))
        np.add.at(sums, labels, vectors)
        counts = np.bincount(labels, minlength=entries)
        rows = np.zeros_like(sums)  # of entries without a definition among the texts they stay zero
        rows[counts > 0] = spread((sums / counts.clip(min=1)[:, None])[counts > 0], iterations=self.iterations)
        self.entries_ = self.scale * torch.from_numpy(rows).float()
        self.projection = projection(context.model)

    def per_example(self, step: Step) -> Tensor:
        projected = self.projection(pooled(step.model, step.output, step.batch.inputs))
        entries = self.entries_.to(projected.device)
        return F.cross_entropy(projected.float() @ entries.T, step.labels, reduction="none")

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"scale": Space(1.0, 100.0, log=True)}


def unscaled(model: Model, texts: list[str]) -> np.ndarray:
    """The texts' vectors before they are scaled to unit length, in eval mode: (N, D)."""
    kept, model.normalize = model.normalize, False
    try:
        with evaluating(model):
            return predict(model, model.processor.encode(texts), precision="float32").features.astype(np.float64)
    finally:
        model.normalize = kept


def spread(means: np.ndarray, *, iterations: int) -> np.ndarray:
    """Independent columns of unit variance: (n, D) to (n, D), zeros from column n - 1 on."""
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.preprocessing import StandardScaler

    count = min(len(means) - 1, means.shape[1])
    ica = FastICA(count, max_iter=iterations, tol=1e-4, whiten="unit-variance", fun="logcosh", random_state=0)
    with warnings.catch_warnings():
        # Short of independence the columns are still white, which is what training needs of them.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = ica.fit_transform(StandardScaler().fit_transform(means))
    return np.pad(found, [(0, 0), (0, means.shape[1] - count)])


def projection(model: Model) -> nn.Module:
    """g; see `DefSentPlus`."""
    linear = nn.Linear(model.dim, model.dim)
    if pooler := checkpoint_pooler(model):
        linear.load_state_dict(pooler)
        return nn.Sequential(linear, nn.Tanh())
    if head := checkpoint_head(model):
        linear.load_state_dict({"weight": head["transform.0.weight"], "bias": head["transform.0.bias"]})
        return nn.Sequential(linear, nn.GELU())
    return nn.Sequential(linear, nn.Tanh())
