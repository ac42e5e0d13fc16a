"""Early dropout: dropout in the first part of the training alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import Space, fraction, one_of
from surefoot.tune.selection import Selection
from surefoot.tune.selections import linear_layers, top_names, train_only, whole

if TYPE_CHECKING:
    from surefoot.models.model import Model

PAPER = Paper("Dropout Reduces Underfitting", "Liu et al.", 2023, arxiv="2303.01500")


class InputDropout:
    """A hook that drops out what a layer reads, where a model has no dropout of its own."""

    def __init__(self) -> None:
        self.p = 0.0

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not self.p or not module.training:
            return None
        read: Tensor = args[0]
        return F.dropout(read, self.p), *args[1:]


class ScheduledDropout(Selection):
    """The backbone's dropout follows the training; a subclass says by `rate`."""

    def __init__(self, *, layers: int | None) -> None:
        self.layers = None if layers is None else whole("layers", layers, least=1)
        #: dropout modules and the rates that they had; layers whose input is dropped out
        self.own_: dict[str, float] = {}
        self.hooked_: list[str] = []

    def rate(self, step: int, steps: int) -> float:
        """The rate of step 0, 1, ..., steps - 1."""
        raise NotImplementedError

    def apply(self, model: Model) -> None:
        names = [name for name, _ in model.named_parameters()]
        train_only(model, names if self.layers is None else top_names(model, self.layers))
        self.own_ = {name: each.p for name, each in model.named_modules() if isinstance(each, nn.Dropout)}
        if self.own_:
            return
        _, *others = [*linear_layers(model, ["backbone"]), "head"]
        self.hooked_ = others
        for name in self.hooked_:
            model.get_submodule(name).register_forward_pre_hook(InputDropout())

    def before_step(self, model: Model, *, step: int, steps: int) -> None:
        rate = self.rate(step, steps)
        for name in self.own_:
            model.get_submodule(name).p = rate  # type: ignore[assignment]
        for name in self.hooked_:
            for hook in model.get_submodule(name)._forward_pre_hooks.values():
                if isinstance(hook, InputDropout):
                    hook.p = rate

    def finish(self, model: Model) -> None:
        for name, rate in self.own_.items():
            model.get_submodule(name).p = rate  # type: ignore[assignment]
        for name in self.hooked_:
            hooks = model.get_submodule(name)._forward_pre_hooks
            for key in [key for key, hook in hooks.items() if isinstance(hook, InputDropout)]:
                del hooks[key]


@register("early_dropout", kind="selection", family="regularised", papers=[PAPER])
class EarlyDropout(ScheduledDropout):
    """Dropout at first and none later, for models that underfit: its noise brings batches' gradients into line.

    p_t = p (1 - t / (n - 1)) in step t < n = until * steps (or p, where `decay` is `constant`), and 0 after that.

    It sets the rate of every dropout module of the backbone, whose own rates return after training; in a model without
    any, the input of each linear layer but the first is dropped out, of the head too. Dropout within fused attention
    follows where the architecture keeps it in a module (BERT does). The paper's other form, stochastic depth, is not
    here. Frozen layers run in eval mode, without any dropout.

    p: 0.1, the paper's for ViT-T; 0 is training without dropout. until: a fraction of the training, 1/6, the paper's 50
    of 300 epochs. decay: `linear` or `constant`. layers: only the so many top blocks train, as in `top_layers`; None
    for everything. Raises RecipeError for other values. Reference: Liu et al. 2023; facebookresearch/dropout.

    >>> [round(EarlyDropout(p=0.2, until=0.5).rate(step, 6), 2) for step in range(6)]
    [0.2, 0.1, 0.0, 0.0, 0.0, 0.0]
    """

    def __init__(
        self, *, p: float = 0.1, until: float = 1 / 6, decay: str = "linear", layers: int | None = None
    ) -> None:
        super().__init__(layers=layers)
        self.p = fraction("p", p)
        self.until = fraction("until", until, one=True)
        if not self.until:
            raise RecipeError("`until` is 0: early dropout would never begin; set p: 0 for none")
        self.decay = one_of("decay", decay, ["linear", "constant"])

    def rate(self, step: int, steps: int) -> float:
        count = round(self.until * steps)
        if step >= count:
            return 0.0
        return self.p * (1 - step / max(count - 1, 1)) if self.decay == "linear" else self.p

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"p": Space(0.02, 0.5, log=True), "until": Space(0.05, 0.5)}

    def __repr__(self) -> str:
        return f"EarlyDropout(p={self.p}, until={self.until:.3g}, decay='{self.decay}', layers={self.layers})"
