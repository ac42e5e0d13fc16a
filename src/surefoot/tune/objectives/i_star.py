"""I-STAR: raise or lower the isotropy of token states, measured by IsoScore*."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space, fraction, one_of
from surefoot.tune.step import Step


def isoscore(covariance: Tensor) -> Tensor:
    """IsoScore* of a covariance (D, D): (tr(S)^2 / ||S||_F^2 - 1) / (D - 1), a scalar in [0, 1]; 1 for a multiple of I.

    The paper writes it with the singular values L of S, L' = sqrt(D) L / ||L||, d = ||L' - 1|| / sqrt(2 (D - sqrt D)),
    ((D - d^2 (D - sqrt D))^2 - D) / (D (D - 1)). S has no negative eigenvalue, so L sums to its trace and ||L|| is its
    Frobenius norm; then d^2 (D - sqrt D) = D - sqrt(D) tr(S) / ||S||_F, and no decomposition is needed.

    >>> float(isoscore(torch.eye(4)))
    1.0
    """
    trace, squared = covariance.diagonal().sum(), covariance.square().sum()
    return (trace.square() / squared.clamp_min(torch.finfo(squared.dtype).tiny) - 1) / (len(covariance) - 1)


@register(
    "i_star",
    kind="objective",
    family="features",
    papers=[Paper("Stable Anisotropic Regularization", "Rudman and Eickhoff", 2024, arxiv="2305.19358")],
)
class ISTAR(Objective):
    """I-STAR: IsoScore*(S) - 1 to make states less isotropic, 1 - IsoScore*(S) to make them more so.

    S = (1 - zeta) C + zeta C_0, (D, D): C the covariance of the batch's token states of all layers together (embeddings
    and padding left out), with gradient; C_0 that of many more states, without. IsoScore*(S) = (tr(S)^2 / ||S||_F^2 - 1)
    / (D - 1), the paper's score in closed form (see `isoscore`). Gives a scalar in [-1, 0] or [0, 1]; the weight is
    the size of the paper's lambda, `isotropy` its sign.

    The paper takes C_0 before each epoch by a pass over the data. Here it costs none: it is gathered from the states
    that training sees, that of the last whole epoch once there is one and until then of what was seen, the batch
    included. States of frozen layers count, though nothing flows to them; no layer is cached.

    isotropy: "lower" (lambda < 0; default, what the paper finds to help) or "raise" (lambda > 0).
    zeta: share of C_0, in [0, 1); the paper's 0.2.

    State: count (), mean (D,) and scatter (D, D) of this epoch's states, `examples` seen of it, `covariance` (D, D) of
    the last. Raises RecipeError for other values, or a model without transformer layers.
    Reference: Rudman and Eickhoff 2024, section 3; bcbi-edu/p_eickhoff_isoscore, I-STAR/regularizers.py.

    >>> ISTAR(isotropy="raise").zeta
    0.2
    """

    needs = frozenset({"hidden_states"})
    reads_labels = False
    count: Tensor
    mean: Tensor
    scatter: Tensor
    examples: Tensor
    covariance: Tensor

    def __init__(self, *, isotropy: Literal["lower", "raise"] = "lower", zeta: float = 0.2) -> None:
        super().__init__()
        self.isotropy = one_of("isotropy", isotropy, ["lower", "raise"])
        self.zeta = fraction("zeta", zeta)
        self._seen: tuple[Step, Tensor, Tensor] | None = None

    def setup(self, context: Context) -> None:
        model = context.model
        if not model.layers:
            raise RecipeError(
                f"objective `i_star` reads token states, and `{model.name}` has no transformer layers: leave it out, or choose a transformer"
            )
        self.examples_, square = context.examples, (model.dim, model.dim)
        shapes = {"count": (), "mean": (model.dim,), "scatter": square, "examples": (), "covariance": square}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))

    @torch.no_grad()
    def update(self, step: Step) -> None:
        states, covariance = self._look(step)
        if self.examples >= self.examples_:
            self.covariance.copy_(self.scatter / (self.count - 1))
            for buffer in (self.count, self.mean, self.scatter, self.examples):
                buffer.zero_()
        count, new, covariance = len(states), states.double().mean(0), covariance.detach()
        total, apart = self.count + count, new - self.mean
        self.scatter += covariance * (count - 1) + torch.outer(apart, apart) * self.count * count / total
        self.mean += apart * count / total
        self.count.copy_(total)
        self.examples += len(step.batch)

    def forward(self, step: Step) -> Tensor:
        known = self.covariance if self.covariance.any() else self.scatter / (self.count - 1).clamp_min(1)
        covariance = torch.lerp(self._look(step)[1], known.float(), self.zeta)
        self._seen = None  # the graph that it holds is no longer needed
        score = isoscore(covariance)
        return 1 - score if self.isotropy == "raise" else score - 1

    def _look(self, step: Step) -> tuple[Tensor, Tensor]:
        """The step's token states and their covariance, with gradient: the larger part of the work, so `update` and
        `forward` share it."""
        if self._seen is None or self._seen[0] is not step:
            with torch.enable_grad():
                states = token_states(step)
                self._seen = (step, states, states.T.cov())
        return self._seen[1:]

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"zeta": Space(0.0, 0.9)}


def token_states(step: Step) -> Tensor:
    """States of every layer above the embeddings, padding left out: (tokens x layers, D) in float32."""
    layers = step.output.hidden_states
    assert layers is not None, "`needs` holds hidden_states"
    mask = step.batch.inputs.get("attention_mask")
    states = torch.stack([each.float() for each in layers[1:]])
    return states.flatten(0, -2) if mask is None else states[:, mask.bool()].flatten(0, 1)
