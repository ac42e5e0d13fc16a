"""How methods, sets and hyperparameters are called in print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

METHODS = {
    "answer": "this search",
    "linear_probe": "linear probe",
    "fine_tune": "fine-tuning",
    "lp_ft": "LP-FT",
    "wise_ft": "WiSE-FT",
    "untuned": "as it came",
    "contrastive": "plain tuning",
    "wise_contrastive": "plain tuning with WiSE-FT",
    "rank_agreement": "agreement in rank",
    "judge_mean": "mean of the judge's sets",
    "aline_d": "ALine-D",
    "aline_s": "ALine-S",
    "atc": "ATC",
    "average_confidence": "average confidence",
    "difference_of_confidences": "difference of confidences",
    "median": "median of all estimators",
    "mean_of_single": "mean of single-model estimators",
    "lr": "learning rate",
    "weight_decay": "weight decay",
    "layers": "layers that train",
    "start": "start",
    "zero_head": "a head of zeros",
}


#: Starts that are named after the recipe that trains from them.
STARTS = {"contrastive": "pretrained weights"}


def start_name(name: object) -> str:
    """A start of trials in print.

    >>> start_name("contrastive"), start_name("lp_ft")
    ('pretrained weights', 'LP-FT')
    """
    return STARTS.get(str(name)) or called(name)


def called(name: object) -> str:
    """A name in print; parameters of a search read as words.

    >>> called("lp_ft"), called("weight.l2_zero"), called("hinge.margin")
    ('LP-FT', 'weight of l2 zero', 'hinge margin')
    >>> called("other.optimizer"), called("lr.layer2")
    ('other optimizer', 'lr layer2')
    """
    text = str(name)
    if text in METHODS:
        return METHODS[text]
    first, dot, rest = text.partition(".")
    if first == "weight" and dot:
        return f"weight of {rest.replace('_', ' ')}"
    return f"{first} {rest}".replace("_", " ") if dot and rest else text


def trial_name(name: object) -> str:
    """`trial-0003` is the fourth trial; other names stay.

    >>> trial_name("trial-0003"), trial_name("best 3 of lp_ft")
    ('trial 4', 'best 3 of lp_ft')
    """
    text = str(name)
    number = text.removeprefix("trial-")
    return f"trial {int(number) + 1}" if text.startswith("trial-") and number.isdecimal() else text


def set_name(each: Mapping[str, Any]) -> str:
    """A set of `why.json` in print: which role it has is part of its name where it is not a test set."""
    if each.get("kind") == "home":
        return "home, held out"
    return f"{each.get('name')} (judge)" if each.get("kind") == "judge" else str(each.get("name"))
