"""MAM: prefixes at attention, scaled parallel adapters at the feed-forward layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from surefoot.registry import register
from surefoot.tune.objective import Space, positive
from surefoot.tune.selections import whole
from surefoot.tune.selections.adapter import UNIFIED, insert
from surefoot.tune.selections.kept import Kept
from surefoot.tune.selections.prefix_tuning import collapse, prepend
from surefoot.tune.selections.sites import site

if TYPE_CHECKING:
    from surefoot.models.model import Model


@register("mam", kind="selection", family="adapter", papers=[UNIFIED])
class MAM(Kept):
    """The mix-and-match adapter: short prefixes at attention, parallel adapters with a scale at the feed-forward layers.

    head_i = softmax(Q_i [P_K,i ; K_i]^T / sqrt(d)) [P_V,i ; V_i],  h <- h + s W_up ReLU(W_down x + b_down) + s b_up

    of `prefix_tuning` and of `adapter`, whose words these are: x the feed-forward layers' input and h their output, W_up
    zero at the start. All of it trains, and the head.
    length: of the prefixes, 30; width: of the adapters, 512; scale: s, 4; prefix_width: of the net that makes the
    prefixes in training, 800: the paper's for summarisation. For 0.5 % of the weights, as on GLUE, it takes length 16,
    width 16 and scale 2. layers: only the so many top blocks; None for all.

    The parts stay in the model (see `surefoot.models.additions`). Raises RecipeError where `prefix_tuning` or `adapter`
    does. Reference: He et al. 2022.

    >>> MAM(length=16, width=16, scale=2.0)
    MAM(length=16, width=16, scale=2.0, prefix_width=800, layers=None)
    """

    called = "mam"
    title = "MAM"
    starts_there = False

    def __init__(
        self,
        *,
        length: int = 30,
        width: int = 512,
        scale: float = 4.0,
        prefix_width: int | None = 800,
        layers: int | None = None,
    ) -> None:
        self.length = whole("length", length, least=1)
        self.width = whole("width", width, least=1)
        self.scale = positive("scale", scale)
        self.prefix_width = None if prefix_width is None else whole("prefix_width", prefix_width, least=1)
        self.layers = None if layers is None else whole("layers", layers, least=1)

    def attach(self, model: Model) -> None:
        blocks = self.blocks(model, self.layers)
        places = [site(model, block, "feed_forward") for block in blocks]
        prepend(model, blocks, length=self.length, width=self.prefix_width, asking=self.title)
        for each in places:
            insert(model, each, parallel=True, width=self.width, scale=self.scale)

    def collapse(self, model: Model) -> None:
        collapse(model)

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {
            "length": Space(4, 64, log=True, integer=True),
            "width": Space(8, 512, log=True, integer=True),
            "scale": Space(0.5, 8.0, log=True),
        }
