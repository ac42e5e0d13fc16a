"""Square attack: random search with squares, which needs no gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from surefoot.attacks.attack import Attack, Target
from surefoot.attacks.pgd import EPSILON, whole
from surefoot.registry import Paper, register
from surefoot.tune.objective import fraction, positive

#: From which query of 10,000 on the area is another half of what it was.
HALVINGS = (11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001)


@register(
    "square",
    kind="attack",
    family="search",
    papers=[
        Paper(
            "Square Attack: a query-efficient black-box adversarial attack via random search",
            "Andriushchenko et al.",
            2020,
            arxiv="1912.00049",
        )
    ],
)
class Square(Attack):
    """Random search within the linf ball: x' <- clip(x' + 2 epsilon s 1_square) where that lowers the margin.

    margin: z_y - max_(i != y) z_i, below 0 where wrong. s: one sign per channel; the square lies at random and has the
    share p of the image's area, halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 queries. It begins
    with vertical stripes of -epsilon and epsilon. Asks for logits alone, so that it finds what a network hides whose
    gradients lead nowhere. Gives x' in the shape of x. Numbers without rows and columns, (N, D), count as one row.

    epsilon: radius, at least 0, in units of pixels in [0, 1]; 8/255, the usual one of CIFAR-10. queries: 5000,
    AutoAttack's. p: first share of the area, 0.8. Raises RecipeError for values out of range; ModelError for a model of
    texts. Reference: Andriushchenko et al. 2020, algorithms 1 and 2.

    >>> Square(queries=100).p
    0.8
    """

    def __init__(self, *, epsilon: float = EPSILON, queries: int = 5000, p: float = 0.8) -> None:
        self.epsilon = positive("epsilon", epsilon, zero=True)
        self.queries = whole("queries", queries)
        self.p = fraction("p", p, one=True)

    @torch.no_grad()
    def perturb(self, target: Target) -> Tensor:
        found = target.x.clone()
        if not self.epsilon:
            return found
        ball = target.ball("linf", self.epsilon)
        generator, shape = target.generator, _planes(target.x).shape[1:]
        stripes = torch.zeros_like(_planes(target.x)) + _signs((len(found), shape[0], 1, shape[2]), found, generator)
        best = ball.project(target.x, target.x + self.epsilon * _back(stripes, target.x))
        left = torch.arange(len(found), device=found.device)
        lowest = _margin(target, best)
        for query in range(self.queries):
            wrong = lowest <= 0
            if wrong.any():
                found[left[wrong]] = best[wrong]
                left, best, lowest, target = left[~wrong], best[~wrong], lowest[~wrong], target.take(~wrong)
            if not len(left):
                return found
            step = torch.zeros(1, *shape, device=found.device)
            rows, columns = self._square(query, shape, generator)
            step[:, :, rows, columns] = 2 * self.epsilon * _signs((1, shape[0], 1, 1), found, generator)
            tried = ball.project(target.x, best + _back(step.expand(len(left), *shape), target.x))
            margin = _margin(target, tried)
            lower = margin < lowest
            best[lower], lowest[lower] = tried[lower], margin[lower]
        found[left] = best
        return found

    def _square(self, query: int, shape: torch.Size, generator: torch.Generator) -> tuple[slice, slice]:
        """Where it lies: rows and columns."""
        halvings = sum(query >= each for each in HALVINGS)
        height, width = shape[1:]
        area = self.p / 2**halvings * height * width
        side = max(1, min(round(math.sqrt(area)), height))
        across = max(1, min(round(area / side) if side == height else side, width))
        top, begin = (
            int(torch.randint(0, most + 1, (), generator=generator, device=generator.device))
            for most in (height - side, width - across)
        )
        return slice(top, top + side), slice(begin, begin + across)


def _planes(x: Tensor) -> Tensor:
    """(N, channels, height, width) of images with channels first or last, of grey ones, and of plain rows."""
    if x.ndim == 4:
        return x.permute(0, 3, 1, 2) if _channels_last(x) else x
    return x.reshape(len(x), 1, -1, x.shape[-1])


def _back(planes: Tensor, like: Tensor) -> Tensor:
    """Planes in the shape of x."""
    return planes.permute(0, 2, 3, 1) if like.ndim == 4 and _channels_last(like) else planes.reshape(like.shape)


def _channels_last(x: Tensor) -> bool:
    return x.shape[-1] in (1, 3) and x.shape[1] not in (1, 3)


def _signs(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randint(0, 2, shape, generator=generator, device=generator.device)
    return (2.0 * drawn - 1).to(like.device)


def _margin(target: Target, x: Tensor) -> Tensor:
    """(N,); 0 where the label ties with another class that comes first."""
    logits = target.logits(x).clone()
    own = logits.gather(1, target.labels[:, None])
    right = logits.argmax(1) == target.labels
    logits.scatter_(1, target.labels[:, None], -math.inf)
    margin = own[:, 0] - logits.amax(1)
    return torch.where(right, margin.clamp_min(torch.finfo(margin.dtype).tiny), margin.clamp_max(0))
