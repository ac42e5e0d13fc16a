"""TLM: token-level masking of attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.models.model import Model
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space, fraction
from surefoot.tune.step import Step


@register(
    "tlm",
    kind="objective",
    family="augmentation",
    papers=[Paper("TLM: Token-Level Masking for Transformers", "Wu et al.", 2023, arxiv="2310.18738")],
)
class TLM(Objective):
    """Cross-entropy of a pass in which some tokens are cut off from the others: CE(f(x; M_1 .. M_L), y).

    In each block k every token is selected with probability `rate`. M_k (T, T), what a row may attend to: a selected
    token either itself alone (siblings masking) or everything but itself (self masking), each with probability 1/2;
    a token that is not selected everything but the selected ones. Padding stays unseen, and a row that could see
    nothing sees itself. No masking at test time. Gives (B,) in nats; it takes the place of cross-entropy.

    rate: in [0, 1); 0.05, the authors' script for RTE; 0 is cross-entropy to the bit. The authors switch the dropout
    of attention off meanwhile; here the model keeps its own. Frozen blocks are left as they are.

    For models whose tokens see each other both ways. Raises RecipeError for other values, a model without blocks, with
    prefixes, or one that reads from left to right. Reference: Wu et al. 2023; Young1993/tlm, modeling_bert.py.

    >>> TLM(rate=0.1).rate
    0.1
    """

    needs = frozenset({"layers"})

    def __init__(self, *, rate: float = 0.05) -> None:
        super().__init__()
        self.rate = fraction("rate", rate)

    def setup(self, context: Context) -> None:
        if not context.layer_names:
            raise RecipeError("tlm masks attention between tokens, and this model has no blocks: leave it out")
        if context.model.has_prefixes:
            raise RecipeError(
                "tlm masks tokens by their places, which prefixes move: choose another selection, or leave it out"
            )
        if any(getattr(module, "is_causal", False) for module in context.model.backbone.modules()):
            raise RecipeError("tlm is for models whose tokens see each other both ways: leave it out")

    def per_example(self, step: Step) -> Tensor:
        if self.rate == 0:
            logits = step.output.logits
        else:
            with masked(step.model, self.rate, step.generator):
                logits = step.again().logits
        return F.cross_entropy(logits, step.labels, reduction="none")

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"rate": Space(0.01, 0.2, log=True)}


@contextmanager
def masked(model: Model, rate: float, generator: torch.Generator) -> Iterator[None]:
    """Within, every block that trains attends through a mask that is drawn for it."""
    additive = model.backbone.config._attn_implementation == "eager"  # type: ignore[union-attr]

    def enter(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if not torch.is_grad_enabled():  # the frozen blocks run first, up to here
            return args, options
        states: Tensor = args[0] if args else options["hidden_states"]
        given = args[1] if len(args) > 1 else options.get("attention_mask")
        seen = visible(given, states, draw(states.shape[:2], rate, generator).to(states.device))
        mask: Tensor = seen
        if additive:
            mask = torch.zeros(seen.shape, dtype=states.dtype, device=states.device)
            mask = mask.masked_fill(~seen, torch.finfo(states.dtype).min)
        if len(args) > 1:
            return (states, mask, *args[2:]), options
        return args, options | {"attention_mask": mask}

    hooks = [layer.register_forward_pre_hook(enter, with_kwargs=True) for layer in model.layers[model.frozen :]]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def draw(shape: tuple[int, ...], rate: float, generator: torch.Generator) -> Tensor:
    """What each token may attend to, for tokens (B, T): (B, T, T), bool."""
    chosen, alone = torch.rand(2, *shape, generator=generator, device=generator.device)
    selected, siblings = chosen < rate, alone < 0.5
    itself = torch.eye(shape[1], dtype=torch.bool, device=generator.device)
    of_selected = torch.where(siblings[:, :, None], itself, ~itself)
    return torch.where(selected[:, :, None], of_selected, ~selected[:, None, :])


def visible(given: Tensor | None, states: Tensor, drawn: Tensor) -> Tensor:
    """`drawn` and what the model itself lets see, (B, 1, T, T), bool; a row that would see nothing sees itself."""
    seen = drawn[:, None]
    if given is not None:
        allowed = given if given.dtype == torch.bool else given > torch.finfo(given.dtype).min / 2
        seen = seen & (allowed if allowed.ndim == 4 else allowed[:, None, None, :])
    itself = torch.eye(states.shape[1], dtype=torch.bool, device=states.device)
    return seen | (itself & ~seen.any(-1, keepdim=True))
