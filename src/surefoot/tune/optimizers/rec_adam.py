"""RecAdam: recall the pretrained weights first, learn the task later; with rFT's settings."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Space, fraction, positive
from surefoot.tune.optimizer import Closure, Optimizer, Wrapper
from surefoot.tune.optimizers import restore


@register(
    "rec_adam",
    kind="optimizer",
    family="regularised",
    papers=[
        Paper(
            "Avoiding Inference Heuristics in Few-shot Prompt-based Finetuning",
            "Utama et al.",
            2021,
            arxiv="2109.04144",
        ),
        Paper(
            "Recall and Learn: Fine-tuning Deep Pretrained Language Models with Less Forgetting",
            "Chen et al.",
            2020,
            arxiv="2004.12651",
        ),
    ],
)
class RecAdam(Wrapper):
    """Descend lambda(t) L + (1 - lambda(t)) (gamma / 2) ||w - w_0||_2^2, the second term apart from the moments.

    lambda(t) = 1 / (1 + exp(-k (t - t0 T))), t = 1, ..., T the step; w_0: the weights before training. Around an inner
    step w -> w + s:  w <- w + lambda s,  then  w <- w - c / (1 + c) (w - w_0), c = lr (1 - lambda) gamma, lr the present
    learning rate. Through the gradient the pull would be normalised by Adam's second moment, and a gamma of this size
    would leave no direction but back. The authors step by c, which this is to first order (c is 0.025 at their 1e-5);
    an explicit step diverges where c is above 2. The head's weights are new: they get the inner step alone. Any inner
    optimizer will do; its own weight decay is scaled by lambda too.

    gamma: 5000; t0: 0.6, a share of the steps; k: 0.01 a step, as rFT (Utama et al. 2021) sets them for few shots. In a
    training of few hundred steps lambda is then near a half throughout. RecAdam itself searches k in 0.05 to 1.
    One pass a step, two copies of the weights. t0 = 0 with a large k is the inner optimizer exactly.
    Raises RecipeError if gamma is negative, k is not above 0 or t0 lies outside [0, 1].
    Reference: Chen et al. 2020, section 4; Utama et al. 2021; UKPLab/emnlp2021-prompt-ft-heuristics, src/rec_adam.py.

    >>> from surefoot.tune.optimizers.adamw import AdamW
    >>> RecAdam(AdamW([torch.nn.Parameter(torch.ones(2))])).gamma
    5000.0
    """

    def __init__(self, inner: Optimizer, *, gamma: float = 5000.0, k: float = 0.01, t0: float = 0.6) -> None:
        super().__init__(inner)
        self.gamma = positive("gamma", gamma, zero=True)
        self.k = positive("k", k)
        self.t0 = fraction("t0", t0, one=True)
        self._taken, self._steps = 0, 1
        self._start: dict[Tensor, Tensor] = {}
        self._kept: list[Tensor] = []

    def setup(self, context: Context) -> None:
        super().setup(context)
        self._steps = context.steps
        self._start = {
            parameter: context.start[name].to(parameter.device, copy=True)
            for name, parameter in context.trained.items()
            if name not in context.head_names
        }

    def around(self, closure: Closure, first: bool) -> Tensor:
        return closure(first)

    def learning(self) -> float:
        """lambda of the step to come."""
        # Far from the middle exp would overflow, and lambda is 0 or 1 long before.
        return 1 / (1 + math.exp(min(-self.k * (self._taken + 1 - self.t0 * self._steps), 700.0)))

    def step(self, closure: Closure) -> Tensor:
        pulled = [
            (parameter, group)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter in self._start
        ]
        share, mixes = self.learning(), []
        with torch.no_grad():
            # Both moves are known before the step but for where it leads, so the rest of their sum is made ready now:
            # w <- mix ((1 - q) w + q w_0) + (1 - mix) (w + s), in two passes over the weights rather than four.
            for (parameter, group), kept in zip(pulled, self._kept_for(pulled), strict=True):
                pull = group["lr"] * (1 - share) * self.gamma
                back = pull / (1 + pull)
                mix = 1 - (1 - back) * share
                torch.lerp(parameter, self._start[parameter], back / mix if mix else 0.0, out=kept)
                mixes.append(mix)
        loss = super().step(closure)
        with torch.no_grad():
            for (parameter, _), kept, mix in zip(pulled, self._kept, mixes, strict=True):
                parameter.lerp_(kept, mix)
        self._taken += 1
        return loss

    def _kept_for(self, pulled: list[tuple[Tensor, dict[str, Any]]]) -> list[Tensor]:
        """One buffer for each parameter, which lasts: fresh memory every step costs as much as what is written to it."""
        if [each.shape for each in self._kept] != [parameter.shape for parameter, _ in pulled]:
            self._kept = [torch.empty_like(parameter) for parameter, _ in pulled]
        return self._kept

    def own_state(self) -> dict[str, Any]:
        return {"taken": torch.tensor(self._taken), "start": list(self._start.values())}

    def load_own_state(self, state: dict[str, Any]) -> None:
        self._taken = int(state["taken"])
        restore(list(self._start.values()), state["start"])

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"gamma": Space(10.0, 10000.0, log=True), "t0": Space(0.0, 1.0)}
