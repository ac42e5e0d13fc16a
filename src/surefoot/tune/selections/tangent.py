"""The tangent space: a model trained and run as its linearisation around the pretrained weights."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from surefoot.errors import RecipeError
from surefoot.models.additions import Addition, inside
from surefoot.registry import Paper, register
from surefoot.tune.selections import head_names, top_names, whole
from surefoot.tune.selections.kept import Kept

if TYPE_CHECKING:
    from surefoot.models.model import Model

PAPER = Paper(
    "Task Arithmetic in the Tangent Space: Improved Editing of Pre-Trained Models",
    "Ortiz-Jimenez, Favero and Frossard",
    2023,
    arxiv="2305.12827",
)
#: Layers of torch that are linear in their parameters: what they give with tau in place of w is the derivative along tau.
LINEAR = (
    *(nn.Linear, nn.Embedding, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, _BatchNorm),
)


class Pushforward(Addition):
    """On the backbone: runs it on dual numbers, h + eps dh, and gives h + dh for every output."""

    def __init__(self) -> None:
        super().__init__()
        self._stack: ExitStack | None = None
        self._modes: list[tuple[nn.Module, bool]] = []

    def forward(self, x: Any) -> Any:
        """Nothing: a backbone that is an `nn.Sequential` calls whatever is registered under it."""
        return x

    def begin(self, module: nn.Module, args: Any) -> None:
        """Hook before the pass: f is the network without dropout, with fixed statistics."""
        self.close()
        self._modes = [(each, each.training) for each in module.modules()]
        module.eval()

    def open(self) -> None:
        """At the first layer with a tangent, not before: passes that end below it leave nothing open."""
        if self._stack is not None:
            return
        self._stack = ExitStack()
        if torch.is_inference_mode_enabled():  # where torch makes no dual numbers
            self._stack.enter_context(torch.inference_mode(False))
            self._stack.enter_context(torch.no_grad())
        self._stack.enter_context(forward_ad.dual_level())
        self._stack.enter_context(sdpa_kernel(SDPBackend.MATH))  # the fused ones have no forward derivative

    def end(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Hook after the pass, also where it failed."""
        found = joined(output)
        self.close()
        for each, mode in self._modes:
            each.training = mode
        self._modes = []
        return found

    def close(self) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()


class Tangent(Addition):
    """tau of one layer's parameters, under their names: adds the derivative along it to the layer's dual output."""

    def __init__(self, layer: nn.Module, pushforward: Pushforward) -> None:
        super().__init__()
        for name, value in layer.named_parameters(recurse=False):
            self.register_parameter(name, nn.Parameter(torch.zeros_like(value, requires_grad=False)))
        # Not a part of this one: registered, it would be saved with every layer.
        self.__dict__["pushforward"] = pushforward
        self._inside = False

    def after(self, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Any:
        """Hook on the layer."""
        pushforward: Pushforward = self.__dict__["pushforward"]
        if self._inside or not pushforward._modes:  # a layer that is called by itself, not in a pass of the backbone
            return output
        pushforward.open()
        x = forward_ad.unpack_dual(args[0]).primal  # type: ignore[no-untyped-call]
        self._inside = True
        try:
            along = functional_call(layer, dict(self.named_parameters()), (x,))
            if not isinstance(layer, LINEAR):  # a norm whose factor is 1 + w is affine in w
                zero = {name: torch.zeros_like(value) for name, value in self.named_parameters()}
                along = along - functional_call(layer, zero, (x,))
        finally:
            self._inside = False
        primal, tangent = forward_ad.unpack_dual(output)  # type: ignore[no-untyped-call]
        along = along.to(primal.dtype)
        if tangent is not None:  # of a norm in bfloat16 with weights in float32 torch gives it in float32
            along = along + tangent.to(primal.dtype)
        return forward_ad.make_dual(primal, along)  # type: ignore[no-untyped-call]


def joined(value: Any) -> Any:
    """Primal and tangent added up, in a tensor or whatever holds tensors."""
    if isinstance(value, Tensor):
        primal, tangent = forward_ad.unpack_dual(value)  # type: ignore[no-untyped-call]
        return value if tangent is None else primal + tangent
    if isinstance(value, dict):
        for name, each in value.items():
            value[name] = joined(each)
        return value
    return tuple(joined(each) for each in value) if type(value) is tuple else value


def is_affine(layer: nn.Module) -> bool:
    """Whether it is known to be affine in its parameters."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(layer, (*LINEAR, Conv1D)) or type(layer).__name__.endswith("RMSNorm")


@register("tangent", kind="selection", family="linearised", papers=[PAPER])
class TangentSpace(Kept):
    """The backbone is its linearisation in the weights, f_lin(x; tau) = f(x; w_0) + J(x; w_0) tau, and tau trains.

    J(x; w_0) tau: the derivative of the last states (B, T, D) along tau, by one pass of forward-mode differentiation
    beside the plain one; w_0 stays, dropout is off and norms keep their statistics, as in the authors' code; tau starts
    at zero, which is the pretrained model. What f_lin gives is linear in tau, so that sums of task vectors add up the
    tasks' changes exactly: merge such models with `tangent_task_arithmetic`. The head trains as ever.

    layers: only the so many top blocks have a tau, and those below are cached as in `top_layers`; None for everything,
    the paper's. Weights of linear, convolutional, embedding and norm layers take part; those that a model holds beside
    such layers (a class token) stay. Pooling by `max` and features of unit length are no longer linear.
    The tangents stay in the model (see `surefoot.models.additions`), as many numbers again as weights that train; a pass
    costs two to three. Raises RecipeError where no layer takes part or the model has fewer than `layers`.
    Reference: Ortiz-Jimenez, Favero and Frossard 2023, gortizji/tangent_task_arithmetic.

    >>> TangentSpace(layers=2)
    TangentSpace(layers=2)
    """

    # torch has no gradient through the inputs of a pass on dual numbers.
    withholds = frozenset({"inputs", "attentions"})

    called = "tangent"
    title = "the tangent space"

    def __init__(self, *, layers: int | None = None) -> None:
        self.layers = None if layers is None else whole("layers", layers, least=1)

    def attach(self, model: Model) -> None:
        names = [name for name, _ in model.named_parameters()] if self.layers is None else top_names(model, self.layers)
        chosen = set(names) - set(head_names(model)) - set(model.unreached) - inside(model, names)
        owners = dict.fromkeys(name.rpartition(".")[0] for name in names if name in chosen)
        layers = [layer for layer in map(model.get_submodule, owners) if is_affine(layer)]
        if not layers:
            raise RecipeError(
                f"the tangent space of `{model.name}` is that of linear, convolutional, embedding or norm layers, and it has none: choose `head`"
            )
        root = Pushforward()
        for layer in layers:
            part = Tangent(layer, root).train(layer.training)
            layer.add_module("tangent", part)
            layer.register_forward_hook(part.after)
        model.backbone.add_module("linearised", root)
        model.backbone.register_forward_pre_hook(root.begin)
        model.backbone.register_forward_hook(root.end, always_call=True)
