"""The judge: small labelled samples of other domains than home, and how candidates are compared on them.

Every choice that looks at the judge is made twice: on all of it, which gives the answer, and by cross-fitting, where
each fold is scored by the choice that the other folds make, which gives the estimate that is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_softmax

from surefoot.assess.decision import fit_shipped
from surefoot.assess.temperature import Calibration, fit_bias_corrected, fit_temperature
from surefoot.data.examples import Examples

#: Folds of the judge; whole documents fall into one.
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Judge:
    """`labels`, `domain` and `fold` of J examples, (J,) each; `domains` are their names; `cluster` is the document."""

    domains: tuple[str, ...]
    labels: np.ndarray
    domain: np.ndarray
    cluster: np.ndarray
    fold: np.ndarray

    @classmethod
    def of(cls, sets: Mapping[str, Examples], *, folds: int = FOLDS, seed: int = 0) -> Judge:
        """From labelled sets by domain. Documents are dealt out to the folds at random, the largest first."""
        parts = {name: (np.asarray(each.labels), each.document) for name, each in sets.items()}
        return cls.dealt(parts, folds=folds, seed=seed)

    @classmethod
    def dealt(
        cls, parts: Mapping[str, tuple[np.ndarray, np.ndarray | None]], *, folds: int = FOLDS, seed: int = 0
    ) -> Judge:
        """From (labels (N,), documents (N,) or None) by domain."""
        rng = np.random.default_rng([seed, 77])
        labels, domain, cluster, fold = [], [], [], []
        for number, (values, documents) in enumerate(parts.values()):
            names = documents if documents is not None else np.arange(len(values))
            _, which = np.unique(names, return_inverse=True)
            if which.max() + 1 < folds:  # too few documents to hold some out: their examples stand alone
                which = np.arange(len(values))
            labels.append(values)
            domain.append(np.full(len(values), number))
            cluster.append(which + sum(len(each) for each in labels[:-1]))
            fold.append(_deal(which, folds, rng))
        return cls(tuple(parts), *(np.concatenate(each) for each in (labels, domain, cluster, fold)))

    def __len__(self) -> int:
        return len(self.labels)

    def logits(self, of: Mapping[str, np.ndarray]) -> np.ndarray:
        """(J, C): the judge's rows of a model's logits by set."""
        return np.concatenate([of[name] for name in self.domains])


@dataclass(frozen=True, eq=False)
class View:
    """What a rule sees of one candidate: logits on the judge (J, C) and at home (N, C), scaled by the temperature that
    home asks for, and the log-loss at home."""

    logits: np.ndarray
    home_loss: float
    home: np.ndarray | None = None
    home_labels: np.ndarray | None = None

    @classmethod
    def of(cls, judge: Judge, logits: Mapping[str, np.ndarray], home: str, home_labels: np.ndarray) -> View:
        temperature = fit_temperature(logits[home], home_labels)
        scaled = logits[home].astype(np.float64) / temperature
        away = judge.logits(logits).astype(np.float64) / temperature
        return cls(away, float(log_loss(scaled, home_labels).mean()), scaled, home_labels)

    def held_out(self, judge: Judge, own: np.ndarray) -> np.ndarray:
        """Logits of the judge's examples `own` as they would be shipped by the others and home."""
        return np.asarray(self.shipped(judge, ~own)(self.logits[own]))

    def shipped(self, judge: Judge, mask: np.ndarray) -> Calibration:
        """The calibration to ship, by home's examples and those of the judge that the mask leaves."""
        if self.home is None or self.home_labels is None:
            return Calibration(1.0, np.zeros(self.logits.shape[1]))
        away = [
            (self.logits[where], judge.labels[where])
            for where in (mask & (judge.domain == d) for d in np.unique(judge.domain[mask]))
        ]
        return fit_shipped(self.home, self.home_labels, away, shares_of(self.home_labels, self.logits.shape[1]))


def shares_of(labels: np.ndarray, classes: int) -> np.ndarray:
    """Label shares (C,), each count plus one: a class that a sample happens to lack is not one that cannot be."""
    counts = np.bincount(labels, minlength=classes) + 1.0
    return np.asarray(counts / counts.sum())


#: From a candidate's view (the task's own) and the part of the judge to look at, a figure of merit; lower is better.
Rule = Callable[[Any, Judge, np.ndarray], float]


def log_loss(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-log softmax(z)_y, (N,) in nats."""
    return np.asarray(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels])


def by_domain(view: View, judge: Judge, mask: np.ndarray) -> np.ndarray:
    """Mean log-loss of each domain that the mask leaves."""
    losses = log_loss(view.logits, judge.labels)
    return np.array([losses[mask & (judge.domain == d)].mean() for d in np.unique(judge.domain[mask])])


def mean_log_loss(view: View, judge: Judge, mask: np.ndarray) -> float:
    """The mean over domains of the log-loss."""
    return float(by_domain(view, judge, mask).mean())


def worst_domain(view: View, judge: Judge, mask: np.ndarray) -> float:
    """The log-loss of the worst domain."""
    return float(by_domain(view, judge, mask).max())


def mean_and_spread(view: View, judge: Judge, mask: np.ndarray) -> float:
    """The mean over domains plus their standard deviation."""
    losses = by_domain(view, judge, mask)
    return float(losses.mean() + losses.std())


def threshold_free(view: View, judge: Judge, mask: np.ndarray) -> float:
    """The mean over domains of the log-loss under the temperature and class biases that fit the domain best.

    What is left once the label prior and the domain's offset are taken care of: what a model knows, not where it cuts.
    """
    losses = []
    for d in np.unique(judge.domain[mask]):
        where = mask & (judge.domain == d)
        fitted = fit_bias_corrected(view.logits[where], judge.labels[where])(view.logits[where])
        losses.append(log_loss(fitted, judge.labels[where]).mean())
    return float(np.mean(losses))


def with_home(view: View, judge: Judge, mask: np.ndarray) -> float:
    """Mean log-loss of the judge, the same without thresholds, and log-loss at home, added up.

    Home has many times the judge's labels; where accuracy away follows accuracy at home they are worth having.
    """
    return mean_log_loss(view, judge, mask) + threshold_free(view, judge, mask) + view.home_loss


RULES: dict[str, Rule] = {
    each.__name__: each for each in (mean_log_loss, worst_domain, mean_and_spread, threshold_free, with_home)
}


@dataclass(frozen=True, eq=False)
class Choice:
    """The candidate chosen on the whole judge, and what choosing costs.

    `scores`: of all candidates, by name. `picked`: for each fold, the candidate that the other folds choose.
    `crossed`: what a view's `held_out` says of each of the J examples, by the candidate that was chosen without it.
    """

    name: str
    scores: dict[str, float]
    picked: tuple[str, ...]
    crossed: np.ndarray


#: From the part of the judge that may be looked at, a candidate's view and its key. Single members ignore the mask; a
#: soup of the best k is another soup when another part of the judge says which are best.
Candidate = Callable[[np.ndarray], Any]


def choose(candidates: Mapping[str, Candidate], judge: Judge, rule: Rule) -> Choice:
    """The candidate with the lowest score, and by cross-fitting what such a choice is worth.

    Where the baselines are among the candidates, the choice is by this score no worse than they are.
    """
    everything = np.ones(len(judge), dtype=bool)
    name, scores, _ = _lowest(candidates, judge, rule, everything)
    crossed, picked = None, []
    for fold in range(int(judge.fold.max()) + 1):
        own = judge.fold == fold
        chosen, _, view = _lowest(candidates, judge, rule, ~own)
        picked.append(chosen)
        rows = view.held_out(judge, own)
        crossed = np.empty((len(judge), *rows.shape[1:]), dtype=rows.dtype) if crossed is None else crossed
        crossed[own] = rows
    assert crossed is not None
    return Choice(name, scores, tuple(picked), crossed)


def _lowest(
    candidates: Mapping[str, Candidate], judge: Judge, rule: Rule, mask: np.ndarray
) -> tuple[str, dict[str, float], Any]:
    views = {name: candidate(mask) for name, candidate in candidates.items()}
    scores = {name: rule(view, judge, mask) for name, view in views.items()}
    best = min(scores, key=scores.__getitem__)
    return best, scores, views[best]


def _deal(cluster: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """A fold for each example (N,): clusters stay whole, folds as even as they allow."""
    sizes = np.bincount(cluster)
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    filled, fold = np.zeros(folds), np.empty(len(sizes), dtype=np.int64)
    for each in order:
        fold[each] = filled.argmin()
        filled[fold[each]] += sizes[each]
    return np.asarray(fold[cluster])


@dataclass(frozen=True)
class Paired:
    """A mean difference over the judge with its 95% interval."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, Any]:
        return vars(self)


def paired(difference: np.ndarray, judge: Judge, *, crossed: bool = True) -> Paired:
    """The mean over domains of per-example differences (J,); documents are the units.

    The variance is that of means of documents' sums (the linearised ratio estimator), with Student's t. crossed: the
    differences are of choices by cross-fitting; choices of different folds saw the same examples, so that the variance
    is 1 + K / (K - 1) times as large (Nadeau and Bengio 2003, "Inference for the Generalization Error"). Without that
    factor the interval held 170 of 200 simulated nulls; the tests count them with it.
    """
    from scipy.stats import t

    values, variances, units = [], [], 0
    for d in range(len(judge.domains)):
        where = judge.domain == d
        part, cluster = difference[where], judge.cluster[where]
        _, which = np.unique(cluster, return_inverse=True)
        sums = np.bincount(which, weights=part - part.mean())
        groups = len(sums)
        values.append(part.mean())
        variances.append(groups / max(groups - 1, 1) * (sums**2).sum() / len(part) ** 2)
        units += groups
    value = float(np.mean(values))
    folds = int(judge.fold.max()) + 1
    widened = (1 + folds / (folds - 1) if crossed else 1.0) * np.sum(variances)
    half = float(t.ppf(0.975, max(units - len(judge.domains), 1)) * np.sqrt(widened) / len(judge.domains))
    return Paired(value, value - half, value + half)
