"""A bound on how a language model does on documents it has not seen, from how short its training can be written down."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from surefoot.assess.analysis import Analysis, Record, numbers
from surefoot.errors import DataError, RecipeError
from surefoot.registry import Paper, register


@dataclass(frozen=True)
class Bound(Record):
    """`bound` on the expected bits per token, at `alpha`, or on the expected error, where alpha is 0; `empirical`: what was
    measured; `guessing`: what a uniform guess has, log2 V or 1 - 1 / C; `vacuous`: whether the bound is no better than
    guessing; `complexity`: K in bits."""

    bound: float
    alpha: float
    empirical: float
    guessing: float
    vacuous: bool
    complexity: float


@register(
    "compression_bound",
    kind="analysis",
    family="bounds",
    papers=[
        Paper("Non-Vacuous Generalization Bounds for Large Language Models", "Lotfi et al.", 2024, arxiv="2312.17173")
    ],
)
class CompressionBound(Analysis):
    """A compression bound, as SubLoRA has it: with probability 1 - delta, R <= R_n + D [sqrt((K ln 2 + ln(1 / (r delta))) / 2m) +
    sqrt(ln(1 / ((1 - r) delta)) / 2n)].

    Call with `probabilities` (n, T): for each of n documents the probability that the model gives each token, NaN beyond its
    end; `vocabulary` V; `documents` m, those it was trained on, of which the n are drawn; `message` bits that write down what
    training found (`message_bits` of quantised weights); `choices`, the bits of hyperparameters that were chosen, 7 in the
    authors' code. p' = (1 - alpha) p + alpha / V; R_n: mean over documents of -mean_t log2 p'; D = log2(1 + (1 - alpha) V /
    alpha), the range of a document's bits; K = message + 2 log2 message + choices + log2 A, A the number of `alphas`; r = n / (n
    + m). The best alpha is taken, which log2 A pays for. `delta`: 0.05. Gives a `Bound` in bits per token.

    `of_errors` bounds the error of a classifier. How the message is kept short, low-rank adapters in a random subspace,
    is a matter of training: see the selection `sub_lora`, which ends with the bound. Raises RecipeError for a delta or alphas not within (0, 1), DataError for data that cannot
    serve. Reference: Lotfi et al. 2024; Sanaelotfi/sublora-bounds-for-llms, sublora/bounds.
    """

    def __init__(
        self,
        *,
        delta: float = 0.05,
        alphas: tuple[float, ...] = (1e-4, 1e-3, 5e-3, 0.01, 0.05, 0.1, 0.25, 0.5),
        choices: float = 7.0,
    ) -> None:
        if not 0 < delta < 1:
            raise RecipeError(f"`delta` is {delta}: it must lie above 0 and below 1")
        if not alphas or not all(0 < each < 1 for each in alphas):
            raise RecipeError(f"`alphas` are {alphas}: give one or more above 0 and below 1")
        if choices < 0:
            raise RecipeError(f"`choices` is {choices}: bits are not negative")
        self.delta = delta
        self.alphas = tuple(alphas)
        self.choices = choices

    def __call__(self, *, probabilities: Any, vocabulary: int, documents: int, message: float) -> Bound:  # type: ignore[override]
        shares = np.asarray(probabilities, dtype=np.float64)
        seen = ~np.isnan(shares)
        numbers("probabilities", np.where(seen, shares, 0.0), dimensions=2, low=0.0, high=1.0 + 1e-9)
        count = len(shares)
        if not seen.any(1).all() or vocabulary < 2 or not count <= documents or message <= 1:
            raise DataError(
                f"{count} documents of {documents}, a vocabulary of {vocabulary} and {message} bits: give a token for every document, no more documents than were trained on, two words or more and more than one bit"
            )
        complexity = message + 2 * math.log2(message) + self.choices + math.log2(len(self.alphas))
        found = []
        for alpha in self.alphas:
            bits = -np.log2((1 - alpha) * np.where(seen, shares, 1.0) + alpha / vocabulary)
            risk = float(((bits * seen).sum(1) / seen.sum(1)).mean())
            span = math.log2(1 + (1 - alpha) * vocabulary / alpha)
            found.append((risk + span * self.slack(complexity, documents=documents, evaluated=count), alpha, risk))
        bound, alpha, risk = min(found)
        guessing = math.log2(vocabulary)
        return Bound(bound, alpha, risk, guessing, bound >= guessing, complexity)

    def of_errors(self, *, wrong: int, examples: int, classes: int, message: float) -> Bound:
        """error <= wrong / m + sqrt((K ln 2 + ln(1 / delta)) / 2m): of a classifier of which all m training `examples` were
        looked at, so that nothing is added for a draw of them; K = message + 2 log2 message + choices."""
        if not 0 <= wrong <= examples or examples < 1 or classes < 2 or message <= 1:
            raise DataError(
                f"{wrong} wrong of {examples} examples in {classes} classes and {message} bits: give no more wrong ones than there are, two classes or more and more than one bit"
            )
        complexity = message + 2 * math.log2(message) + self.choices
        error, guessing = wrong / examples, 1 - 1 / classes
        bound = error + math.sqrt((complexity * math.log(2) + math.log(1 / self.delta)) / (2 * examples))
        return Bound(bound, 0.0, error, guessing, bound >= guessing, complexity)

    def slack(self, complexity: float, *, documents: int, evaluated: int) -> float:
        """What is added to the measured risk, per unit of its range."""
        r = evaluated / (evaluated + documents)
        learned = (complexity * math.log(2) + math.log(1 / (r * self.delta))) / (2 * documents)
        drawn = math.log(1 / ((1 - r) * self.delta)) / (2 * evaluated)
        return math.sqrt(learned) + math.sqrt(drawn)


def message_bits(symbols: Any, *, level_bits: float = 16.0) -> float:
    """Bits that arithmetic coding needs for quantised weights (d,), with the table that it needs to be read.

    symbols: level indices. sum_l n_l log2(d / n_l) for the symbols, `level_bits` (16) for the value of each level, and
    log2(d + 1) for each count, all rounded up.

    >>> message_bits([0, 0, 1, 1])
    41.0
    """
    counts = np.unique(np.asarray(symbols), return_counts=True)[1]
    total = int(counts.sum())
    coded = math.ceil(float((counts * np.log2(total / counts)).sum()))
    return float(coded + math.ceil(level_bits * len(counts)) + math.ceil(len(counts) * math.log2(total + 1)))
