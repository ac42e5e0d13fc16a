"""SMART: smoothness-inducing adversarial regularisation with Bregman proximal point optimisation."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.models.modes import evaluating
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space, fraction, one_of, positive
from surefoot.tune.step import Output, Step


@register(
    "smart",
    kind="objective",
    family="adversarial",
    papers=[
        Paper(
            "SMART: Robust and Efficient Fine-Tuning for Pre-trained Natural Language Models through Principled "
            "Regularized Optimization",
            "Jiang et al.",
            2020,
            arxiv="1911.03437",
        )
    ],
)
class SMART(Objective):
    """SMART: stay smooth around each input and close to where training just was, R_s + mu D_Breg.

    R_s = max over ||e||_inf <= epsilon of l(f(x + e), f(x)); D_Breg = l(f(x; theta), f(x; theta_bar));
    l(p, q) = KL(p || q) + KL(q || p) = sum_c (p_c - q_c) (log p_c - log q_c), or ||p - q||^2 for what is no distribution.
    x: input embeddings (B, T, D); f: softmax of the logits (B, C), or features (B, D) with `compares: features`, which is
    for embeddings. Gives (B,) in nats, or squared units of the features, at least 0. The weight is the
    paper's lambda_s (1, 3 or 5), so that mu stands here for the paper's mu / lambda_s.

    The maximum is sought from e ~ N(0, sigma^2) by `steps` times e <- clamp(e + eta g / ||g||_inf, -epsilon, epsilon),
    g = d l / d e against f(x) held fixed, the norm taken over each example. theta_bar is an average of the trained
    weights, theta_bar <- beta theta_bar + (1 - beta) theta, moved once a step before the loss is taken; its pass runs
    in eval mode. A step costs 1 + steps further forward passes, one of them with gradient to the weights, `steps`
    backward passes to e, and one pass of the average.

    epsilon: radius, in units of the embeddings, at least 0 (paper 1e-5). sigma: deviation of the first noise, above 0
    (1e-5). eta: ascent step, above 0 (1e-3). steps: ascents, at least 1 (1). mu: weight of D_Breg, at least 0 (1); with
    0 no average is kept, as in the authors' code. beta: momentum of the average in the first tenth of the training
    (0.99). late_beta: after that (0.999). compares: "logits" or "features"; the latter reads no labels, the paper's squared
    loss for regression takes the divergence's place, and with pairs it is the anchors that are perturbed.

    Each pass draws its own dropout, as in the authors' code: with dropout, R_s also holds what R-Drop penalises,
    which at the paper's radius is nearly all of it. Where embeddings are of order one, that radius is below bfloat16's
    rounding.

    State: `average/...`, one buffer for each trained parameter. Raises RecipeError for values outside these ranges;
    ModelError if the model has no input embeddings to perturb. Reference: Jiang et al. 2020, section 3 and algorithm 1;
    namisan/mt-dnn has R_s alone.

    >>> SMART(epsilon=1e-5, mu=0.0).steps
    1
    """

    needs = frozenset({"inputs"})

    def __init__(
        self,
        *,
        epsilon: float = 1e-5,
        sigma: float = 1e-5,
        eta: float = 1e-3,
        steps: int = 1,
        mu: float = 1.0,
        beta: float = 0.99,
        late_beta: float = 0.999,
        compares: Literal["logits", "features"] = "logits",
    ) -> None:
        super().__init__()
        self.epsilon = positive("epsilon", epsilon, zero=True)
        self.sigma = positive("sigma", sigma)
        self.eta = positive("eta", eta)
        if steps != int(positive("steps", steps)):
            raise RecipeError(f"`steps` is {steps}: it must be a whole number above zero")
        self.steps = int(steps)
        self.mu = positive("mu", mu, zero=True)
        self.beta = fraction("beta", beta)
        self.late_beta = fraction("late_beta", late_beta)
        self.compares = one_of("compares", compares, ["logits", "features"])
        self.reads_labels = compares == "logits"

    def setup(self, context: Context) -> None:
        self.names_ = list(context.trained) if self.mu else []
        for name in self.names_:
            self.register_buffer(_buffer(name), context.trained[name].detach().clone())

    @torch.no_grad()
    def update(self, step: Step) -> None:
        beta = self.beta if step.progress < 0.1 else self.late_beta
        parameters = dict(step.model.named_parameters())
        for name in self.names_:
            self.get_buffer(_buffer(name)).lerp_(parameters[name], 1 - beta)

    def per_example(self, step: Step) -> Tensor:
        clean = self._said(step.output)
        noise = self._worst_noise(step, clean.detach())
        smoothness = self._apart(self._said(step.again(embeddings=step.embeddings() + noise)), clean)
        if not self.mu:
            return smoothness
        return smoothness + self.mu * self._apart(clean, self._average(step))

    def _said(self, output: Output) -> Tensor:
        """What is compared: logits (B, C), or features (B, D)."""
        return output.logits if self.compares == "logits" else output.features

    def _apart(self, said: Tensor, other: Tensor) -> Tensor:
        """l, (B,)."""
        return symmetric_kl(said, other) if self.compares == "logits" else (said - other).square().sum(1)

    def _worst_noise(self, step: Step, clean: Tensor) -> Tensor:
        """The e that `steps` ascents find: (B, T, D), without gradient."""
        embeddings = step.embeddings()
        drawn = torch.randn(embeddings.shape, generator=step.generator, device=step.generator.device)
        noise = self.sigma * drawn.to(embeddings.device)
        for _ in range(self.steps):
            noise.requires_grad_()
            with torch.enable_grad():
                loss = self._apart(self._said(step.again(embeddings=embeddings + noise)), clean).sum()
            (gradient,) = torch.autograd.grad(loss, noise)
            norm = gradient.flatten(1).abs().amax(1).clamp_min(torch.finfo(gradient.dtype).tiny)
            ascent = gradient / norm.view(-1, *[1] * (gradient.ndim - 1))
            noise = (noise.detach() + self.eta * ascent).clamp(-self.epsilon, self.epsilon)
        return noise

    @torch.no_grad()
    def _average(self, step: Step) -> Tensor:
        weights = {name: self.get_buffer(_buffer(name)) for name in self.names_}

        def average(*args: Any, **options: Any) -> Any:
            return functional_call(step.model, weights, args, options)

        with evaluating(step.model):
            return self._said(step.again(model=average))  # type: ignore[arg-type]

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"epsilon": Space(1e-6, 1e-1, log=True), "mu": Space(0.1, 10.0, log=True)}


def symmetric_kl(logits: Tensor, other: Tensor) -> Tensor:
    """KL(p || q) + KL(q || p) of two sets of logits (B, C): (B,) in nats, gradient to both."""
    log_p, log_q = F.log_softmax(logits, dim=1), F.log_softmax(other, dim=1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(1)


def _buffer(name: str) -> str:
    return "average/" + name.replace(".", "/")
