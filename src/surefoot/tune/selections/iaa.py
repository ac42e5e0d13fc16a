"""IAA: adapters inside the layers, joined by a narrow chain alongside them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from surefoot.models.additions import Addition
from surefoot.registry import Paper, register
from surefoot.tune.objective import Space
from surefoot.tune.selections import whole
from surefoot.tune.selections.adapter import insert
from surefoot.tune.selections.kept import Kept
from surefoot.tune.selections.sites import site

if TYPE_CHECKING:
    from surefoot.models.model import Model


class Link(Addition):
    """One link of the chain: c = c' + ReLU(A h + B c' + b), (B, T, width); the last one adds U c to the layer's output."""

    spans = True

    def __init__(self, d: int, width: int, *, previous: Link | None, last: bool) -> None:
        super().__init__()
        self.across = nn.Linear(d, width)
        nn.init.kaiming_uniform_(self.across.weight, a=math.sqrt(5))
        nn.init.zeros_(self.across.bias)
        self.along = nn.Linear(width, width, bias=False) if previous is not None else None
        self.out = nn.Linear(width, d) if last else None
        if self.along is not None:
            nn.init.kaiming_uniform_(self.along.weight, a=math.sqrt(5))
        if self.out is not None:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)
        # Not a part of this one: registered, it would be saved twice.
        self.__dict__["previous"] = previous
        self._state: Tensor | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        """The chain's state after this layer, whose output is `hidden` (B, T, d)."""
        new: Tensor = self.across(hidden)
        previous: Link | None = self.__dict__["previous"]
        before = None
        if previous is not None:
            before, previous._state = previous._state, None
        # A copy of a block that is run by itself, as in the decoder of SimLM, begins a chain of its own.
        if before is None or self.along is None:
            return new.relu()
        along: Tensor = self.along(before)
        return before + (new + along).relu()

    def hook(self, module: nn.Module, args: Any, output: Any) -> Any:
        """On the block."""
        hidden = output[0] if isinstance(output, tuple) else output
        state = self(hidden)
        if self.out is None:
            self._state = state
            return output
        changed = hidden + self.out(state).to(hidden.dtype)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed


@register(
    "iaa",
    kind="selection",
    family="adapter",
    papers=[
        Paper(
            "Scattered or Connected? An Optimized Parameter-efficient Tuning Approach for Information Retrieval",
            "Ma et al.",
            2022,
            arxiv="2208.09847",
        )
    ],
)
class IAA(Kept):
    """Adapters inside the layers, and a narrow net alongside them that makes one path of what would lie scattered.

    inside:     h <- h + W_up ReLU(W_down h + b_down) + b_up,  after the feed-forward layers of each block
    alongside:  c_l = c_(l-1) + ReLU(A_l h_l + B_l c_(l-1) + b_l),  c_0 = 0,  and at the top  h_L <- h_L + U c_L + u

    h_l (T, d) the output of block l, c_l (T, aside), A (aside, d), B (aside, aside), U (d, aside); W_up and U are zero at
    the start, which is the pretrained model. All of it trains, and the head. The paper says that bottlenecks alongside
    the model connect the inserted modules, smooth the loss and speed training up; how they are wired is not in its
    abstract, and the recursion above is this library's reading of it.

    width: of the inner adapters, 16; aside: of the chain, 16: together 0.5 % of MiniLM, under the paper's 1 %.
    layers: only the so many top blocks; None for all.
    The parts stay in the model (see `surefoot.models.additions`). Raises RecipeError for a model without transformer
    blocks or with fewer than `layers`. Reference: Ma et al. 2022.

    >>> IAA(aside=32)
    IAA(width=16, aside=32, layers=None)
    """

    called = "iaa"
    title = "IAA"

    def __init__(self, *, width: int = 16, aside: int = 16, layers: int | None = None) -> None:
        self.width = whole("width", width, least=1)
        self.aside = whole("aside", aside, least=1)
        self.layers = None if layers is None else whole("layers", layers, least=1)

    def attach(self, model: Model) -> None:
        blocks = self.blocks(model, self.layers)
        for where in [site(model, block, "feed_forward") for block in blocks]:
            insert(model, where, parallel=False, width=self.width, scale=1.0)
        previous: Link | None = None
        for block in blocks:
            module = model.get_submodule(block)
            link = Link(model.dim, self.aside, previous=previous, last=block == blocks[-1])
            module.add_module("alongside", link.to(model.device).train(module.training))
            module.register_forward_hook(link.hook)
            previous = link

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"width": Space(4, 64, log=True, integer=True), "aside": Space(4, 64, log=True, integer=True)}
