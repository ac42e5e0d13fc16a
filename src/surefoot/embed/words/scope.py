"""SCoPE: a convolution over words, pretrained to know which sentences a paragraph holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.embed.sentence_content import ContentPairs, sentence_content
from surefoot.embed.vocabulary import Vocabulary
from surefoot.embed.word_vectors import WordVectors
from surefoot.progress import Progress
from surefoot.registry import Paper, register
from surefoot.tune.objective import fraction, positive
from surefoot.tune.selections import whole

PAPER = Paper(
    "Encouraging Paragraph Embeddings to Remember Sentence Identity Improves Classification",
    "Vu and Iyyer",
    2019,
    arxiv="1906.03656",
)
#: Questions a step takes together, words a filter sees, steps between these, the authors'; words of the hidden layer.
BATCH, SEES, STRIDE, HIDDEN = 32, 5, 2, 300


@register("scope", kind="word_vectors", family="documents", papers=[PAPER])
class SCoPE(WordVectors):
    """SCoPE: a three-layer convolution P, pretrained by sentence content: is sentence s one of paragraph p's?

    min over P and the classifier: BCE(MLP([P(p); P(s)]), y), y = 1 for each sentence of p and y = 0 for one drawn from another
    paragraph; MLP: one hidden layer of 300, ReLU, dropout. P: word vectors of length 1, zeros beyond the ends; two
    convolutions of width 5 and stride 2, each with ReLU; one over all that is left, with tanh. Paragraph and sentence share P.
    `encode` gives P (N, output). The paper then tunes P on a few labels; a classifier on its output is what is here.

    size: of the word vectors, 64, filters: 64, output: 128 (authors: 300, 300 and 500, on a GPU), most: words of a text that
    are read, 160 (authors: 305). epochs: 20 (authors: up to 100, stopped by a validation set). lr: 1e-3 of Adam (authors: 2e-4).
    dropout: 0.5, the authors'. min_count: 2. The released script pairs a sentence with itself where it means another's; drawn
    sentences are another's here. `loss_`: by epoch, nats. Raises RecipeError for options that cannot work, DataError where
    fewer than two texts have two sentences. Reference: Vu and Iyyer 2019.
    """

    arrays: ClassVar[tuple[str, ...]] = ("first_", "first_bias_", "second_", "second_bias_", "last_", "last_bias_")
    facts: ClassVar[tuple[str, ...]] = ("loss_",)

    def __init__(
        self,
        *,
        size: int = 64,
        filters: int = 64,
        output: int = 128,
        most: int = 160,
        epochs: int = 20,
        lr: float = 1e-3,
        dropout: float = 0.5,
        min_count: int = 2,
    ) -> None:
        self.size = whole("size", size, least=1)
        self.filters = whole("filters", filters, least=1)
        self.output = whole("output", output, least=1)
        self.most = whole("most", most, least=SEES)
        self.epochs = whole("epochs", epochs)
        self.lr = positive("lr", lr)
        self.dropout = fraction("dropout", dropout)
        self.min_count = whole("min_count", min_count, least=1)

    def learn(self, texts: list[str], *, labels: np.ndarray | None, seed: int, progress: Progress) -> None:
        pairs = sentence_content(texts, seed=seed)
        self.vocabulary_ = Vocabulary.of([self.words(text) for text in texts], min_count=self.min_count)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            convolution = Convolution(len(self.vocabulary), self.size, self.filters, self.output, self.most)
            self.loss_ = self._pretrain(convolution, texts, pairs, progress)
        self.vectors_ = F.normalize(convolution.words.weight[1:], dim=1).detach().numpy()
        for name, value in convolution.layers().items():
            setattr(self, f"{name}_", value.detach().numpy())

    def _pretrain(
        self, convolution: Convolution, texts: list[str], pairs: ContentPairs, progress: Progress
    ) -> list[float]:
        classifier = nn.Sequential(
            nn.Dropout(self.dropout),
            nn.Linear(2 * self.output, HIDDEN),
            nn.ReLU(),
            nn.Dropout(self.dropout),
            nn.Linear(HIDDEN, 1),
        )
        optimizer = torch.optim.Adam([*convolution.parameters(), *classifier.parameters()], lr=self.lr)
        paragraphs, said = self._rows(texts), self._rows(pairs.sentences)
        present = torch.from_numpy(pairs.present).float()
        advance = progress.start("sentence content", self.epochs * len(pairs))
        history = []
        for _ in range(self.epochs):
            total = 0.0
            # Questions about one paragraph stay together, so that its vector is computed once.
            rank = torch.randperm(len(texts))[torch.from_numpy(pairs.paragraph)]
            order = rank.argsort(stable=True)
            for begin in range(0, len(order), BATCH):
                at = order[begin : begin + BATCH]
                own, place = torch.unique(torch.from_numpy(pairs.paragraph)[at], return_inverse=True)
                encoded = convolution(torch.cat([paragraphs[own], said[pairs.sentence[at.numpy()]]]))
                first, second = encoded[: len(own)][place], encoded[len(own) :]
                logits = classifier(torch.cat([first, second], dim=1)).squeeze(1)
                loss = F.binary_cross_entropy_with_logits(logits, present[at])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += float(loss.detach()) * len(at)
                advance(len(at))
            history.append(total / len(pairs))
        return history

    def _rows(self, texts: Sequence[str]) -> Tensor:
        """(N, most): one more than each word's row, 0 beyond the end."""
        found = np.zeros((len(texts), self.most), dtype=np.int64)
        for place, text in enumerate(texts):
            rows = self.vocabulary.rows(self.words(text))[: self.most]
            found[place, : len(rows)] = rows + 1
        return torch.from_numpy(found)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        convolution = Convolution(len(self.vocabulary), self.size, self.filters, self.output, self.most)
        state = {"words.weight": torch.cat([torch.zeros(1, self.size), torch.from_numpy(self.vectors_)])}
        for name, (module, kind) in convolution.names().items():
            state[f"{module}.{kind}"] = torch.from_numpy(getattr(self, f"{name}_"))
        convolution.load_state_dict(state)
        found = np.zeros((len(texts), self.output), dtype=np.float32)
        rows = self._rows(texts)
        known = rows.any(1).numpy()  # a text without a known word stays zero
        with torch.no_grad():
            for start in range(0, len(texts), 256):
                found[start : start + 256] = convolution(rows[start : start + 256]).numpy()
        return np.asarray(found * known[:, None])


class Convolution(nn.Module):
    """Rows of words (N, L) to (N, output)."""

    def __init__(self, words: int, size: int, filters: int, output: int, length: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words + 1, size, padding_idx=0)
        self.first = nn.Conv1d(size, filters, SEES, stride=STRIDE)
        self.second = nn.Conv1d(filters, filters, SEES, stride=STRIDE)
        padded = length + 2 * (SEES - 1)
        left = ((padded - SEES) // STRIDE + 1 - SEES) // STRIDE + 1
        self.last = nn.Conv1d(filters, output, left)
        for each in (self.first, self.second, self.last):
            nn.init.kaiming_normal_(each.weight)  # torch's default leaves vectors of length 1 too small to learn from

    def forward(self, rows: Tensor) -> Tensor:
        vectors = F.normalize(self.words(rows), dim=2)
        padded = F.pad(vectors.transpose(1, 2), (SEES - 1, SEES - 1))
        found: Tensor = self.last(self.second(self.first(padded).relu()).relu()).tanh().squeeze(2)
        return found

    @staticmethod
    def names() -> dict[str, tuple[str, str]]:
        """What each array is called that is kept of the convolutions, and where it is."""
        found: dict[str, tuple[str, str]] = {}
        for module in ("first", "second", "last"):
            found |= {module: (module, "weight"), f"{module}_bias": (module, "bias")}
        return found

    def layers(self) -> dict[str, Any]:
        return {name: getattr(getattr(self, module), kind) for name, (module, kind) in self.names().items()}
