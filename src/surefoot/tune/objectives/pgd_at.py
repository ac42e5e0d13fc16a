"""Adversarial training: the loss where it is worst around each example."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from surefoot.attacks.pgd import EPSILON, PAPER, whole
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space, one_of, positive
from surefoot.tune.objectives.perturbed import ball_of, target_of, worst
from surefoot.tune.step import Step


@register(
    "pgd_at",
    kind="objective",
    family="adversarial",
    papers=[
        PAPER,
        Paper("Fast is better than free: Revisiting adversarial training", "Wong et al.", 2020, arxiv="2001.03994"),
    ],
)
class AdversarialTraining(Objective):
    """Adversarial training: CE(f(x'), y) at the x' within epsilon of x that PGD finds, in place of the loss at x.

    x_0 drawn from the ball; x_(n+1) = project(x_n + step_size d(grad_x CE(f(x_n), y))); x' = x_steps.
    Images move in pixels of [0, 1], d the sign (`linf`) or the gradient over its norm (`l2`); numbers of a plain module
    likewise. Texts move in their input embeddings, each token within an l2 ball, and epsilon counts mean norms of the
    embedding matrix's rows. x' is sought in eval mode, so that batch statistics do not see it. Gives (B,) in nats. With
    cross_entropy beside it the clean loss counts too; the weight against it trades clean for robust accuracy.

    epsilon: radius, at least 0; 8/255, the usual one of CIFAR-10; 0 is cross-entropy to the bit. steps: 7, the paper's
    for CIFAR-10; 1 is FGSM with a random start. step_size: above 0; where None, 2/255 at 8/255 as in the paper, or
    with one step 1.25 epsilon (Wong et al.). norm: linf or l2, for pixels. A step costs `steps` passes forwards and
    backwards to the inputs on top of its own.

    Raises RecipeError for values outside these ranges; ModelError if the inputs cannot be moved. Reference: Madry et
    al. 2018, equation 2.1 and section 5; Wong et al. 2020, algorithm 3.

    >>> AdversarialTraining(steps=1).rate == 1.25 * 8 / 255
    True
    """

    needs = frozenset({"inputs"})

    def __init__(
        self,
        *,
        epsilon: float = EPSILON,
        steps: int = 7,
        step_size: float | None = None,
        norm: Literal["linf", "l2"] = "linf",
    ) -> None:
        super().__init__()
        self.epsilon = positive("epsilon", epsilon, zero=True)
        self.steps = whole("steps", steps)
        self.step_size = None if step_size is None else positive("step_size", step_size)
        self.norm = one_of("norm", norm, ["linf", "l2"])

    @property
    def rate(self) -> float:
        """The step size, in epsilon's unit."""
        return self.step_size or self.epsilon * (0.25 if self.steps > 1 else 1.25)

    def per_example(self, step: Step) -> Tensor:
        if not self.epsilon:
            return F.cross_entropy(step.output.logits, step.labels, reduction="none")
        return F.cross_entropy(self.attacked(step), step.labels, reduction="none")

    def attacked(self, step: Step) -> Tensor:
        """Logits (B, C) at x', with gradient to the weights."""
        target = target_of(step)
        ball = ball_of(target, self.epsilon, self.norm)  # type: ignore[arg-type]

        def loss(logits: Tensor) -> Tensor:
            return F.cross_entropy(logits, step.labels, reduction="none")

        start = ball.draw(target.x, step.generator)
        return target.logits(worst(step, target, ball, loss, start=start, steps=self.steps, step_size=self.rate))

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"epsilon": Space(1e-3, 0.1, log=True)}
