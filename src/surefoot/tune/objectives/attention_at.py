"""Attention AT: adversarial training on attention scores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space, positive
from surefoot.tune.step import Step


@register(
    "attention_at",
    kind="objective",
    family="adversarial",
    papers=[
        Paper(
            "Attention Meets Perturbations: Robust and Interpretable Attention with Adversarial Training",
            "Kitada and Iyatomi",
            2021,
            arxiv="2009.12064",
        )
    ],
)
class AttentionAT(Objective):
    """The loss at the worst attention scores: CE(f(x; a + r), y), r = epsilon g / ||g||_2, g = grad_a CE(f(x; a), y).

    a: scores before the softmax of the last block, whose states are pooled, (B, H, T, T). The paper has one attention,
    a row of T scores for a sentence; here every head and every token that asks has such a row, and each is moved by a
    length of epsilon. r is held fixed. Gives (B,) in nats; the paper adds it to cross-entropy with a weight (lambda)
    of 1. Two more passes forwards and one backwards through the last block a step.

    The interpretable form (Attention iAT) asks for r_t = epsilon sum_k (g_tk / ||g||) D_tk, g = dCE / d alpha, along
    D_t, the unit vector of the differences between score t and all others. Since alpha_t reaches the loss through
    r_t = alpha_t . D_t alone, g_tk = g_t D_tk and ||D_t|| = 1, so that r_t = epsilon g_t / ||g||: Attention AT again.
    The authors' code differs from it by taking differences between sentences; so there is one objective here.

    epsilon: length, at least 0, in units of scores; 1 is this library's choice, as the paper finds little
    dependence on it; 0 is cross-entropy to the bit.

    Raises RecipeError if epsilon is negative, or the model's last block takes no mask that scores could be moved by.
    Reference: Kitada and Iyatomi 2021, section IV; shunk031/attention-meets-perturbation, attention_layer/bc/advt.py.

    >>> AttentionAT(epsilon=0.5).epsilon
    0.5
    """

    needs: frozenset[str] = frozenset({"attentions", "layers"})

    def __init__(self, *, epsilon: float = 1.0) -> None:
        super().__init__()
        self.epsilon = positive("epsilon", epsilon, zero=True)
        if not self.epsilon:
            self.needs = frozenset()

    def per_example(self, step: Step) -> Tensor:
        if not self.epsilon:
            return F.cross_entropy(step.output.logits, step.labels, reduction="none")
        maps = step.output.attentions
        assert maps is not None
        block, random = step.model.layers[-1], torch.random.get_rng_state()
        offset = torch.zeros_like(maps[-1], dtype=torch.float32, requires_grad=True)
        with torch.enable_grad(), moved_scores(block, offset):
            loss = F.cross_entropy(step.again().logits, step.labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, offset)
        # The same dropout in both passes: r is the worst for the network that it is used in.
        torch.random.set_rng_state(random)
        worst = self.epsilon * F.normalize(gradient, dim=-1)
        with moved_scores(block, worst):
            return F.cross_entropy(step.again().logits, step.labels, reduction="none")

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"epsilon": Space(0.1, 10.0, log=True)}


@contextmanager
def moved_scores(block: Any, offset: Tensor) -> Iterator[None]:
    """Within, the block's attention scores are moved by `offset` (B, H, T, T): through its mask, which is added to them.

    Raises RecipeError where the block has no mask among its inputs.
    """

    def add(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if "attention_mask" in kwargs:
            return args, {**kwargs, "attention_mask": _plus(kwargs["attention_mask"], offset)}
        if len(args) > 1 and (args[1] is None or torch.is_tensor(args[1])):
            return (args[0], _plus(args[1], offset), *args[2:]), kwargs
        raise RecipeError(
            f"attention_at moves attention scores through the mask, and a {type(module).__name__} takes none: choose a BERT-like model, or leave it out"
        )

    handle = block.register_forward_pre_hook(add, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _plus(mask: Tensor | None, offset: Tensor) -> Tensor:
    if mask is None:
        return offset
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=offset.dtype).masked_fill(~mask, torch.finfo(offset.dtype).min)
    return mask + offset
