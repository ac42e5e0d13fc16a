"""LoFiT: offsets at the outputs of the few attention heads that matter to a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from surefoot.errors import RecipeError
from surefoot.models.additions import Addition
from surefoot.registry import Paper, register
from surefoot.tune.objective import Space, fraction, positive
from surefoot.tune.selection import Selection, Training
from surefoot.tune.selections import head_names, train_only
from surefoot.tune.selections.kept import Kept
from surefoot.tune.selections.reparametrized import Reparametrization, fold, reparametrize
from surefoot.tune.selections.sites import Outputs, all_outputs

if TYPE_CHECKING:
    from surefoot.models.model import Model

#: Deviation of the scales at the start, the authors'.
DEVIATION = 1e-3


class Offsets(Addition):
    """z_h <- z_h + v_h on the input of a layer's output projection, for the heads `which`; v (heads, size), 0 at first."""

    which: Tensor

    def __init__(self, which: Sequence[int], size: int) -> None:
        super().__init__()
        self.register_buffer("which", torch.tensor(list(which)), persistent=False)
        self.offsets = nn.Parameter(torch.zeros(len(which), size))

    def before(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Hook on the output projection, whose input holds the heads one after another."""
        z = args[0]
        size = self.offsets.shape[1]
        moved = z.new_zeros(z.shape[-1] // size, size).index_copy(0, self.which, self.offsets.to(z.dtype))
        return (z + moved.flatten(), *args[1:])


class Amplified(Reparametrization):
    """W_o diag(1 + A): scales A (in,) of the output projection's inputs, with an L1 penalty in their gradient."""

    def __init__(self, weight: Tensor, *, l1: float, transposed: bool = False) -> None:
        super().__init__()
        self.transposed = transposed
        width = weight.shape[0 if transposed else 1]
        self.scales = nn.Parameter(torch.randn(width, device=weight.device) * DEVIATION)
        if l1:
            self.scales.register_hook(lambda gradient: gradient + l1 * self.scales.detach().sign())  # type: ignore[no-untyped-call]

    def forward(self, weight: Tensor) -> Tensor:
        return weight * ((1 + self.scales[:, None]) if self.transposed else (1 + self.scales))


class _Rehearsed(Selection):
    """The first stage: a scale for every number that a head puts out trains, and what is kept are the heads' norms."""

    wraps = True

    def __init__(self, heads: dict[str, Outputs], *, l1: float) -> None:
        self.heads, self.l1 = heads, l1
        self.norms_: list[tuple[float, int, int]] = []

    def apply(self, model: Model) -> None:
        train_only(model, head_names(model))
        parts: dict[str, Reparametrization] = {}
        for each in self.heads.values():
            module = model.get_submodule(each.output)
            transposed = not isinstance(module, nn.Linear)  # GPT-2's Conv1D
            parts[f"{each.output}.weight"] = Amplified(
                module.get_parameter("weight"), l1=self.l1, transposed=transposed
            )
        reparametrize(model, parts)

    def finish(self, model: Model) -> None:
        for layer, each in enumerate(self.heads.values()):
            lists: Any = model.get_submodule(each.output).parametrizations
            scales = lists["weight"][0].scales.detach().view(each.count, each.size)
            self.norms_ += [(float(norm), layer, head) for head, norm in enumerate(scales.norm(dim=1))]
        fold(model, Amplified)


@register(
    "lofit",
    kind="selection",
    family="sparse",
    papers=[Paper("LoFiT: Localized Fine-tuning on LLM Representations", "Yin et al.", 2024, arxiv="2406.01563")],
)
class LoFiT(Kept):
    """A vector is added to the output of a few attention heads; which heads, a training before says. And the head trains.

    1. z_h <- (1 + A_h) z_h for every head, A_h ~ N(0, 1e-3) (size,), trains with `l1` ||A||_1 added to the loss; the heads
    with the largest ||A_h||_2 are kept, A is thrown away;  2. z_h <- z_h + v_h for those, v_h (size,) trains

    z_h (T, size): the output of head h before the output projection. Both trainings are the recipe's: twice the time of
    one. v_h starts at 0, the pretrained model; the authors draw it from N(0, 1e-3). The L1 term enters by its gradient.

    share: of all heads, 0.1, the authors' code's; the paper uses 3 to 10 %; one head at the least. l1: 1e-3, theirs are
    5e-4 to 1e-3. heads: pairs [layer, head] counted from 0, in place of the first stage. The authors train with learning
    rates of 5e-3 (A) and 1e-2 (v).
    The offsets stay in the model (see `surefoot.models.additions`). Raises RecipeError for models without attention heads
    in blocks, or for heads that the model does not have. Reference: Yin et al. 2024.

    >>> LoFiT(share=0.03)
    LoFiT(share=0.03, l1=0.001, heads=None)
    """

    called = "lofit"
    title = "LoFiT"

    def __init__(self, *, share: float = 0.1, l1: float = 1e-3, heads: Sequence[Sequence[int]] | None = None) -> None:
        self.share = fraction("share", positive("share", share), one=True)
        self.l1 = positive("l1", l1, zero=True)
        pairs = heads is None or (
            isinstance(heads, Sequence)
            and len(heads) > 0
            and all(isinstance(p, Sequence) and len(p) == 2 for p in heads)
        )
        if not pairs:
            raise RecipeError(f"`heads` is {heads}: it must be a list of pairs [layer, head], or absent")
        self.heads = None if heads is None else [[int(layer), int(head)] for layer, head in heads]
        self.heads_ = self.heads

    @property
    def spec(self) -> dict[str, Any]:
        return super().spec | {"heads": self.heads_}

    def setup(self, model: Model, training: Training) -> None:
        if model.additions and model.additions[0]["name"] == self.called:
            self.heads_ = self.heads or model.additions[0]["heads"]
            return
        if self.heads is not None:
            return
        found = all_outputs(model, asking=self.title)
        first = _Rehearsed(found, l1=self.l1)
        training.rehearse(first)
        total = sum(each.count for each in found.values())
        best = sorted(first.norms_, key=lambda each: -each[0])[: max(1, round(self.share * total))]
        self.heads_ = sorted([layer, head] for _, layer, head in best)

    def attach(self, model: Model) -> None:
        if self.heads_ is None:
            raise RecipeError("LoFiT chooses by data: call `setup` before `apply`, or name the `heads`")
        found = list(all_outputs(model, asking=self.title).values())
        for layer, head in self.heads_:
            if not (0 <= layer < len(found) and 0 <= head < found[layer].count):
                raise RecipeError(
                    f"there is no head {head} in layer {layer}: the model has {len(found)} layers of {found[0].count} heads, counted from 0"
                )
        for layer, each in enumerate(found):
            which = sorted({head for row, head in self.heads_ if row == layer})
            if which:
                module = model.get_submodule(each.output)
                part = Offsets(which, each.size).to(module.get_parameter("weight").device).train(module.training)
                module.add_module("offsets", part)
                module.register_forward_pre_hook(part.before)

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"share": Space(0.02, 0.5, log=True), "l1": Space(1e-4, 1e-2, log=True)}
