"""EGN: the exact Gauss-Newton direction, around any optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Space, positive
from surefoot.tune.optimizer import Closure, Optimizer, Wrapper, repeat
from surefoot.tune.optimizers import running_statistics_kept

#: Numbers of the Jacobian that are held at once: 1 GiB in float32.
LARGEST = 1 << 28


@register(
    "egn",
    kind="optimizer",
    family="second order",
    papers=[
        Paper(
            "Exact Gauss-Newton Optimization for Training Deep Neural Networks",
            "Korbit et al.",
            2024,
            arxiv="2405.14402",
        )
    ],
)
class EGN(Wrapper):
    """Gives the inner optimizer the damped Gauss-Newton direction instead of the gradient, solved exactly.

    d = (J^T Q J / B + damping I)^-1 g,  with J (B C, D) the Jacobian of the batch's logits by the weights, Q the
    block-diagonal Hessian of cross-entropy by the logits, diag(p) - p p^T for each example, and g the gradient, (D,).
    By the Duncan-Guttman identity only a B C x B C system is factorised, in float64:
    d = (g - A^T (A A^T + B damping I)^-1 A g) / damping,  A = S^T J,  S = diag(sqrt p) - p sqrt(p)^T, as Q = S S^T.
    Where g = J^T r / B, with r the loss's gradient by the logits, this is the paper's -d. Q is cross-entropy's whatever
    the objectives are; g is of all of them.

    damping: 1, the default of the authors' code, where it is constant too; their line search and adaptive damping are
    not here. The inner optimizer should be `sgd`, whose momentum is the paper's and whose lr scales the step.
    One pass, one forward pass, and B C backward passes for J, all at once: for heads and small networks.
    Raises RecipeError if damping is not above zero, or where J would take more than 1 GiB.
    Reference: Korbit et al. 2024.

    >>> from surefoot.tune.optimizers.sgd import SGD
    >>> optimizer = EGN(SGD([torch.nn.Parameter(torch.ones(2))], lr=0.5), damping=0.1)
    """

    forwards = 1

    def __init__(self, inner: Optimizer, *, damping: float = 1.0) -> None:
        super().__init__(inner)
        self.damping = positive("damping", damping)

    def setup(self, context: Context) -> None:
        super().setup(context)
        _check(min(context.batch_size, context.examples) * len(context.classes), self.parameters)

    def around(self, closure: Closure, first: bool) -> Tensor:
        loss = closure(first)
        moved = [parameter for parameter in self.parameters if parameter.grad is not None]
        if not moved:
            return loss
        found = [parameter.grad for parameter in moved if parameter.grad is not None]
        with running_statistics_kept():  # until the backward passes are done: they read the statistics
            logits = repeat(closure.step).logits
            rows = self._rows(logits, moved)
        with torch.no_grad():
            flat = torch.cat([gradient.flatten().to(rows.dtype) for gradient in found])
            sizes = [gradient.numel() for gradient in found]
            parts = torch.split(self._solve(rows, flat, len(logits)), sizes)
            for gradient, part in zip(found, parts, strict=True):
                gradient.copy_(part.view(gradient.shape))
        return loss

    def _rows(self, logits: Tensor, moved: list[nn.Parameter]) -> Tensor:
        """A = S^T J, (B C, D): the Jacobian's rows weighed by a square root of Q, which is how they are drawn."""
        count = logits.numel()
        _check(count, moved)
        with torch.no_grad():
            p = logits.float().softmax(dim=1)
            root = torch.diag_embed(p.sqrt()) - p[:, :, None] * p.sqrt()[:, None, :]  # S, (B, C, C)
            directions = torch.zeros(len(p), p.shape[1], *logits.shape, dtype=logits.dtype, device=logits.device)
            index = torch.arange(len(p), device=logits.device)
            directions[index, :, index, :] = root.transpose(1, 2).to(logits.dtype)
        drawn = torch.autograd.grad(logits, moved, directions.flatten(0, 1), is_grads_batched=True, allow_unused=True)
        precision = torch.promote_types(moved[0].dtype, torch.float32)
        parts = [
            torch.zeros(count, parameter.numel(), dtype=precision, device=logits.device)
            if rows is None
            else rows.reshape(count, -1).to(precision)
            for parameter, rows in zip(moved, drawn, strict=True)
        ]
        return torch.cat(parts, dim=1)

    def _solve(self, rows: Tensor, gradient: Tensor, examples: int) -> Tensor:
        """d, (D,)."""
        kernel = (rows @ rows.T).double()
        kernel.diagonal().add_(examples * self.damping)
        right = (rows @ gradient).double()
        solved = torch.cholesky_solve(right[:, None], torch.linalg.cholesky(kernel))[:, 0]
        return (gradient - rows.T @ solved.to(rows.dtype)) / self.damping

    @classmethod
    def space(cls) -> dict[str, Space]:
        return {"damping": Space(1e-3, 10.0, log=True)}


def _check(count: int, parameters: Sequence[nn.Parameter]) -> None:
    """Raise RecipeError for a Jacobian of so many outputs by these parameters that is too large to hold."""
    size = sum(parameter.numel() for parameter in parameters)
    if count * size > LARGEST:
        raise RecipeError(
            f"optimizer `egn` would hold a Jacobian of {count} x {size:,} numbers: train less (`selection: head`) or use a smaller `batch_size`"
        )
