"""Label shift adapter: a small net that turns the stream's label shares into changes of the head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.adapt.adapter import TestTimeAdapter
from surefoot.adapt.sade import TINY, mirrored
from surefoot.errors import DataError, RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.build import build
from surefoot.tune.objective import fraction, positive
from surefoot.tune.selections import whole
from surefoot.tune.step import Batch, Output

#: Home's label shares are equal where no class's log share is further than this from the others' mean, in nats.
EQUAL = 0.05
#: Home examples a step of the net's training.
SIZE = 64


@register(
    "label_shift_adapter",
    kind="test_time_adapter",
    family="prior",
    papers=[
        Paper(
            "Label Shift Adapter for Test-Time Adaptation under Covariate and Label Shifts",
            "Park et al.",
            2023,
            arxiv="2308.08810",
        )
    ],
)
class LabelShiftAdapter(TestTimeAdapter):
    """z = (W + dW) (f (1 + gamma) + beta) + b + db, the changes a function of one number: how far the shares are tilted.

    (dW, db, gamma, beta) = g(m), g: a net with one hidden layer of `width`, zero at the start, trained on home examples
    with the model frozen: CE(z + log pi_s - log pi_t, y), pi_t in turn home's shares pi_s, equal and inverted ones. On the
    stream pi_t is a moving average (`momentum`) of the mean predicted probabilities, from pi_s on. `inner`: another
    adapter, such as tent, whose features f (B, D) are taken; none by default, the paper sets it on top of several.

    That one degree of imbalance goes in is the paper's; which, could not be checked. Ours: m(pi) = (pi - u) . s /
    ((pi_s - u) . s), s = log pi_s less its mean, u equal shares: 1 at home's, 0 at equal, negative at inverted ones.
    The net's size, steps and rate are ours too: width 32, steps 500 of 64 examples, Adam at lr 1e-3; momentum 0.9.
    steps 0 is the frozen model. A home with equal label shares has no tilt and is refused.
    Gives logits (B, C). Raises RecipeError for options out of range, DataError without labelled home examples or with equal
    shares. Reference: Park et al. 2023.
    """

    home = "required"
    stays = True
    still: ClassVar[dict[str, Any]] = {"steps": 0}
    net: nn.Sequential

    def __init__(
        self,
        *,
        inner: str | None = None,
        steps: int = 500,
        lr: float = 1e-3,
        width: int = 32,
        momentum: float = 0.9,
    ) -> None:
        if inner in ("label_shift_adapter", "sade"):
            raise RecipeError(f"`inner` is `{inner}`: choose an adapter that leaves the head alone, such as tent")
        self.inner = inner
        self.inside: TestTimeAdapter | None = None if inner is None else build("test_time_adapter", inner)
        self.steps, self.width = whole("steps", steps), whole("width", width, least=1)
        self.lr, self.momentum = positive("lr", lr), fraction("momentum", momentum)

    def begin(self, *args: Any, **options: Any) -> Any:
        vars(self).pop("net", None)
        return super().begin(*args, **options)

    def prepare(self) -> None:
        assert self.known is not None
        labels = torch.from_numpy(self.known.labels)
        self.source = torch.bincount(labels, minlength=len(self.model.classes)).float() / len(labels)
        log = torch.log(self.source + TINY)
        self.tilt = log - log.mean()
        if float(self.tilt.abs().max()) < EQUAL:
            raise DataError(
                "home's label shares are equal, so that `label_shift_adapter` has no direction of shift to learn: use label_shift"
            )
        self.shares = self.source.clone()
        if "net" not in vars(self):
            self.net = self._train(labels)
        if self.inside is not None:
            self.inside.begin(self.frozen, home=self.known if self.inside.home != "unused" else None, seed=self.seed)

    def degree(self, shares: Tensor) -> Tensor:
        """m: a scalar for label shares (C,)."""
        equal = 1 / len(shares)
        return ((shares - equal) @ self.tilt) / ((self.source - equal) @ self.tilt)

    def _train(self, labels: Tensor) -> nn.Sequential:
        assert self.known is not None
        head = self.model.head
        classes, dim = head.out_features, head.in_features
        last = nn.Linear(self.width, classes * dim + classes + 2 * dim)
        first = nn.Linear(1, self.width)
        for value in (first.weight, first.bias):
            nn.init.uniform_(value, -1, 1, generator=self.generator)
        for value in (last.weight, last.bias):
            nn.init.zeros_(value)
        net = nn.Sequential(first, nn.ReLU(), last).to(self.model.device)
        features, _ = self.home_outputs()
        optimizer = torch.optim.Adam(net.parameters(), lr=self.lr)
        targets = [self.source, torch.full_like(self.source, 1 / classes), mirrored(self.source)]
        labels = labels.to(features.device)
        with torch.enable_grad():
            for step in range(self.steps):
                target = targets[step % len(targets)]
                chosen = torch.randint(len(labels), (SIZE,), generator=self.generator).to(features.device)
                logits = self._answer(net, features[chosen], self.degree(target))
                adjusted = logits + (torch.log(self.source + TINY) - torch.log(target + TINY)).to(logits)
                loss = F.cross_entropy(adjusted, labels[chosen])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        return net.requires_grad_(False)

    def _answer(self, net: nn.Sequential, features: Tensor, degree: Tensor) -> Tensor:
        head = self.model.head
        classes, dim = head.out_features, head.in_features
        change = net(degree.view(1, 1).to(features))[0]
        weight, bias, scale, shift = change.split([classes * dim, classes, dim, dim])
        moved = features * (1 + scale) + shift
        return F.linear(moved, head.weight + weight.view(classes, dim), head.bias + bias)

    @torch.no_grad()
    def adapt(self, batch: Batch) -> Output:
        found: Output = self.output(batch) if self.inside is None else self.inside.answer(batch)
        logits = self._answer(self.net, found.features, self.degree(self.shares))
        if torch.isfinite(logits).all():
            mean = logits.softmax(1).mean(0).cpu()
            self.shares = self.momentum * self.shares + (1 - self.momentum) * mean
        return replace(found, logits=logits)
