"""Binary Paragraph Vectors: documents as short codes of bits, learned by predicting their words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from surefoot.embed.vocabulary import Vocabulary
from surefoot.embed.word_vectors import WordVectors
from surefoot.errors import DataError
from surefoot.progress import Progress
from surefoot.registry import Paper, register
from surefoot.tune.objective import positive
from surefoot.tune.selections import whole

PAPERS = [
    Paper("Vector representations of text data in deep learning", "Karol Grzegorczyk", 2019, arxiv="1901.01695"),
    Paper("Binary Paragraph Vectors", "Grzegorczyk and Kurdziel", 2017, arxiv="1611.01116"),
]
#: Documents a step takes together.
BATCH = 64


@register("binary_paragraph", kind="word_vectors", family="documents", papers=PAPERS)
class BinaryParagraph(WordVectors):
    """Binary PV-DBOW: a document's code of bits predicts its words; near codes, by Hamming distance, are like documents.

    min over d, U, c: mean over documents i of -sum_w (n_iw / n_i) log softmax(U b_i + c)_w,  b = round(sigmoid(d)).
    The gradient passes the rounding as if it were not there (straight-through: Krizhevsky and Hinton 2011). n_iw: how often
    document i holds word w. d (N, B), U (V, B), c (V,). Words of a document share its code, so the softmax over all words
    is exact, without negative samples. `encode` fits only the d of new documents, from 0, with U and c as they are, and
    gives b (N, B), zeros and ones; a text without a known word has code 0.

    real: R > 0 for Real-Binary PV-DBOW: a real vector r (N, R) makes the code, d = r A, A (R, B); `encode_real` gives r, to
    rank again what the codes found. 0 by default. rounded: False trains with sigmoid(d) itself and rounds only the codes
    that `encode` gives: what straight-through is to be compared with.

    bits: B, 128, the larger of the paper's. epochs: 100 passes, and as many steps for new documents; lr: 0.1 of AdaGrad.
    min_count: 5. Dropout, bigrams as words and the optimiser of the paper could not be checked: the first two are not here,
    the last is our choice. `vectors_`: U. Raises RecipeError for options that cannot work, DataError for texts without words.
    Reference: Grzegorczyk and Kurdziel 2017; the dissertation gathers it with disambiguated skip-gram.
    """

    arrays: ClassVar[tuple[str, ...]] = ("bias_", "projection_")
    facts: ClassVar[tuple[str, ...]] = ("loss_",)

    def __init__(
        self,
        *,
        bits: int = 128,
        real: int = 0,
        rounded: bool = True,
        epochs: int = 100,
        lr: float = 0.1,
        min_count: int = 5,
    ) -> None:
        self.bits = whole("bits", bits, least=1)
        self.real = whole("real", real)
        self.rounded = bool(rounded)
        self.epochs = whole("epochs", epochs, least=1)
        self.lr = positive("lr", lr)
        self.min_count = whole("min_count", min_count, least=1)

    def learn(self, texts: list[str], *, labels: np.ndarray | None, seed: int, progress: Progress) -> None:
        documents = [self.words(text) for text in texts]
        known = Vocabulary.of(documents, min_count=self.min_count)
        shares = word_shares([known.rows(each) for each in documents], len(known))
        shares = shares[shares.any(1)]
        generator = torch.Generator().manual_seed(seed)
        width = self.real or self.bits
        inner = 0.1 * torch.randn(len(shares), width, generator=generator)
        vectors = 0.1 * torch.randn(len(known), self.bits, generator=generator)
        bias = torch.from_numpy(np.log(known.counts / known.counts.sum()).astype(np.float32))
        projection = torch.randn(self.real, self.bits, generator=generator) / max(1, self.real) ** 0.5
        parts = [inner, vectors, bias, *([projection] if self.real else [])]
        self.loss_ = self._descend(parts, projection, shares, generator, progress)
        self.vocabulary_, self.vectors_ = known, vectors.detach().numpy()
        self.bias_, self.projection_ = bias.detach().numpy(), projection.detach().numpy()

    def _descend(
        self,
        parts: list[Tensor],
        projection: Tensor,
        shares: np.ndarray,
        generator: torch.Generator,
        progress: Progress,
    ) -> list[float]:
        """AdaGrad over all parts, which a document that is not in the step leaves where they are; the loss by epoch."""
        inner, vectors, bias = (each.requires_grad_() for each in parts[:3])
        projection.requires_grad_(len(parts) > 3)
        optimizer = torch.optim.Adagrad(parts, lr=self.lr)
        advance = progress.start(f"binary paragraph vectors, {self.bits} bits", self.epochs * len(shares))
        history = []
        for _ in range(self.epochs):
            total = 0.0
            order = torch.randperm(len(shares), generator=generator)
            for begin in range(0, len(order), BATCH):
                at = order[begin : begin + BATCH]
                seen = torch.from_numpy(shares[at.numpy()])
                losses = self._losses(inner[at], vectors, bias, projection, seen)
                optimizer.zero_grad()
                losses.sum().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += float(losses.detach().sum())
                advance(len(at))
            history.append(total / len(shares))
        return history

    def _losses(self, inner: Tensor, vectors: Tensor, bias: Tensor, projection: Tensor, shares: Tensor) -> Tensor:
        codes = inner @ projection if self.real else inner
        return cross_entropies(code(codes) if self.rounded else codes.sigmoid(), vectors, bias, shares)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        inner = self.encode_real(texts)
        codes = inner @ self.projection_ if self.real else inner
        return np.asarray(codes > 0, dtype=np.float32)

    def encode_real(self, texts: Sequence[str]) -> np.ndarray:
        """(N, R) float32: what the codes of new documents are made from; (N, B), before the rounding, where `real` is 0."""
        shares = word_shares([self.vocabulary.rows(self.words(text)) for text in texts], len(self.vocabulary))
        vectors, bias, projection = map(torch.from_numpy, (self.vectors_, self.bias_, self.projection_))
        found = []
        for start in range(0, len(shares), BATCH):
            part = torch.from_numpy(shares[start : start + BATCH])
            inner = torch.zeros(len(part), self.real or self.bits, requires_grad=True)
            optimizer = torch.optim.Adagrad([inner], lr=self.lr)
            for _ in range(self.epochs):
                optimizer.zero_grad()
                self._losses(inner, vectors, bias, projection, part).sum().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            found.append(inner.detach().numpy())
        return np.concatenate(found) if found else np.zeros((0, self.real or self.bits), dtype=np.float32)


def code(inner: Tensor) -> Tensor:
    """round(sigmoid(inner)), whose gradient is that of sigmoid(inner).

    >>> code(torch.tensor([-1.0, 2.0])).tolist()
    [0.0, 1.0]
    """
    soft = inner.sigmoid()
    return soft + ((inner > 0).to(soft) - soft).detach()


def cross_entropies(codes: Tensor, vectors: Tensor, bias: Tensor, shares: Tensor) -> Tensor:
    """-sum_w shares_iw log softmax(codes_i . vectors^T + bias)_w, (N,) in nats."""
    return -(shares * torch.log_softmax(codes @ vectors.T + bias, dim=1)).sum(1)


def hamming(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N, M): in how many bits each code of `first` (N, B) differs from each of `second` (M, B), zeros and ones.

    >>> hamming(np.array([[0.0, 1.0]]), np.array([[1.0, 1.0], [0.0, 1.0]])).tolist()
    [[1.0, 0.0]]
    """
    if first.shape[1] != second.shape[1]:
        raise DataError(f"codes of {first.shape[1]} and {second.shape[1]} bits cannot be compared")
    return np.asarray(first @ (1 - second).T + (1 - first) @ second.T)


def word_shares(documents: Sequence[np.ndarray], size: int) -> np.ndarray:
    """(N, V): the share of each word among the known ones of each document; zeros where there are none."""
    found = np.zeros((len(documents), size), dtype=np.float32)
    for row, each in enumerate(documents):
        np.add.at(found[row], each, 1.0 / max(1, len(each)))
    return found
