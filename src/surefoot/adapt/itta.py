"""ITTA: layers that begin as nothing, moved by a consistency that was taught to serve the labels."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from surefoot.adapt.adapter import TestTimeAdapter, batch_of
from surefoot.errors import ModelError
from surefoot.registry import register
from surefoot.tune.objective import positive
from surefoot.tune.objectives.learnable_consistency import (
    PAPER,
    consistency,
    identity,
    misalignment,
    mix_style,
    on_states,
    stacked,
    stages,
)
from surefoot.tune.selections import whole
from surefoot.tune.step import Batch, Output

#: Home examples a step of w's training.
SIZE = 32


@register("itta", kind="test_time_adapter", family="consistency", papers=[PAPER])
class ITTA(TestTimeAdapter):
    """New elementwise layers after every block, x <- w_k x + b_k, `depth` of them, take one step of Adam a batch down L_c.

    L_c = mean_d f_w(z' - z)_d^2, z' the features of the batch in mixed styles (MixStyle after the first or the second
    block), f_w as in the objective `learnable_consistency`; everything else stays. The answer is that of the
    pass after the step, in the inputs' own style. The layers have one weight for each place of an image's map and ReLU
    between where the map is not negative, the authors'; one for each channel of token states, without ReLU, which would
    cut half of them off: the identity at the start in both cases.

    f_w is learned before the stream from home examples, the model being frozen: `steps` steps of Adam, of 32 examples
    and at a rate of 5e-4, down the distance of the gradients of L_c and of the cross-entropies. The authors learn it while
    they train the network with L_c; train with `learnable_consistency` for that, f_w is then learned anew here.

    lr: 5e-6, a tenth of the training's, as theirs. weight: of L_c; 0.1, theirs for DomainNet; their 1e-6 for smaller sets
    leaves next to nothing of a step of Adam. steps: 50, ours. depth: 5, theirs.
    Gives logits (B, C). Raises RecipeError for options out of range, DataError without labelled home examples, ModelError
    for a model without blocks or convolutions. Reference: Chen et al. 2023, liangchen527/ITTA.
    """

    home = "required"
    still: ClassVar[dict[str, Any]] = {"lr": 0.0}
    w: Tensor

    def __init__(self, *, lr: float = 5e-6, weight: float = 0.1, steps: int = 50, depth: int = 5) -> None:
        self.lr, self.weight = positive("lr", lr, zero=True), positive("weight", weight)
        self.steps, self.depth = whole("steps", steps), whole("depth", depth, least=1)

    def begin(self, *args: Any, **options: Any) -> Any:
        vars(self).pop("w", None)
        return super().begin(*args, **options)

    def prepare(self) -> None:
        places = stages(self.model)
        if not places:
            raise ModelError(
                f"`{self.name}` finds nothing to adapt: `{self.model.name}` has no blocks and no convolutions; t3a, lame and label_shift need none"
            )
        if "w" not in vars(self):
            self.w = self._learned() if self.lr else identity(self.model.dim)
        self.layers: dict[int, _Layers] = {}
        self.optimizer: torch.optim.Optimizer | None = None
        self._batch: Batch | None = None
        self._mixed: int | None = None
        if self.lr:
            for number, place in enumerate(places):
                place.register_forward_hook(self._hook(number))

    def _learned(self) -> Tensor:
        """f_w's weights (2, 10, D) after `steps` batches from home."""
        assert self.known is not None
        w = identity(self.model.dim, self.model.device)
        generator = torch.Generator().manual_seed(self.seed)  # its own, so that after `reset` the stream's is the same
        optimizer = torch.optim.Adam([w], lr=5e-4)
        unreached = set(self.model.unreached)
        parameters = [
            each for name, each in self.model.backbone.named_parameters() if f"backbone.{name}" not in unreached
        ]
        for each in parameters:
            each.requires_grad_(each.is_floating_point())
        with torch.enable_grad():
            for _ in range(self.steps):
                rows = torch.randint(len(self.known), (SIZE,), generator=generator).numpy()
                batch = batch_of(self.model, self.known.encoded, rows, labels=self.known.labels)
                w.grad = misalignment(self.model, batch, w, parameters, generator=generator)
                optimizer.step()
        self.model.requires_grad_(False)
        return w

    def _hook(self, number: int) -> Any:
        """On block `number`: mixes styles there if that is asked for, then runs the new layers."""

        def change(x: Tensor) -> Tensor:
            if self._mixed == number:
                assert self._batch is not None
                x = mix_style(x, self.generator, mask=self._batch.inputs.get("attention_mask"))
            if number not in self.layers:
                self.layers[number] = _Layers(x, self.depth)
            found: Tensor = self.layers[number](x)
            return found

        return lambda module, args, output: on_states(output, change)

    def adapt(self, batch: Batch) -> Output:
        if not self.lr:
            with torch.no_grad():
                return self.model(batch)  # type: ignore[no-any-return]
        self._batch = batch
        plain = self.model(batch).features
        self._mixed = int(torch.randint(min(2, len(stages(self.model))), (), generator=self.generator))
        other = self.model(batch).features
        self._mixed = None
        parameters = [value for layers in self.layers.values() for value in layers.parameters()]
        if self.optimizer is None:
            self.optimizer = torch.optim.Adam(parameters, lr=self.lr)
        loss = self.weight * consistency(other - plain, self.w).mean()
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        with torch.no_grad():
            return self.model(batch)  # type: ignore[no-any-return]


class _Layers(nn.Module):
    """The new layers after one block, shaped for what it gives: maps (B, C, H, W) or states (B, T, D)."""

    def __init__(self, x: Tensor, depth: int) -> None:
        super().__init__()
        shape = x.shape[1:] if x.ndim == 4 else x.shape[-1:]
        self.rectified = x.ndim == 4 and bool((x >= 0).all())
        self.factors = nn.ParameterList(torch.ones(shape, device=x.device) for _ in range(depth))
        self.added = nn.ParameterList(torch.zeros(shape, device=x.device) for _ in range(depth))

    def forward(self, x: Tensor) -> Any:
        return stacked(x, list(self.factors), list(self.added), rectified=self.rectified)
