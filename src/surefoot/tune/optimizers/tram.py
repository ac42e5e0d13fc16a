"""TRAM: trust region aware minimisation, around any optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.models.modes import evaluating
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Space, one_of, positive
from surefoot.tune.optimizer import Closure, Optimizer
from surefoot.tune.optimizers import instead, restore
from surefoot.tune.optimizers.sam import SAM


@register(
    "tram",
    kind="optimizer",
    family="sharpness",
    papers=[
        Paper(
            "TRAM: Bridging Trust Regions and Sharpness Aware Minimization",
            "Sherborne et al.",
            2024,
            arxiv="2310.03646",
        )
    ],
)
class TRAM(SAM):
    """SAM whose radius is how far the model's answers have moved, instead of a constant rho.

    d = logit_scale * mean over the batch of KL(p_0(. | x) || p(. | x)), in nats, with p the model's probabilities and
    p_0 those of the weights of the step before (`target: previous`, TRAM-theta_(t-1)) or of the start (`target: start`,
    TRAM-theta_0), in eval mode and without gradient;
    e = d T^2 g / ||T g||_2 with T = |w| + eta (`adaptive`, ASAM's scaling) or T = 1;
    the inner optimizer updates w by grad L(w + e).

    adaptive: True, the paper's. eta: 0, as in its formula. logit_scale: 1, the formula; the authors' code divides the
    KL by the number of logits and again by the batch size, and offers this factor to make up for it. The code also
    lacks the factor g of e; this is the formula. The variant with noise on embeddings (TRAM-x) is not here.
    Two passes a step and one forward pass at the other weights; a copy of the weights for `previous`.
    logit_scale = 0 is the inner optimizer exactly. Raises RecipeError for values out of range.
    Reference: Sherborne et al. 2024.

    >>> from surefoot.tune.optimizers.adamw import AdamW
    >>> optimizer = TRAM(AdamW([torch.nn.Parameter(torch.ones(2))]), target="start")
    """

    forwards = 1

    def __init__(
        self,
        inner: Optimizer,
        *,
        target: str = "previous",
        logit_scale: float = 1.0,
        adaptive: bool = True,
        eta: float = 0.0,
    ) -> None:
        super().__init__(inner, rho=0.0, adaptive=adaptive, eta=eta)
        self.target = one_of("target", target, ["previous", "start"])
        self.logit_scale = positive("logit_scale", logit_scale, zero=True)
        self._other = [parameter.detach().clone() for parameter in self.parameters]

    def setup(self, context: Context) -> None:
        super().setup(context)
        self._other = [parameter.detach().clone() for parameter in self.parameters]

    def step(self, closure: Closure) -> Tensor:
        before = [parameter.detach().clone() for parameter in self.parameters] if self.target == "previous" else None
        loss = super().step(closure)
        self._other = before or self._other
        return loss

    @torch.no_grad()
    def radius(self, closure: Closure) -> float:
        """d, after a pass over the batch at the present weights."""
        step = closure.step
        with evaluating(step.model), instead(self.parameters, self._other):
            other = step.again().logits
        log_p, log_q = F.log_softmax(step.output.logits, dim=-1), F.log_softmax(other, dim=-1)
        return self.logit_scale * max(float(F.kl_div(log_p, log_q, log_target=True, reduction="batchmean")), 0.0)

    def own_state(self) -> dict[str, Any]:
        return {"other": list(self._other)}

    def load_own_state(self, state: dict[str, Any]) -> None:
        restore(self._other, state["other"])

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"logit_scale": Space(0.1, 100.0, log=True)}
