"""The linear probe: logistic regression on frozen features, as a head."""

from __future__ import annotations

import numpy as np
import torch

from surefoot.models.model import Model


def fit_probe(
    model: Model,
    features: np.ndarray,
    labels: np.ndarray,
    *,
    weight: np.ndarray | None = None,
    C: float = 1.0,
    max_iterations: int = 3000,
) -> None:
    """Set the model's head to the minimiser of sum_i w_i CE(W f_i + b, y_i) + ||W||^2 / (2 C).

    features (N, D), labels (N,), weight w (N,), 1 by default. C = 1 is scikit-learn's default. Two classes are fitted as one logit s and written
    as (-s/2, s/2), which gives the same probabilities.
    """
    from sklearn.linear_model import LogisticRegression

    probe = LogisticRegression(C=C, max_iter=max_iterations).fit(
        features.astype(np.float64), labels, sample_weight=weight
    )
    slope, bias = probe.coef_, probe.intercept_
    if len(slope) == 1:
        slope, bias = np.concatenate([-slope, slope]) / 2, np.concatenate([-bias, bias]) / 2
    # Classes that the training set lacks keep zero weights and a bias that never wins.
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.fill_(float(bias.min()) - 10.0)
        present = (
            torch.from_numpy(probe.classes_.astype(np.int64))
            if len(probe.classes_) == len(slope)
            else torch.arange(len(slope))
        )
        model.head.weight[present] = torch.from_numpy(slope).float().to(model.device)
        model.head.bias[present] = torch.from_numpy(bias).float().to(model.device)
