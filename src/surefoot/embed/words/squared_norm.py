"""SN, the squared-norm objective of RAND-WALK: word vectors whose sums tell how often words meet."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from surefoot.embed.partition import partition_spread, second_moment_ratio
from surefoot.embed.vocabulary import Vocabulary, cooccurrences
from surefoot.embed.word_vectors import WordVectors
from surefoot.errors import DataError
from surefoot.progress import Progress
from surefoot.registry import Paper, register
from surefoot.tune.objective import positive
from surefoot.tune.selections import whole

PAPER = Paper("A Latent Variable Model Approach to PMI-based Word Embeddings", "Arora et al.", 2016, arxiv="1502.03520")
#: Pairs of words a step of AdaGrad takes together.
BATCH = 8192


@register("squared_norm", kind="word_vectors", family="counts", papers=[PAPER])
class SquaredNorm(WordVectors):
    """Squared norm (SN): log of how often two words meet is the squared length of the sum of their vectors.

    min over v (V, D) and C: sum over w, w' with X > 0 of f(X_ww') (log X_ww' - |v_w + v_w'|^2 - C)^2,
    f(X) = min(X / x_max, 1)^power. X: co-occurrences within `window` words, each worth 1 / distance (GloVe's, which the
    authors use). It follows from a walk of a discourse vector c that emits w with probability exp(<v_w, c>) / Z_c, if Z_c
    hardly depends on c; `diagnose` measures whether it does.

    size: D, 100 (the paper has 300 for a corpus of billions). window: 10, the authors' script's. x_max: 100, theirs.
    power: 1, the paper's min(X, 100); the released code has GloVe's 0.75. lr: AdaGrad's, 0.05, and epochs: 50 passes over
    the pairs in steps of 8,192 (script: 50; the paper's rate is quoted from memory, the released code has 0.01 and one pair
    a step). min_count: 5. A text is the mean of its words' vectors.

    Facts: `correlation_` of log X with |v_w + v_w'|^2 over all pairs that meet, `constant_`: C, `loss_` by epoch: the
    weighted mean of squares. Raises RecipeError for options that cannot work, DataError where no words meet. Reference:
    Arora et al. 2016.
    """

    facts: ClassVar[tuple[str, ...]] = ("constant_", "correlation_", "loss_")

    def __init__(
        self,
        *,
        size: int = 100,
        window: int = 10,
        x_max: float = 100.0,
        power: float = 1.0,
        lr: float = 0.05,
        epochs: int = 50,
        min_count: int = 5,
    ) -> None:
        self.size = whole("size", size, least=1)
        self.window = whole("window", window, least=1)
        self.x_max = positive("x_max", x_max)
        self.power = positive("power", power, zero=True)
        self.lr = positive("lr", lr)
        self.epochs = whole("epochs", epochs, least=1)
        self.min_count = whole("min_count", min_count, least=1)

    def learn(self, texts: list[str], *, labels: np.ndarray | None, seed: int, progress: Progress) -> None:
        documents = [self.words(text) for text in texts]
        known = Vocabulary.of(documents, min_count=self.min_count)
        rows = [known.rows(each) for each in documents]
        counts = cooccurrences(rows, size=len(known), window=self.window)
        pairs = _pairs(counts, x_max=self.x_max, power=self.power)
        if not len(pairs[0]):
            raise DataError(
                f"no two words meet within {self.window} words: give longer texts, or a smaller `min_count`"
            )
        generator = torch.Generator().manual_seed(seed)
        vectors = (torch.rand(len(known), self.size, generator=generator) - 0.5) / self.size
        constant = torch.zeros(())
        self.loss_ = self._descend(vectors, constant, pairs, generator, progress)
        first, second, logs, _ = pairs
        norms = (vectors[first] + vectors[second]).square().sum(1)
        together = np.stack([norms.numpy(), logs.numpy()])
        self.correlation_ = float(np.corrcoef(together)[0, 1]) if (together.std(1) > 0).all() else 0.0
        self.constant_ = float(constant)
        self.vocabulary_, self.vectors_ = known, vectors.numpy()

    def _descend(
        self,
        vectors: Tensor,
        constant: Tensor,
        pairs: tuple[Tensor, ...],
        generator: torch.Generator,
        progress: Progress,
    ) -> list[float]:
        """AdaGrad, which changes both in place; the loss by epoch."""
        first, second, logs, weights = pairs
        squares = torch.zeros_like(vectors), torch.zeros(())
        advance = progress.start(f"squared norm over {len(first):,} pairs of words", self.epochs * len(first))
        history = []
        for _ in range(self.epochs):
            order, total = torch.randperm(len(first), generator=generator), 0.0
            for begin in range(0, len(order), BATCH):
                at = order[begin : begin + BATCH]
                loss, *slopes = squared_norm(vectors, constant, first[at], second[at], logs[at], weights[at])
                for value, seen, slope in zip((vectors, constant), squares, slopes, strict=True):
                    seen.add_(slope.square())
                    value.sub_(self.lr * slope / (seen + 1e-12).sqrt())
                total += float(loss)
                advance(len(at))
            history.append(total / float(weights.sum()))
        return history

    def diagnose(self, *, seed: int = 0) -> dict[str, float]:
        """What the model assumes: `partition_spread`, the standard deviation of Z_c over its mean (small), and
        `second_moment_ratio` of the vectors (large); what it says: `correlation` of log counts with squared norms (high)."""
        return {
            "partition_spread": partition_spread(self.vectors_, seed=seed),
            "second_moment_ratio": second_moment_ratio(self.vectors_),
            "correlation": self.correlation_,
        }


def _pairs(counts: object, *, x_max: float, power: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows, columns, log X and weights of the pairs that meet, each once; a word with itself counts half, as in the sum."""
    from scipy.sparse import triu

    found = triu(counts).tocoo()
    weights = np.minimum(found.data / x_max, 1.0) ** power * np.where(found.row == found.col, 0.5, 1.0)
    return (
        torch.from_numpy(found.row.astype(np.int64)),
        torch.from_numpy(found.col.astype(np.int64)),
        torch.from_numpy(np.log(found.data).astype(np.float32)),
        torch.from_numpy(weights.astype(np.float32)),
    )


def squared_norm(
    vectors: Tensor, constant: Tensor, first: Tensor, second: Tensor, logs: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """sum_p f_p (log X_p - |v_i + v_j|^2 - C)^2 over pairs p of rows i, j, and its slopes by v (V, D) and C."""
    together = vectors[first] + vectors[second]
    off = together.square().sum(1) + constant - logs
    pull = 2 * weights * off
    slope = torch.zeros_like(vectors)
    along = 2 * pull[:, None] * together
    slope.index_add_(0, first, along).index_add_(0, second, along)
    return (weights * off.square()).sum(), slope, pull.sum()
