"""SADE: three experts for three kinds of label shares, weighed by how much they agree with themselves."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.adapt.adapter import TestTimeAdapter
from surefoot.adapt.views import by_length, view
from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import positive
from surefoot.tune.selections import whole
from surefoot.tune.step import Batch, Output

#: Inside logarithms of shares, as in the authors' code; and the weight below which an expert is out and learning stops.
TINY, LEAST = 1e-9, 0.05


@register(
    "sade",
    kind="test_time_adapter",
    family="experts",
    papers=[
        Paper(
            "Self-Supervised Aggregation of Diverse Experts for Test-Agnostic Long-Tailed Recognition",
            "Zhang et al.",
            2022,
            arxiv="2107.09249",
        )
    ],
)
class SADE(TestTimeAdapter):
    """Heads for home's, equal and inverted label shares, mixed so that two views of an input get the same answer.

    Experts: CE(z1, y); CE(z2 + log pi, y); CE(z3 + log pi - tau log pi_inv, y), pi (C,): home's label shares, pi_inv: each
    class with the share of the class of mirrored rank. Answer: sum_i w_i z_i, w = softmax of three numbers, equal at the
    start, that climb S = mean cos(p(x'), p(x'')), p = softmax(sum_i w_i z_i), x' and x'': two random views (see
    `views.py`). One step of SGD (lr 0.1, Nesterov momentum 0.9, weight decay 5e-4) a batch, until a weight is below 0.05.

    The paper trains the experts with the network they share, and mixes them in five epochs over the test set; here they are
    heads on the frozen features, trained on the home examples with pull / 2 ||W - W_0||^2 towards the run's own head, and
    the mixing is online. So they know what held-out examples can teach: a long-tailed home, a few hundred or more.

    tau: 2, the authors'. lr: 0.1; steps: 1 a batch. pull: 0.01, ours; infinity is the frozen model.
    Gives logits (B, C). Raises RecipeError for options out of range, DataError without labelled home examples, ModelError
    for inputs that have no views. Reference: Zhang et al. 2022, Vanint/SADE-AgnosticLT.
    """

    home = "required"
    stays = True
    views = True
    still: ClassVar[dict[str, Any]] = {"pull": float("inf")}
    experts: list[nn.Linear]

    def __init__(self, *, tau: float = 2.0, lr: float = 0.1, steps: int = 1, pull: float = 0.01) -> None:
        self.tau, self.lr = positive("tau", tau, zero=True), positive("lr", lr, zero=True)
        self.steps = whole("steps", steps)
        if not (isinstance(pull, int | float) and pull > 0):
            raise RecipeError(f"`pull` is {pull}: it must be above zero, or .inf for the frozen model")
        self.pull = float(pull)

    def begin(self, *args: Any, **options: Any) -> Any:
        vars(self).pop("experts", None)
        return super().begin(*args, **options)

    def prepare(self) -> None:
        self.raw = torch.zeros(3, requires_grad=True)
        self.optimizer = torch.optim.SGD([self.raw], lr=self.lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
        if math.isinf(self.pull) or "experts" in vars(self):
            return
        assert self.known is not None
        features, _ = self.home_outputs()
        labels = torch.from_numpy(self.known.labels).to(features.device)
        shares = torch.bincount(labels, minlength=len(self.model.classes)).double() / len(labels)
        self.experts = [
            trained_head(self.model.head, features, labels, offset, pull=self.pull)
            for offset in offsets(shares, tau=self.tau)
        ]

    @property
    def weights(self) -> Tensor:
        """w (3,): of the experts for home's, equal and inverted shares."""
        return self.raw.softmax(0)

    def adapt(self, batch: Batch) -> Output:
        with torch.no_grad():
            found = self.output(batch)
        if math.isinf(self.pull):
            return found
        if float(self.weights.detach().min()) >= LEAST:
            self._mix(batch)
        logits = self._mixed(found.features)
        return replace(found, logits=logits)

    def _mix(self, batch: Batch) -> None:
        """Steps of the three numbers up the agreement of two views."""
        with torch.no_grad():
            views = [view(batch, self.generator, name="sade") for _ in range(2)]
            seen = [by_length(self.model, each).features for each in views]
        for _ in range(self.steps):
            first, second = (self._mixed(each).softmax(1) for each in seen)
            agreement = F.cosine_similarity(first, second, dim=1, eps=1e-6).mean()
            self.optimizer.zero_grad()
            (-agreement).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()

    def _mixed(self, features: Tensor) -> Tensor:
        logits = torch.stack([expert(features) for expert in self.experts])
        return torch.einsum("e,ebc->bc", self.weights.to(logits.device), logits)


def offsets(shares: Tensor, *, tau: float = 2.0) -> list[Tensor]:
    """What the three losses add to the logits, (C,) each, for home's label shares (C,).

    >>> [each.round(decimals=2).tolist() for each in offsets(torch.tensor([0.8, 0.2]).double())]
    [[0.0, 0.0], [-0.22, -1.61], [3.0, -1.16]]
    """
    log = torch.log(shares + TINY)
    return [torch.zeros_like(log), log, log - tau * torch.log(mirrored(shares) + TINY)]


def mirrored(shares: Tensor) -> Tensor:
    """Each class with the share of the class of mirrored rank, (C,).

    >>> mirrored(torch.tensor([0.5, 0.2, 0.3])).tolist() == torch.tensor([0.2, 0.5, 0.3]).tolist()
    True
    """
    found = torch.empty_like(shares)
    order = shares.argsort(stable=True)
    found[order] = shares[order.flip(0)]
    return found


def trained_head(head: nn.Linear, features: Tensor, labels: Tensor, offset: Tensor, *, pull: float) -> nn.Linear:
    """argmin over (W, b) of mean CE(W f + b + offset, y) + pull / 2 (||W - W_0||^2 + ||b - b_0||^2), from the head, in float64."""
    start = [head.weight.detach().double(), head.bias.detach().double()]
    weight, bias = (each.clone().requires_grad_() for each in start)
    features = features.double()
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=300, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        moved = sum((each - begun).square().sum() for each, begun in zip((weight, bias), start, strict=True))
        found = F.cross_entropy(features @ weight.T + bias + offset.to(bias), labels) + pull / 2 * moved
        found.backward()  # type: ignore[no-untyped-call]
        return found

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    found = nn.Linear(head.in_features, head.out_features, device=head.weight.device)
    with torch.no_grad():
        found.weight.copy_(weight)
        found.bias.copy_(bias)
    return found.requires_grad_(False)
