"""The sentence content probe: can it be told from a paragraph's vector whether a sentence occurs in it?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from surefoot.assess.analysis import DRAWS, SEED, Analysis, Record, ends, numbers
from surefoot.errors import DataError, RecipeError
from surefoot.registry import Paper, register

#: Units of the hidden layer, the authors'.
HIDDEN = 300


@dataclass(frozen=True)
class SentenceContent(Record):
    """`accuracy` on paragraphs that the probe was not trained on, `low`, `high`: its 95% bootstrap interval over these
    paragraphs; `majority`: the share of the commoner answer among them; `paragraphs`: how many they are."""

    accuracy: float
    low: float
    high: float
    majority: float
    paragraphs: int


@register(
    "sentence_content",
    kind="analysis",
    family="probing",
    papers=[
        Paper(
            "Encouraging Paragraph Embeddings to Remember Sentence Identity Improves Classification",
            "Vu and Iyyer",
            2019,
            arxiv="1906.03656",
        )
    ],
)
class SentenceContentProbe(Analysis):
    """Sentence content: accuracy of an MLP that reads [paragraph; sentence] and says whether the sentence occurs there.

    Call with `paragraphs` (P, D) and `sentences` (S, E), vectors of any embedding; `paragraph`, `sentence` (N,): the rows that
    each of N questions is about; `present` (N,): 0 or 1. `surefoot.embed.sentence_content` makes the questions from texts.
    MLP: one hidden layer of 300, ReLU, logistic output, minimising L = -sum y log p + (1 - y) log(1 - p) by Adam (rate 2e-4,
    batches of 32, the authors'), inputs standardised, at most `epochs` passes (100), stopped early by a tenth of what it
    trains on. A third of the paragraphs is held out, whole. Gives a `SentenceContent`: shares, with a 95% interval by `draws`
    (1,000) seeded draws of held-out paragraphs. Half is chance. Raises RecipeError for fewer than 100 draws, DataError for
    fewer than ten paragraphs or rows that do not exist. Reference: Vu and Iyyer 2019.
    """

    def __init__(self, *, epochs: int = 100, draws: int = DRAWS, seed: int = SEED) -> None:
        if draws < 100:
            raise RecipeError(f"`draws` is {draws}: 95% intervals need 100 bootstrap draws or more")
        if epochs < 1:
            raise RecipeError(f"`epochs` is {epochs}: give one or more")
        self.epochs = epochs
        self.draws = draws
        self.seed = seed

    def __call__(  # type: ignore[override]
        self, *, paragraphs: Any, sentences: Any, paragraph: Any, sentence: Any, present: Any
    ) -> SentenceContent:
        held, said = numbers("paragraphs", paragraphs, dimensions=2), numbers("sentences", sentences, dimensions=2)
        about, asked = _rows("paragraph", paragraph, len(held)), _rows("sentence", sentence, len(said))
        truth = _rows("present", present, 2)
        if not len(about) == len(asked) == len(truth):
            raise DataError(
                f"{len(about)} paragraphs, {len(asked)} sentences and {len(truth)} answers: give as many of each"
            )
        own = np.unique(about)
        if len(own) < 10:
            raise DataError(f"questions are about {len(own)} paragraphs: ten or more are needed, a third is held out")
        rng = np.random.default_rng(self.seed)
        apart = np.isin(about, rng.permutation(own)[: len(own) // 3])
        if len(np.unique(truth[~apart])) < 2:
            raise DataError(
                "the questions to train on have one answer: ask about sentences that are there and that are not"
            )
        inputs = np.concatenate([held[about], said[asked]], axis=1)
        right = self._predict(inputs[~apart], truth[~apart], inputs[apart]) == truth[apart]
        groups = [right[about[apart] == each] for each in np.unique(about[apart])]
        sums, counts = np.array([each.sum() for each in groups]), np.array([len(each) for each in groups])
        drawn = rng.integers(len(groups), size=(self.draws, len(groups)))
        low, high = ends(sums[drawn].sum(1) / counts[drawn].sum(1))
        share = float(truth[apart].mean())
        return SentenceContent(float(right.mean()), low, high, max(share, 1 - share), len(groups))

    def _predict(self, inputs: np.ndarray, truth: np.ndarray, asked: np.ndarray) -> np.ndarray:
        from sklearn.neural_network import MLPClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        probe = MLPClassifier(
            HIDDEN,
            learning_rate_init=2e-4,
            batch_size=min(32, len(inputs)),
            max_iter=self.epochs,
            early_stopping=len(inputs) >= 100,
            random_state=self.seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # sklearn says when the last pass still improved; the accuracy says the rest
            fitted = make_pipeline(StandardScaler(), probe).fit(inputs, truth)
        return np.asarray(fitted.predict(asked))


def _rows(name: str, values: Any, size: int) -> np.ndarray:
    """Whole numbers from 0 to size - 1. Raises DataError where they are not."""
    found = numbers(name, values, dimensions=1, low=0, high=size - 1)
    if (found != np.round(found)).any():
        raise DataError(f"`{name}` must hold whole numbers from 0 to {size - 1}")
    return found.astype(np.int64)
