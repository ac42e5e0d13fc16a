"""Adapters of every design of the unified view: what is added, where, beside or after, and by how much."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from surefoot.models.additions import Addition
from surefoot.registry import Paper, register
from surefoot.tune.objective import Space, fraction, one_of, positive
from surefoot.tune.selections import whole
from surefoot.tune.selections.kept import Kept
from surefoot.tune.selections.sites import Site, inputs, outputs, site

if TYPE_CHECKING:
    from surefoot.models.model import Model

UNIFIED = Paper(
    "Towards a Unified View of Parameter-Efficient Transfer Learning", "He et al.", 2022, arxiv="2110.04366"
)
HOULSBY = Paper("Parameter-Efficient Transfer Learning for NLP", "Houlsby et al.", 2019, arxiv="1902.00751")


class Bottleneck(Addition):
    """dh = scale * W_up f(W_down x): (..., d_in) to (..., d_out), zero at the start. f: ReLU, or nothing if `linear`."""

    def __init__(
        self, d_in: int, d_out: int, width: int, *, scale: float = 1.0, dropout: float = 0.0, linear: bool = False
    ) -> None:
        super().__init__()
        self.scale = scale
        self.down = nn.Linear(d_in, width, bias=not linear)
        self.up = nn.Linear(width, d_out, bias=not linear)
        self.activation = nn.Identity() if linear else nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)
        for layer in (self.down, self.up):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        self._seen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.up(self.dropout(self.activation(self.down(x))))
        return self.scale * added

    def after(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        """Hook on the layer whose output it changes: h + dh(h)."""
        added: Tensor = self(output)
        return output + added.to(output.dtype)

    def see(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Hook on the layer whose input it reads."""
        self._seen = args[0]

    def beside(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        """Hook on the layer whose output it changes: h + dh(x)."""
        seen, self._seen = self._seen, None
        added: Tensor = self(seen)
        return output + added.to(output.dtype)


def insert(
    model: Model, where: Site, *, parallel: bool, width: int, scale: float, dropout: float = 0.0, linear: bool = False
) -> Bottleneck:
    """Put a bottleneck beside the sub-layer, or after it."""
    first, last = model.get_submodule(where.first), model.get_submodule(where.last)
    d_out = outputs(last)
    part = Bottleneck(inputs(first) if parallel else d_out, d_out, width, scale=scale, dropout=dropout, linear=linear)
    part = part.to(last.get_parameter("weight").device).train(last.training)
    last.add_module("adapter", part)
    if parallel:
        first.register_forward_pre_hook(part.see)
        last.register_forward_hook(part.beside)
    else:
        last.register_forward_hook(part.after)
    return part


@register("adapter", kind="selection", family="adapter", papers=[UNIFIED, HOULSBY])
class Adapter(Kept):
    """A small net beside each sub-layer, or after it, trains, and the head; the pretrained weights stay.

    h <- h + s W_up f(W_down x + b_down) + s b_up;  x the sub-layer's input if `parallel`, its output h if `sequential`

    W_down (width, d) drawn at random, W_up (d, width) zero, so that training starts from the pretrained model; s: scale.
    form: `bottleneck`, f = ReLU; `low_rank`, f the identity and no biases: LoRA's form at these places. Prefixes, the
    third form, are `prefix_tuning`, and both together `mam`.
    insertion: `parallel`, the paper's choice; `sequential`, Houlsby's, before the sub-layer's dropout and residual.
    site: `feed_forward` (the paper's choice), `attention` or `both`. width: 64, Houlsby's. scale: 4, the paper's.
    dropout: of the inner numbers, 0. layers: only the so many top blocks; None for all.

    The parts stay in the model (see `surefoot.models.additions`). Raises RecipeError for a model without transformer
    blocks or with fewer than `layers`, or for options out of range. Reference: He et al. 2022; Houlsby et al. 2019.

    >>> Adapter(width=16, insertion="sequential", site="both", scale=1.0)
    Adapter(form='bottleneck', insertion='sequential', site='both', width=16, scale=1.0, dropout=0.0, layers=None)
    """

    called = "adapter"
    title = "an adapter"

    def __init__(
        self,
        *,
        form: str = "bottleneck",
        insertion: str = "parallel",
        site: str = "feed_forward",
        width: int = 64,
        scale: float = 4.0,
        dropout: float = 0.0,
        layers: int | None = None,
    ) -> None:
        self.form = one_of("form", form, ["bottleneck", "low_rank"])
        self.insertion = one_of("insertion", insertion, ["parallel", "sequential"])
        self.site = one_of("site", site, ["attention", "feed_forward", "both"])
        self.width = whole("width", width, least=1)
        self.scale = positive("scale", scale)
        self.dropout = fraction("dropout", dropout)
        self.layers = None if layers is None else whole("layers", layers, least=1)

    def attach(self, model: Model) -> None:
        places = ("attention", "feed_forward") if self.site == "both" else (self.site,)
        found = [site(model, block, each) for block in self.blocks(model, self.layers) for each in places]  # type: ignore[arg-type]
        for each in found:
            insert(
                model,
                each,
                parallel=self.insertion == "parallel",
                width=self.width,
                scale=self.scale,
                dropout=self.dropout,
                linear=self.form == "low_rank",
            )

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"width": Space(4, 256, log=True, integer=True), "scale": Space(0.5, 8.0, log=True)}
