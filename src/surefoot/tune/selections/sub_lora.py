"""SubLoRA: low-rank adaptation within a random subspace, short enough to write down that its error can be certified."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from surefoot.models.precision import autocast, resolve
from surefoot.registry import Paper, register
from surefoot.tune.objective import Space, positive
from surefoot.tune.selections import check_plain, head_names, train_only, whole
from surefoot.tune.selections.injected import Targeted
from surefoot.tune.selections.reparametrized import Reparametrization, fold, reparametrize
from surefoot.tune.selections.rounding import rows

if TYPE_CHECKING:
    from surefoot.assess.analyses.compression_bound import Bound
    from surefoot.models.model import Model
    from surefoot.tune.selection import Training

#: What the subspace and the adapters' start are drawn with: known before any data, so that no message holds them.
KNOWN = 0


class Subspace(nn.Module):
    """w (d,) -> P w (size,), P = sqrt(size / d) Q1 (x) Q2 with orthonormal columns in Q1 and Q2: never written out."""

    def __init__(self, d: int, size: int) -> None:
        super().__init__()
        self.size, self.sides = size, (math.isqrt(d - 1) + 1, -(-d // (math.isqrt(d - 1) + 1)))
        rows = math.isqrt(size - 1) + 1
        draw = torch.Generator().manual_seed(KNOWN)
        for name, high, wide in (("left", rows, self.sides[0]), ("right", -(-size // rows), self.sides[1])):
            drawn = torch.randn(high, wide, generator=draw, dtype=torch.float64)
            self.register_buffer(name, torch.linalg.qr(drawn).Q.float(), persistent=False)
        self.scale = math.sqrt(size / d)
        self.w = nn.Parameter(torch.zeros(d))

    def forward(self) -> Tensor:
        w = nn.functional.pad(self.w, (0, math.prod(self.sides) - len(self.w))).view(self.sides)
        left: Tensor = self.get_buffer("left")
        return self.scale * (left @ w @ self.get_buffer("right").T).flatten()[: self.size]


class Derived(Reparametrization):
    """A parameter and what a slice of P w makes of it. The first part of a model holds the subspace, the others refer to it."""

    def __init__(self, subspace: Subspace, begin: int, end: int, *, holds: bool) -> None:
        super().__init__()
        self.begin, self.end = begin, end
        if holds:
            self.subspace = subspace
        else:  # not registered: w would train and be saved once for each part
            self.__dict__["subspace"] = subspace

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.change(self.subspace()[self.begin : self.end])

    def change(self, numbers: Tensor) -> Tensor:
        raise NotImplementedError


class Shifted(Derived):
    """numbers, in the parameter's shape."""

    def __init__(self, subspace: Subspace, begin: int, shape: torch.Size, *, holds: bool) -> None:
        super().__init__(subspace, begin, begin + shape.numel(), holds=holds)
        self.shape = shape

    def change(self, numbers: Tensor) -> Tensor:
        return numbers.view(self.shape)


class LowRank(Derived):
    """(alpha / r) B (A_0 + A) with A (r, in) and B (out, r) from the numbers."""

    start: Tensor

    def __init__(
        self, subspace: Subspace, begin: int, start: Tensor, out: int, *, scale: float, transposed: bool, holds: bool
    ) -> None:
        super().__init__(subspace, begin, begin + start.numel() + out * len(start), holds=holds)
        self.register_buffer("start", start, persistent=False)
        self.scale, self.transposed = scale, transposed

    def change(self, numbers: Tensor) -> Tensor:
        a = self.start + numbers[: self.start.numel()].view_as(self.start)
        found = self.scale * numbers[self.start.numel() :].view(-1, len(self.start)) @ a
        return found.T if self.transposed else found


@register(
    "sub_lora",
    kind="selection",
    family="low-rank",
    papers=[
        Paper("Non-Vacuous Generalization Bounds for Large Language Models", "Lotfi et al.", 2024, arxiv="2312.17173")
    ],
)
class SubLoRA(Targeted):
    """SubLoRA: `d` numbers train, from which a random matrix makes all of LoRA and the head; they bound the error to come.

    theta = theta_0 + P w,  w (d,) 0 at the start;  h = W x + (alpha / r) B A x,  A (r, in), B (out, r) and the head in theta

    P (size of theta, d) is a Kronecker product of two random matrices with orthonormal columns, cut to theta's size; it and
    A's start are drawn before any data is seen, B and the head start at zero, whatever head the recipe names. P w changes
    theta's numbers about as much as w's change (P^T P = (size / d) I but for the cut). After the last step w is rounded to
    `levels` values (k-means, of 16 bits each), which arithmetic coding writes in M bits; K = M + 2 log2 M + 7. Then with probability 1 - delta,
    for examples drawn as the m training examples were, of which the share `e` is answered wrongly,

        error <= e + sqrt((K ln 2 + ln(1 / delta)) / 2m)

    which training ends by saying; `certificate_` holds it (see the analysis `compression_bound`). It speaks of data like
    the training data, not of shifted data, and of examples that are drawn independently.

    d: 1,000, at most as many as there are numbers to make; the authors' 50,000 serve nine million documents, and K must stay
    below 2m. r: 4, alpha: 32, levels: 11, the authors'; their dropout of x is not here, nor do they stop at k-means: they train the levels. target_modules, layers:
    as in `lora`, but by default the queries and values, or all where none go by that name. Raises RecipeError for unknown
    targets and for a model without enough layers. Reference: Lotfi et al. 2024;
    Sanaelotfi/sublora-bounds-for-llms.

    >>> SubLoRA(d=500, layers=2)
    SubLoRA(d=500, r=4, alpha=32.0, levels=11, target_modules=None, layers=2)
    """

    called = "SubLoRA"
    starts_there = False
    reads_labels = True

    def __init__(
        self,
        *,
        d: int = 1000,
        r: int = 4,
        alpha: float = 32.0,
        levels: int = 11,
        target_modules: Sequence[str] | None = None,
        layers: int | None = None,
    ) -> None:
        super().__init__(target_modules=target_modules, layers=layers)
        self.d = whole("d", d, least=2)
        self.r = whole("r", r, least=1)
        self.alpha = positive("alpha", alpha)
        self.levels = whole("levels", levels, least=2)

    def preferred(self, model: Model, found: list[str]) -> list[str]:
        some = [
            name
            for name in found
            if name.rpartition(".")[2] in ("query", "value", "q_proj", "v_proj", "q_lin", "v_lin")
        ]
        return some or found

    def apply(self, model: Model) -> None:
        check_plain(model, self.called)
        matrices = {f"{name}.weight": model.get_submodule(name) for name in self.targets(model)}
        heads = {name: model.get_parameter(name) for name in head_names(model)}
        sides = {name: rows(module).shape for name, module in matrices.items()}  # (out, in)
        size = sum(self.r * sum(each) for each in sides.values()) + sum(each.numel() for each in heads.values())
        subspace, begin = Subspace(min(self.d, size), size).to(model.device), 0
        parts: dict[str, Derived] = {}
        draw = torch.Generator().manual_seed(KNOWN)
        for name, module in matrices.items():
            out, wide = sides[name]
            start = torch.empty(self.r, wide).uniform_(-1, 1, generator=draw) / math.sqrt(wide)  # as LoRA's A starts
            parts[name] = LowRank(
                subspace,
                begin,
                start.to(model.device),
                out,
                scale=self.alpha / self.r,
                transposed=not isinstance(module, nn.Linear),
                holds=not parts,
            )
            begin = parts[name].end
        for name, parameter in heads.items():
            nn.init.zeros_(parameter)
            parts[name] = Shifted(subspace, begin, parameter.shape, holds=False)
            begin = parts[name].end
        reparametrize(model, parts)
        train_only(model, [name for name, each in model.named_parameters() if each is subspace.w])

    def after_step(self, model: Model, *, step: int, steps: int) -> None:
        if step == steps:
            self._round(next(each for each in model.modules() if isinstance(each, Subspace)))

    @torch.no_grad()
    def _round(self, subspace: Subspace) -> None:
        from sklearn.cluster import KMeans

        numbers = subspace.w.detach().cpu().double()[:, None].numpy()
        levels = min(self.levels, len(set(numbers[:, 0].tolist())))
        start = torch.linspace(0, 1, levels + 2, dtype=torch.float64)[1:-1]
        first = torch.from_numpy(numbers[:, 0]).quantile(start)[:, None].numpy()
        found = KMeans(levels, init=first, n_init=1).fit(numbers)
        values = torch.from_numpy(found.cluster_centers_[:, 0]).to(torch.float16)  # as the message holds them
        symbols = torch.from_numpy(found.labels_).long()
        subspace.w.copy_(values[symbols].to(subspace.w))

    def finish(self, model: Model) -> None:
        from surefoot.assess.analyses.compression_bound import message_bits

        for subspace in (each for each in model.modules() if isinstance(each, Subspace)):
            # Read off the numbers, so that a training which was killed after its last step has it too.
            self.message_ = message_bits(torch.unique(subspace.w.detach().cpu(), return_inverse=True)[1].numpy())
        fold(model, Derived)

    @torch.no_grad()
    def conclude(self, model: Model, training: Training) -> list[str]:
        """Answers the training examples once more and says what follows of their error."""
        from surefoot.assess.analyses.compression_bound import CompressionBound

        wrong = count = 0
        with autocast(resolve(model.precision, model.device), model.device)():
            for batch in training.batches(training.examples, size=64):
                wrong += int((model(batch).logits.argmax(-1) != batch.labels).sum())
                count += len(batch.labels)
        bound = CompressionBound()
        self.certificate_: Bound = bound.of_errors(
            wrong=wrong, examples=count, classes=len(model.classes), message=self.message_
        )
        said = (
            f"certificate: on data drawn like the {count:,} training examples the error is at most {100 * self.certificate_.bound:.1f}%"
            f" with probability {100 * (1 - bound.delta):g}% ({100 * self.certificate_.empirical:.1f}% in training, which {self.message_:,.0f} bits write down)"
        )
        if self.certificate_.vacuous:
            said += "; guessing is no worse: train on more examples, or choose a smaller `d` or fewer `levels`"
        return [said]

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"d": Space(100, 10_000, log=True, integer=True)}
