"""Norms of the weights and of their distance from the start: AutoFT's four."""

from __future__ import annotations

from surefoot.registry import Paper, register
from surefoot.tune.objective import Norms, WeightObjective

AUTOFT = Paper("AutoFT: Learning an Objective for Robust Fine-Tuning", "Choi et al.", 2024, arxiv="2401.10220")


@register("l1_zero", kind="objective", family="weights", papers=[AUTOFT])
class L1Zero(WeightObjective):
    """Mean absolute weight: ||w||_1 / P.

    w: the parameters that train; P: their number. Gives a scalar in units of the weights; gradient sign(w) / P, with 0
    at 0. No hyperparameters. Reference: cchoi1/auto-ft, losses/learnedloss.py (`l1zero`).
    """

    def norms(self, name: str) -> Norms:
        return Norms(l1=1 / self.count_)


@register("l2_zero", kind="objective", family="weights", papers=[AUTOFT])
class L2Zero(WeightObjective):
    """Mean squared weight: ||w||_2^2 / P.

    w: the parameters that train; P: their number. Gives a scalar in squared units of the weights; gradient 2 w / P.
    No hyperparameters. Reference: cchoi1/auto-ft, losses/learnedloss.py (`l2zero`).
    """

    def norms(self, name: str) -> Norms:
        return Norms(l2=1 / self.count_)


@register("l1_start", kind="objective", family="weights", papers=[AUTOFT])
class L1Start(WeightObjective):
    """Mean absolute distance from the pretrained weights: ||w - w0||_1 / P.

    w: the parameters that train; w0: the same before training, the head's included; P: their number. Gives a scalar in
    units of the weights, 0 at the start; gradient sign(w - w0) / P, with 0 at 0. No hyperparameters.
    Reference: cchoi1/auto-ft, losses/learnedloss.py (`l1init`).
    """

    def norms(self, name: str) -> Norms:
        return Norms(l1_start=1 / self.count_)


@register("l2_start", kind="objective", family="weights", papers=[AUTOFT])
class L2Start(WeightObjective):
    """Mean squared distance from the pretrained weights: ||w - w0||_2^2 / P.

    w: the parameters that train; w0: the same before training, the head's included; P: their number. Gives a scalar in
    squared units of the weights, 0 at the start; gradient 2 (w - w0) / P. No hyperparameters.
    Reference: cchoi1/auto-ft, losses/learnedloss.py (`l2init`).
    """

    def norms(self, name: str) -> Norms:
        return Norms(l2_start=1 / self.count_)
