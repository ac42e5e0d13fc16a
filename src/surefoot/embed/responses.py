"""Suggested responses from a fixed set: nearest by dot product, likely in themselves, and no two of one kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from surefoot.errors import DataError, RecipeError

#: Cosine distance below which, on average, responses are of one kind; this library's choice.
ALIKE = 0.3


class Responses:
    """S(x, y) = h_x . h_y + alpha log P(y); of the best responses, at most one of each cluster.

    texts: N responses. vectors: (N, D), their embeddings. log_prior: (N,), log P(y) in nats, such as `log_likelihoods`
    gives; 0 for all by default. clusters: (N,), whole numbers, responses of one kind having the same; each its own kind by
    default, and `clustered` finds some. Search is exact, one product of matrices: the hierarchical quantisation of the
    paper is for millions of responses. Its two towers are what an encoder trained by `infonce` (dot product, temperature
    1) gives for both sides. Raises DataError where the lengths differ or there is no response.
    Reference: Henderson et al. 2017, "Efficient Natural Language Response Suggestion for Smart Reply", arXiv 1705.00652.

    >>> some = Responses(["Yes.", "Yes!", "No."], np.array([[1.0, 0], [0.9, 0], [0, 1]]), clusters=[0, 0, 1])
    >>> some.suggest(np.array([[1.0, 0.5]]), k=2)[0].tolist()
    [[0, 2]]
    """

    def __init__(
        self,
        texts: Sequence[str],
        vectors: np.ndarray,
        *,
        log_prior: Sequence[float] | np.ndarray | None = None,
        clusters: Sequence[int] | np.ndarray | None = None,
    ) -> None:
        self.texts, self.vectors = list(texts), np.asarray(vectors)
        count = len(self.texts)
        self.log_prior = np.zeros(count) if log_prior is None else np.asarray(log_prior, np.float64)
        self.clusters = np.arange(count) if clusters is None else np.asarray(clusters)
        if not count:
            raise DataError("no responses: give at least one")
        for name, values in (("vectors", self.vectors), ("log_prior", self.log_prior), ("clusters", self.clusters)):
            if len(values) != count:
                raise DataError(f"{count} responses but {len(values)} `{name}`: give one for each")

    def suggest(self, queries: np.ndarray, *, k: int = 3, alpha: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """(indices (Q, k), scores (Q, k)) for queries (Q, D), best first; -1 and -inf where there are fewer clusters.

        k: 3, as the application shows. alpha: weight of the prior; 0 leaves it out. Raises RecipeError for k below 1 or an
        alpha that is negative.
        """
        if k < 1 or alpha < 0:
            raise RecipeError(f"k is {k} and alpha {alpha}: ask for at least one response, with an alpha of 0 or more")
        scores = np.asarray(queries) @ self.vectors.T + alpha * self.log_prior
        indices = np.full((len(scores), k), -1)
        found = np.full((len(scores), k), -np.inf)
        for row, order in enumerate(np.argsort(-scores, axis=1, kind="stable")):
            # The best of each cluster, in the order of their scores.
            best = order[np.sort(np.unique(self.clusters[order], return_index=True)[1])][:k]
            indices[row, : len(best)] = best
            found[row, : len(best)] = scores[row, best]
        return indices, found


def clustered(vectors: np.ndarray, *, alike: float = ALIKE) -> np.ndarray:
    """(N,) clusters of responses (N, D): joined while the mean cosine distance of two clusters is below `alike`.

    The paper groups responses by what they are about with a graph that people helped to make; here by embeddings.
    """
    from sklearn.cluster import AgglomerativeClustering

    if len(vectors) < 2:
        return np.zeros(len(vectors), np.int64)
    joined = AgglomerativeClustering(n_clusters=None, metric="cosine", linkage="average", distance_threshold=alike)
    return np.asarray(joined.fit_predict(vectors))


@torch.inference_mode()
def log_likelihoods(texts: Sequence[str], *, model: Any, tokenizer: Any) -> np.ndarray:
    """log P_LM(y) of each text in nats (N,), by a causal language model of `transformers`: sum over its tokens of
    log p(token | those before), the first one given the mark of the beginning (the end's, where there is none)."""
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    found = []
    for text in texts:
        ids = torch.tensor([[start, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
        logits = model(input_ids=ids).logits[0, :-1].float()
        found.append(-float(F.cross_entropy(logits, ids[0, 1:], reduction="sum")))
    return np.array(found)
