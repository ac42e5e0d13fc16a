"""Self-regularisation: passes with different dropout agree."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space, fraction, positive
from surefoot.tune.step import Step


@register(
    "self_regularization",
    kind="objective",
    family="noisy_labels",
    papers=[Paper("Software Entity Recognition with Noise-Robust Learning", "Nguyen et al.", 2023, arxiv="2308.10564")],
)
class SelfRegularization(Objective):
    """Passes with different dropout learn and agree: mean_j CE(p_j, y) + alpha(t) mean_j KL(p_bar || p_j).

    p_j: probabilities (B, C) of pass j of k through one network; p_bar = mean_j p_j, with gradient. alpha(t) is 0 for
    the first `warmup` of the training and alpha from then on. Gives (B,) in nats; it holds the cross-entropy, so that
    it takes its place. A wrong label is what the passes disagree about longest. The paper's examples are the tokens of
    software texts; here they are whole texts. Where nothing drops out, it is cross-entropy.

    alpha: at least 0; 10, the authors' README (their script has 50). k: passes, at least 2; 2, the authors'. warmup: in
    [0, 1); 0.1, the authors'. Raises RecipeError for values outside these ranges. Reference: Nguyen et al. 2023;
    taidnguyen/software_entity_recognition, src/model_nll.py.

    >>> SelfRegularization(k=4).alpha
    10.0
    """

    def __init__(self, *, alpha: float = 10.0, k: int = 2, warmup: float = 0.1) -> None:
        super().__init__()
        self.alpha = positive("alpha", alpha, zero=True)
        if not isinstance(k, int) or isinstance(k, bool) or k < 2:
            raise RecipeError(f"`k` is {k}: it must be a whole number of at least 2")
        self.k = k
        self.warmup = fraction("warmup", warmup)

    def per_example(self, step: Step) -> Tensor:
        outputs = [step.output, step.second_output, *(step.again() for _ in range(self.k - 2))]
        log_p = F.log_softmax(torch.stack([each.logits for each in outputs]), dim=2)  # (k, B, C)
        losses = -log_p.gather(2, step.labels.expand(self.k, -1)[:, :, None]).squeeze(2).mean(0)
        if step.progress < self.warmup or not self.alpha:
            return losses
        log_mean = log_p.logsumexp(0) - torch.log(torch.tensor(float(self.k)))
        divergence = (log_mean.exp() * (log_mean - log_p)).sum(2).mean(0)
        return losses + self.alpha * divergence

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"alpha": Space(1.0, 50.0, log=True), "k": Space(2, 4, integer=True)}
