"""Disambiguated skip-gram: several vectors a word, and a softmax over them that the context decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.embed.vocabulary import NOTHING, Vocabulary, windows
from surefoot.embed.word_vectors import WordVectors
from surefoot.errors import DataError
from surefoot.progress import Progress
from surefoot.registry import Paper, register
from surefoot.tune.objective import fraction, positive
from surefoot.tune.selections import whole

PAPERS = [
    Paper("Vector representations of text data in deep learning", "Karol Grzegorczyk", 2019, arxiv="1901.01695"),
    Paper(
        "Disambiguated skip-gram model",
        "Grzegorczyk and Kurdziel",
        2018,
        link="https://aclanthology.org/D18-1174",
    ),
]
#: Words a step takes together; words drawn for the softmax; weight of the entropy in the first stage, the script's.
BATCH, SAMPLED, ENTROPY = 256, 64, 0.1
#: How much slower the disambiguation learns than the vectors, so that no sense takes all before they differ.
SLOWER = 20.0


@register("disambiguated_skipgram", kind="word_vectors", family="prediction", papers=PAPERS)
class DisambiguatedSkipGram(WordVectors):
    """Disambiguated skip-gram: h = sum_k p_k s_wk predicts the words around w, p = softmax(W_w^T m + b_w), m their mean.

    s (V, K, D): K sense vectors a word. m (D,): the mean of the output vectors u of the words within `window`, without
    gradient. W_w (D, K), b_w (K,): which sense a context speaks for. The words around are predicted by a softmax over them
    and 64 words drawn from shares^(3/4) for the step (sampled softmax, logits less log of how often a word is expected).

    Two stages, as the authors' script has them: one pass with W and b shared by all words, p the plain softmax, and 0.1
    times its entropy added to what is maximised, so that no sense takes all; then `epochs` passes with W and b of each word,
    begun from the shared ones, p drawn from the relaxed one-hot distribution (Gumbel-softmax), temperature 1 on the first
    pass and `temperature` on those after it. Pruned afterwards: senses with a mean p below `prune`.

    size: D, 100 (script: 300). senses: K, 5, the script's. window: 5, its. epochs: 3, its. temperature: 0.5, its. prune: 0.05,
    its. min_count: 5. lr: 0.1 of AdaGrad for small corpora, ours (script: momentum, 34 million steps). W and b learn a
    twentieth as fast. Planted senses are found in a thousand sentences; in Cranfield's 230,000 words those
    of many words collapse into one, whether for so little text or for this optimiser is not known. One draw of p serves
    all words around w, where the script draws for each.

    `senses_` (V, K, D), `priors_` (V, K): mean p over the corpus, 0 where pruned. `vectors_`: sum_k prior s. A text is the mean
    of its words' h. Raises RecipeError for options that cannot work, DataError for texts with too few words. Reference:
    Grzegorczyk and Kurdziel 2018.
    """

    arrays: ClassVar[tuple[str, ...]] = ("senses_", "weights_", "biases_", "outputs_", "priors_")

    def __init__(
        self,
        *,
        size: int = 100,
        senses: int = 5,
        window: int = 5,
        epochs: int = 3,
        temperature: float = 0.5,
        prune: float = 0.05,
        lr: float = 0.1,
        min_count: int = 5,
    ) -> None:
        self.size = whole("size", size, least=1)
        self.senses = whole("senses", senses, least=1)
        self.window = whole("window", window, least=1)
        self.epochs = whole("epochs", epochs, least=1)
        self.temperature = positive("temperature", temperature)
        self.prune = fraction("prune", prune)
        self.lr = positive("lr", lr)
        self.min_count = whole("min_count", min_count, least=1)

    def learn(self, texts: list[str], *, labels: np.ndarray | None, seed: int, progress: Progress) -> None:
        documents = [self.words(text) for text in texts]
        known = Vocabulary.of(documents, min_count=self.min_count)
        centres, contexts = windows([known.rows(each) for each in documents], window=self.window)
        kept = (contexts != NOTHING).any(1)
        if not kept.any():
            raise DataError("no known word has another beside it: give longer texts, or a smaller `min_count`")
        pairs = torch.from_numpy(centres[kept]), torch.from_numpy(contexts[kept])
        generator = torch.Generator().manual_seed(seed)
        near = 0.5 / self.size / self.senses
        senses = near * (2 * torch.rand(len(known), self.senses, self.size, generator=generator) - 1)
        outputs, bias = torch.zeros(len(known), self.size), torch.zeros(len(known))
        shared = torch.zeros(1, self.size, self.senses), torch.zeros(1, self.senses)
        rarely = torch.from_numpy(known.counts.astype(np.float64) ** 0.75)
        drawn = (rarely / rarely.sum()).float()
        advance = progress.start(f"senses of {len(known):,} words", (1 + self.epochs) * len(pairs[0]))
        state = [senses, outputs, bias]
        self._pass([*state, *shared], pairs, drawn, generator, advance, temperature=None)
        own = shared[0].repeat(len(known), 1, 1), shared[1].repeat(len(known), 1)
        for epoch in range(self.epochs):
            temperature = self.temperature if epoch else 1.0
            self._pass([*state, *own], pairs, drawn, generator, advance, temperature=temperature)
        self.vocabulary_ = known
        self.senses_, self.outputs_ = senses.detach().numpy(), outputs.detach().numpy()
        self.weights_, self.biases_ = (each.detach().numpy() for each in own)
        self.priors_ = self._priors(centres[kept], contexts[kept])
        self.vectors_ = np.einsum("vk,vkd->vd", self.priors_, self.senses_)

    def _pass(
        self,
        state: list[Tensor],
        pairs: tuple[Tensor, Tensor],
        drawn: Tensor,
        generator: torch.Generator,
        advance: Callable[[int], None],
        *,
        temperature: float | None,
    ) -> None:
        """One pass over all words; no temperature is the first stage."""
        parameters = [each.requires_grad_() for each in state]
        groups: list[dict[str, Any]] = [{"params": parameters[:3]}, {"params": parameters[3:], "lr": self.lr / SLOWER}]
        optimizer = torch.optim.Adagrad(groups, lr=self.lr)
        order = torch.randperm(len(pairs[0]), generator=generator)
        for begin in range(0, len(order), BATCH):
            at = order[begin : begin + BATCH]
            centre, context = pairs[0][at], pairs[1][at]
            negatives = torch.multinomial(drawn, SAMPLED, replacement=True, generator=generator)
            noise = None
            if temperature is not None:
                uniform = torch.rand(len(at), self.senses, generator=generator).clamp(1e-9, 1 - 1e-7)
                noise = -(-uniform.log()).log()
            loss = sense_loss(
                parameters, centre, context, negatives, drawn, noise=noise, temperature=temperature or 1.0
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            advance(len(at))
        for each in state:
            each.requires_grad_(False)

    def _priors(self, centres: np.ndarray, contexts: np.ndarray) -> np.ndarray:
        """Mean p by word, (V, K) float32, those below `prune` left out, the others scaled to a sum of 1."""
        total = np.zeros(self.biases_.shape)
        self.priors_ = np.full(self.biases_.shape, 1.0 / self.senses, dtype=np.float32)
        for start in range(0, len(centres), 4096):
            at = slice(start, start + 4096)
            np.add.at(total, centres[at], self.disambiguate(centres[at], contexts[at]))
        seen = total.sum(1, keepdims=True)
        total = np.where(seen > 0, total / np.maximum(seen, 1e-12), 1.0 / self.senses)
        kept = np.where((total >= self.prune) | (total == total.max(1, keepdims=True)), total, 0.0)
        return np.asarray(kept / kept.sum(1, keepdims=True), dtype=np.float32)

    def disambiguate(self, centres: np.ndarray, contexts: np.ndarray) -> np.ndarray:
        """p (M, K) of words (M,) in contexts (M, 2 window) of rows, NOTHING where there is none; 0 for pruned senses."""
        where = torch.from_numpy(centres)
        mean = _mean(torch.from_numpy(self.outputs_), torch.from_numpy(contexts))
        weights, biases = torch.from_numpy(self.weights_)[where], torch.from_numpy(self.biases_)[where]
        logits = torch.einsum("md,mdk->mk", mean, weights) + biases
        pruned = torch.from_numpy(self.priors_)[where] == 0
        return logits.masked_fill(pruned, -torch.inf).softmax(1).numpy()

    def sense_of(self, text: str) -> list[tuple[str, int, float]]:
        """The known words of a text, each with the likeliest of its senses and how likely it is there."""
        rows = self.vocabulary.rows(self.words(text))
        if not len(rows):
            return []
        found = self.disambiguate(*windows([rows], window=self.window))
        words = self.vocabulary.words
        return [(words[row], int(p.argmax()), float(p.max())) for row, p in zip(rows, found, strict=True)]

    def encode_document(self, rows: np.ndarray) -> np.ndarray:
        if not len(rows):
            return np.zeros(self.size, dtype=np.float32)
        found = self.disambiguate(*windows([rows], window=self.window))
        return np.asarray(np.einsum("mk,mkd->md", found, self.senses_[rows]).mean(0), dtype=np.float32)


def sense_loss(
    state: Sequence[Tensor],
    centre: Tensor,
    context: Tensor,
    negatives: Tensor,
    drawn: Tensor,
    *,
    noise: Tensor | None,
    temperature: float = 1.0,
) -> Tensor:
    """Mean cross-entropy of the words around, in nats; `noise` (M, K), Gumbel, for the second stage; without it, less 0.1
    times the mean entropy of p. State: senses, outputs, their bias, and W and b, of one row where all words share them."""
    senses, outputs, bias, weights, biases = state
    own = centre if len(weights) > 1 else torch.zeros_like(centre)
    mean = _mean(outputs, context).detach()
    logits = torch.einsum("md,mdk->mk", mean, weights[own]) + biases[own]
    logs = F.log_softmax((logits if noise is None else logits + noise) / temperature, dim=1)
    hidden = torch.einsum("mk,mkd->md", logs.exp(), senses[centre])
    there = context != NOTHING
    words = context.clamp(min=0)
    expected = (len(negatives) * drawn).log()
    right = torch.einsum("md,mcd->mc", hidden, outputs[words]) + bias[words] - expected[words]
    wrong = hidden @ outputs[negatives].T + bias[negatives] - expected[negatives]
    hit = words[:, :, None] == negatives
    against = wrong[:, None, :].expand(-1, words.shape[1], -1).masked_fill(hit, -torch.inf)
    losses = torch.logsumexp(torch.cat([right[:, :, None], against], dim=2), dim=2) - right
    loss = losses[there].mean()
    if noise is None:
        loss = loss + ENTROPY * (logs.exp() * logs).sum(1).mean()
    return loss


def _mean(outputs: Tensor, context: Tensor) -> Tensor:
    """(M, D): the mean of the output vectors of the words that are there, zeros where there are none."""
    there = (context != NOTHING).to(outputs)
    summed = torch.einsum("mc,mcd->md", there, outputs[context.clamp(min=0)])
    return summed / there.sum(1, keepdim=True).clamp(min=1)
