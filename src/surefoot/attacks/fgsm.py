"""FGSM: one step along the sign of the gradient."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from surefoot.attacks.attack import Attack, Target
from surefoot.attacks.ball import NORMS, Norm
from surefoot.attacks.pgd import EPSILON, ascend
from surefoot.registry import Paper, register
from surefoot.tune.objective import one_of, positive


@register(
    "fgsm",
    kind="attack",
    family="gradient",
    papers=[Paper("Explaining and Harnessing Adversarial Examples", "Goodfellow et al.", 2015, arxiv="1412.6572")],
)
class FGSM(Attack):
    """The fast gradient sign method: x' = clip(x + epsilon sign(grad_x CE(f(x), y))).

    With `l2` the gradient over its norm takes the sign's place. Gives x' in the shape of x, clipped to the range of
    pixels. Exact where the logits are linear in x and there are two classes; a weak attack of deep networks, and one
    that adversarial training with it can come to fool (catastrophic overfitting): trust `auto_attack`.

    epsilon: radius, at least 0, in units of pixels in [0, 1]; 8/255, the usual one of CIFAR-10. norm: linf or l2. One
    pass forwards and backwards. Raises RecipeError for values out of range; ModelError for a model of texts.
    Reference: Goodfellow et al. 2015, section 4.

    >>> FGSM(epsilon=0.1).epsilon
    0.1
    """

    def __init__(self, *, epsilon: float = EPSILON, norm: Norm = "linf") -> None:
        self.epsilon = positive("epsilon", epsilon, zero=True)
        self.norm: Norm = one_of("norm", norm, NORMS)  # type: ignore[assignment]

    def perturb(self, target: Target) -> Tensor:
        if not self.epsilon:
            return target.x.clone()

        def loss(x: Tensor) -> Tensor:
            return F.cross_entropy(target.logits(x), target.labels, reduction="none")

        ball = target.ball(self.norm, self.epsilon)
        return ascend(loss, target.x, target.x.clone(), ball, steps=1, step_size=ball.epsilon)
