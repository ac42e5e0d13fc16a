"""Quantities that methods act on, measured on a trained model: by these a mechanism shows.

A quantity is a function of a `Trained`; its docstring's first line is what the table calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
from scipy.special import log_softmax

from surefoot.embed.geometry import unit_length
from surefoot.errors import SurefootError, nearest
from surefoot.evidence.trained import Trained

Quantity = Callable[[Trained], float]
QUANTITIES: dict[str, Quantity] = {}
#: Figures of arms that train nothing, by which their mechanism shows.
READ = {
    "gold_ndcg": "nDCG@10 of the ten gold questions that a prompt is chosen by",
    "spearman": "Spearman's rho of cosines with people's ratings",
    "edit_distance": "squared distance of sentences from themselves with one word changed, over that of two sentences",
    "halves_distance": "squared distance of sentences from the mean of their halves, over that of two sentences",
    "overlap_order": "Spearman's rho of cosines with the share of words in common",
    "pair_alignment": "squared distance on the unit sphere of sentences that say the same (rated 4 of 5 or more)",
    "sentence_uniformity": "log of the mean of exp(-2 squared distance) over pairs of sentences on the unit sphere",
    "sentence_isotropy": "IsoScore* of sentence embeddings",
    "effective_rank": "effective rank of sentence embeddings",
    "training_seconds": "computing time of training (s)",
    "partition_spread": "standard deviation of the partition function over directions, over its mean",
    "code_loss": "cross-entropy of a document's words given its bits (nats a word)",
    "class_separation": "distance of the classes' mean texts over their spread, home test",
    "content_accuracy": "accuracy of the sentence content probe on the home test",
    "pseudoword_rand": "adjusted Rand index of the senses found with the two words written as one",
    "paraphrase_over_negation": "share of sentences nearer to what says the same than to their negation",
    "held_out_loss": "in-batch cross-entropy of held-out pairs (nats)",
    "held_out_pairs": "share of held-out pairs whose positive is the nearest of all",
    "held_out_margin": "by how much a held-out pair's positive is nearer than its negative, in cosines",
    "class_contrast": "mean cosine of test queries of one class less that of queries of two",
    "negation_cosine": "cosine of sentences with their negations",
    "ndcg_docstrings": "nDCG@10 of first lines of docstrings for the rest of them, three libraries",
    "described_recall": "share right of the ten utterances nearest to the description of an unseen intent",
    "ndcg": "nDCG@10 of Cranfield's questions",
    "wrong_domain_cost": "average precision that is lost where texts are said to be of another domain",
    "regret": "by how much the setting thought best is worse than the best, in reward",
    "forecast_correlation": "correlation of estimates with accuracies over models and domains",
    "shift_distance": "mean distance of the inputs from what they were",
    "shift_words": "words of a text",
    "shift_tokens": "tokens of a word",
    "shift_deviation": "standard deviation of an image's pixels",
    "shift_sharpness": "mean difference of neighbouring pixels",
    "shift_brightness": "mean pixel",
    "calibration_error": "adaptive calibration error at home",
    "calibrated_loss": "log-loss at home (nats)",
    "novelty_separation": "distance of the mean scores of queries of no class and of others, in standard deviations",
    "oscr": "open-set classification rate: area of right and passing over novel and passing",
    "risk_area": "area under the curve of risk against coverage at home",
    "coverage_gap": "how far coverage at home is from the 0.9 that was asked for",
    "coverage_gap_away": "how far coverage away is from the 0.9 that was asked for",
    "worst_class_coverage": "coverage at home of the class that has the least",
    "set_size": "classes a set at home",
    "entropy_held_out": "entropy of the merged model on held-out examples of all tasks (nats)",
    "loss_held_out": "cross-entropy of the merged model on held-out examples of all tasks (nats)",
    "changed_answers": "share of the merged model's answers on held-out examples that the task's own model does not give",
    "against_the_merge": "share of the models' moves whose sign the merged weights' move does not have",
    "merged_move": "length of the merged weights' move from the base over that of the models",
    "merged_moved_share": "share of the trained weights in which the merged model is not the base",
    "alike_all_tasks": "cosine of the merged weights' move with that of the model least like it",
    "along_the_first": "what is added to the first model along its own move, in lengths of it",
    "entropy_drawn": "entropy of the answers on a stream (nats)",
    "neighbours_drawn": "share of neighbours in a batch that get the same answer",
    "neighbours_runs": "share of neighbours in a batch that get the same answer, classes in runs",
    "drift_drawn": "distance of a stream's mean features from home's, in standard deviations",
    "stream_prior_error": "error of the answers' label shares on streams of other label shares",
    "accuracy_under_attack": "accuracy under the attack, home test",
    "attack_gain": "by how much the attack raises the loss of what was right, home test (nats)",
    "attack_distance": "largest change of a value, mean over examples",
    "loss_away": "cross-entropy away from home (nats)",
    "members_rank": "effective rank of the members' features side by side",
    "members_diversity": "loss where another member is led astray (nats)",
    "reworded_shift": "how far rewording by synonyms moves the probabilities, in total variation",
    "prior_error_label_shift": "error of the label shares where nothing but these changed",
}


def quantity(function: Quantity) -> Quantity:
    """Register a quantity under the function's name."""
    QUANTITIES[function.__name__] = function
    return function


def is_quantity(name: str) -> bool:
    """Whether there is a quantity of that name."""
    from surefoot.evidence import (  # noqa: F401 - quantities of other kinds
        answering,
        attacking,
        probing,
        scoring,
        vectors,
        weighing,
    )

    return name in QUANTITIES


def find_quantity(name: str) -> Quantity:
    """The quantity of that name. Raises SurefootError if there is none."""
    if not is_quantity(name):
        raise SurefootError(f"unknown quantity `{name}`: {nearest(name, QUANTITIES)}")
    return QUANTITIES[name]


def described(name: str) -> str:
    """What the table calls the quantity."""
    return READ.get(name) or (find_quantity(name).__doc__ or name).split("\n")[0].rstrip(".")


def measure(trained: Trained, names: Collection[str]) -> dict[str, float]:
    """The named quantities."""
    return {name: float(find_quantity(name)(trained)) for name in names}


def _log_p(logits: np.ndarray) -> np.ndarray:
    return np.asarray(log_softmax(logits.astype(np.float64), axis=1))


def _losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.asarray(-_log_p(logits)[np.arange(len(labels)), labels])


def _entropies(logits: np.ndarray) -> np.ndarray:
    log_p = _log_p(logits)
    return np.asarray(-(np.exp(log_p) * log_p).sum(1))


# --- from the outputs


@quantity
def training_loss(trained: Trained) -> float:
    """cross-entropy on the training set (nats)."""
    return float(_losses(trained.predicted["train"].logits, trained.labels).mean())


def _tail(losses: np.ndarray) -> float:
    """Mean of the largest twentieth."""
    return float(np.sort(losses)[-max(1, len(losses) // 20) :].mean())


@quantity
def training_loss_tail(trained: Trained) -> float:
    """cross-entropy of the worst twentieth of the training set (nats)."""
    return _tail(_losses(trained.predicted["train"].logits, trained.labels))


@quantity
def loss_tail(trained: Trained) -> float:
    """cross-entropy of the worst twentieth of the home test (nats)."""
    return _tail(_losses(trained.home.logits, trained.home_labels))


@quantity
def lead(trained: Trained) -> float:
    """by how much the label's logit leads the next on the training set, where it leads."""
    logits = trained.predicted["train"].logits.astype(np.float64)
    rows = np.arange(len(logits))
    own = logits[rows, trained.labels]
    logits[rows, trained.labels] = -np.inf
    leads = own - logits.max(1)
    return float(leads[leads > 0].mean()) if (leads > 0).any() else 0.0


@quantity
def easiest_quarter(trained: Trained) -> float:
    """probability of the label on the easiest quarter of the training set."""
    right = np.exp(-_losses(trained.predicted["train"].logits, trained.labels))
    return float(np.sort(right)[-max(1, len(right) // 4) :].mean())


@quantity
def entropy(trained: Trained) -> float:
    """entropy of the predictions on the home test (nats)."""
    return float(_entropies(trained.home.logits).mean())


@quantity
def entropy_where_wrong(trained: Trained) -> float:
    """entropy of the wrong predictions on the home test (nats)."""
    wrong = trained.home.logits.argmax(1) != trained.home_labels
    return float(_entropies(trained.home.logits)[wrong].mean()) if wrong.any() else 0.0


@quantity
def divergence_from_start(trained: Trained) -> float:
    """KL(model before training || trained) on the home test (nats)."""
    before, after = _log_p(trained.at_start[trained.world.home].logits), _log_p(trained.home.logits)
    return float((np.exp(before) * (before - after)).sum(1).mean())


@quantity
def memorised(trained: Trained) -> float:
    """share of the wrong training labels that the model predicts."""
    assert trained.world.true_labels is not None
    wrong = trained.labels != trained.world.true_labels
    predicted = trained.predicted["train"].logits.argmax(1)
    return float((predicted == trained.labels)[wrong].mean())


@quantity
def weight_of_wrong(trained: Trained) -> float:
    """weight of the training examples with a wrong label over that of the others."""
    weights = getattr(trained.fit, "hyperparameters", {}).get("weights")
    if weights is None:
        return 1.0
    assert trained.world.true_labels is not None
    wrong = trained.labels != trained.world.true_labels
    return float(weights[wrong].mean() / weights[~wrong].mean())


@quantity
def worst_group_loss(trained: Trained) -> float:
    """cross-entropy of the worst group of the training set (nats)."""
    groups = trained.world.train.group
    assert groups is not None
    losses = _losses(trained.predicted["train"].logits, trained.labels)
    return max(float(losses[groups == group].mean()) for group in np.unique(groups))


@quantity
def feature_distance(trained: Trained) -> float:
    """distance of the features from the pretrained ones, over their length, all tests."""
    moved = []
    for name in trained.world.tests:
        before, after = trained.at_start[name].features, trained.predicted[name].features
        moved.append(np.linalg.norm(after - before, axis=1) / np.linalg.norm(before, axis=1))
    return float(np.concatenate(moved).mean())


def _pairs(trained: Trained) -> tuple[np.ndarray, np.ndarray]:
    """Of all pairs of the home test: squared distances of their features on the unit sphere, whether of one class."""
    features = unit_length(trained.home.features.astype(np.float64))
    first, second = np.triu_indices(len(features), 1)
    labels = trained.home_labels
    return 2 - 2 * (features @ features.T)[first, second], labels[first] == labels[second]


@quantity
def alignment(trained: Trained) -> float:
    """squared distance on the unit sphere of features of one class, home test."""
    squared, together = _pairs(trained)
    return float(squared[together].mean())


@quantity
def uniformity(trained: Trained) -> float:
    """log of the mean of exp(-2 squared distance) over pairs of features on the unit sphere, home test."""
    return float(np.log(np.exp(-2 * _pairs(trained)[0]).mean()))


@quantity
def contrast(trained: Trained) -> float:
    """cosine of features of one class, less that of features of two, home test."""
    squared, together = _pairs(trained)
    return float(squared[~together].mean() - squared[together].mean()) / 2


@quantity
def within_class_scatter(trained: Trained) -> float:
    """variance of the training features within classes, over that between them."""
    features, labels = trained.predicted["train"].features.astype(np.float64), trained.labels
    means = np.stack([features[labels == label].mean(0) for label in np.unique(labels)])
    within = ((features - means[np.searchsorted(np.unique(labels), labels)]) ** 2).sum(1).mean()
    return float(within / ((means - means.mean(0)) ** 2).sum(1).mean())
