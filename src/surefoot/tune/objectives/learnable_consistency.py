"""ITTA's training part: consistency under mixed styles, measured by a function that learns what serves the labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space, positive
from surefoot.tune.step import Step

if TYPE_CHECKING:
    from surefoot.models.model import Model
    from surefoot.tune.step import Batch

PAPER = Paper("Improved Test-Time Adaptation for Domain Generalization", "Chen et al.", 2023, arxiv="2304.04494")
#: Layers of f_w; MixStyle's Beta(a, a) and what its variances are raised by; weight of the alignment of gradients.
DEPTH, ALPHA, EPSILON, ALIGNMENT = 10, 0.1, 1e-6, 0.1


@register("learnable_consistency", kind="objective", family="consistency", papers=[PAPER])
class LearnableConsistency(Objective):
    """CE(z') + L_c, L_c = mean_d f_w(z' - z)_d^2: features z and z' of the same inputs in their own and in a mixed style.

    z' (B, D): the states after the first or the second block (one of them a step) have their mean and deviation over
    positions, by channel, mixed with those of another example: MixStyle, shares drawn from Beta(0.1, 0.1). f_w: ten
    elementwise layers x <- w_k x + b_k with ReLU between, the identity of non-negative x at the start. Put it beside
    `cross_entropy`, which is the CE(z) of the paper's sum. Gives (B,) in nats.

    Once a step w alone moves, by Adam, down 0.1 mean (g_c - g_ce)^2, with g the gradients of L_c and of CE(z) + CE(z')
    by all weights of the backbone that train, each less its mean and over its deviation, which count as constants: what
    lowers L_c is then to lower the loss of the labels, which is what `itta` relies on at test time.

    rate: of that Adam; 5e-4. The authors' is a tenth of the training's, 5e-6, over thousands of steps; a hundredth of
    those at this rate go as far. The paper mixes maps of images; of texts the positions are the tokens. The state is
    `w` (2, 10, D), with what Adam keeps. Costs a second pass, and third and fourth with second derivatives.
    Raises RecipeError for a rate below zero, or where nothing below the head trains.
    Reference: Chen et al. 2023; liangchen527/ITTA.

    >>> LearnableConsistency(rate=1e-4).rate
    0.0001
    """

    needs = frozenset({"inputs", "layers"})
    w: Tensor
    first_moment: Tensor
    second_moment: Tensor
    count: Tensor

    def __init__(self, *, rate: float = 5e-4) -> None:
        super().__init__()
        self.rate = positive("rate", rate, zero=True)

    def setup(self, context: Context) -> None:
        unreached = set(context.model.unreached)
        names = [name for name in context.trained if name.startswith("backbone.") and name not in unreached]
        if not names:
            raise RecipeError(
                "objective `learnable_consistency` compares gradients of the backbone, of which nothing trains: choose another selection than `head`"
            )
        if not sites(context.model):
            raise RecipeError(
                "objective `learnable_consistency` mixes styles after the model's first blocks or convolutions, of which this one has none: leave it out"
            )
        self.names_ = names
        start = identity(context.model.dim, context.model.device)
        self.register_buffer("w", start)
        self.register_buffer("first_moment", torch.zeros_like(start))
        self.register_buffer("second_moment", torch.zeros_like(start))
        self.register_buffer("count", torch.zeros((), device=start.device))

    def update(self, step: Step) -> None:
        # The step's own draws and dropout are those of a training without this: only the second pass sees them.
        generator = torch.Generator(step.generator.device).manual_seed(step.generator.initial_seed() + 1)
        known = dict(step.model.named_parameters())
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            gradient = misalignment(
                step.model, step.batch, self.w, [known[name] for name in self.names_], generator=generator
            )
        self.count += 1
        self.first_moment.lerp_(gradient, 0.1)
        self.second_moment.lerp_(gradient.square(), 0.001)
        mean, square = self.first_moment / (1 - 0.9**self.count), self.second_moment / (1 - 0.999**self.count)
        self.w -= self.rate * mean / (square.sqrt() + 1e-8)

    def per_example(self, step: Step) -> Tensor:
        with mixed_style(sites(step.model), step.batch, step.generator):
            other = step.again()
        losses = F.cross_entropy(other.logits, step.labels, reduction="none")
        return losses + consistency(other.features - step.output.features, self.w)

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"rate": Space(1e-5, 1e-2, log=True)}


def identity(d: int, device: torch.device | str = "cpu") -> Tensor:
    """w (2, 10, D) at the start: factors of one, and nothing added."""
    return torch.stack([torch.ones(DEPTH, d, device=device), torch.zeros(DEPTH, d, device=device)])


def consistency(difference: Tensor, w: Tensor) -> Tensor:
    """mean_d f_w(z' - z)_d^2 (B,), of differences (B, D)."""
    found: Tensor = stacked(difference, *w, rectified=True)
    return found.square().mean(1)


def stacked(x: Tensor, factors: Tensor | Sequence[Tensor], added: Tensor | Sequence[Tensor], *, rectified: bool) -> Any:
    """x <- w_k x + b_k layer by layer, with ReLU between if `rectified`."""
    for number, (factor, bias) in enumerate(zip(factors, added, strict=True)):
        x = x.relu() if rectified and number else x
        x = factor * x + bias
    return x


def misalignment(
    model: Model, batch: Batch, w: Tensor, parameters: Sequence[Tensor], *, generator: torch.Generator
) -> Tensor:
    """The gradient by w (2, 10, D) of 0.1 mean (g_c - g_ce)^2, from one batch; nothing is left in `.grad`."""
    w = w.detach().clone().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):  # the fused ones have no second derivative
        plain = model(batch)
        with mixed_style(sites(model), batch, generator):
            other = model(batch)
        right = F.cross_entropy(plain.logits, batch.labels) + F.cross_entropy(other.logits, batch.labels)
        wanted = torch.autograd.grad(right, parameters, retain_graph=True, allow_unused=True)
        loss = consistency(other.features - plain.features, w).mean()
        found = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
        pairs = [(a, b) for a, b in zip(found, wanted, strict=True) if a is not None and b is not None]
        if not pairs:
            raise RecipeError(
                "learnable_consistency compares gradients by what makes the features, and nothing that trains does: choose another selection, such as `top_layers`"
            )
        mine, theirs = (standardised(torch.cat([each.flatten() for each in side])) for side in zip(*pairs, strict=True))
        return torch.autograd.grad(ALIGNMENT * (mine - theirs.detach()).square().mean(), w)[0]


def standardised(gradient: Tensor) -> Tensor:
    """Less its mean and over its deviation, both of which count as constants."""
    return (gradient - gradient.detach().mean()) / gradient.detach().std().clamp_min(1e-20)


def stages(model: Model) -> list[nn.Module]:
    """The blocks of a transformer, the stages of a convolutional network, or its convolutions; lowest first."""
    if model.layers:
        return model.layers
    lists = {name.rpartition(".")[2]: module for name, module in model.backbone.named_modules()}
    found = lists.get("stages")
    if isinstance(found, nn.ModuleList):
        return list(found)
    return [module for module in model.backbone.modules() if isinstance(module, nn.Conv2d)]


def sites(model: Model) -> list[nn.Module]:
    """Where styles are mixed: after the first or the second of them."""
    return stages(model)[:2]


@contextmanager
def mixed_style(places: Sequence[nn.Module], batch: Batch, generator: torch.Generator) -> Iterator[None]:
    """Within, a pass over `batch` mixes the styles of its examples at one of the places, which is drawn."""
    chosen = places[int(torch.randint(len(places), (), generator=generator, device=generator.device))]

    def mix(module: nn.Module, args: Any, output: Any) -> Any:
        return on_states(output, lambda x: mix_style(x, generator, mask=batch.inputs.get("attention_mask")))

    hook = chosen.register_forward_hook(mix)
    try:
        yield
    finally:
        hook.remove()


def on_states(output: Any, change: Any) -> Any:
    """A block's output with its states changed: a tensor, or a tuple that begins with it."""
    return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)


def mix_style(x: Tensor, generator: torch.Generator, *, mask: Tensor | None = None) -> Tensor:
    """MixStyle: (x - mu) / sigma * (l sigma + (1 - l) sigma') + l mu + (1 - l) mu', shares l (B,) from Beta(0.1, 0.1).

    x: (B, C, H, W), or (B, T, D) with a mask (B, T); mu, sigma: over positions, without gradient, of one example, and
    mu', sigma' of another one, by a permutation. The deviation divides by n - 1, and 1e-6 is added to its square.
    """
    if x.ndim == 4:
        dims, known = [2, 3], torch.ones_like(x[:, :1])
    else:
        known = (
            mask[..., None].to(x.dtype)
            if mask is not None and mask.shape == x.shape[:2]
            else torch.ones_like(x[..., :1])
        )
        dims = [1]
    n = known.sum(dims, keepdim=True)
    mean = ((x * known).sum(dims, keepdim=True) / n.clamp_min(1)).detach()
    variance = (((x - mean) * known).square().sum(dims, keepdim=True) / (n - 1).clamp_min(1)).detach()
    deviation = (variance + EPSILON).sqrt()
    device = generator.device
    seed = int(torch.randint(2**31, (), generator=generator, device=device))
    drawn = np.random.default_rng(seed).beta(ALPHA, ALPHA, len(x))  # torch's own takes no generator
    share = torch.from_numpy(drawn).to(x).view(-1, *[1] * (x.ndim - 1))
    order = torch.randperm(len(x), generator=generator, device=device).to(x.device)
    mixed = share * deviation + (1 - share) * deviation[order]
    return (x - mean) / deviation * mixed + share * mean + (1 - share) * mean[order]
