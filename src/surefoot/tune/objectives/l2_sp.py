"""L2-SP: weight decay towards the pretrained weights."""

from __future__ import annotations

from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Norms, Space, WeightObjective, positive


@register(
    "l2_sp",
    kind="objective",
    family="weights",
    papers=[
        Paper(
            "Explicit Inductive Bias for Transfer Learning with Convolutional Networks",
            "Li et al.",
            2018,
            arxiv="1802.01483",
        )
    ],
)
class L2SP(WeightObjective):
    """Weight decay towards the starting point: (alpha / 2) ||w_S - w0_S||_2^2 + (beta / 2) ||w_head||_2^2.

    w_S: the pretrained parameters that train; w0_S: the same before training; w_head: the new head, which has no start
    worth keeping. Gives a scalar (a sum, not divided by the number of parameters); gradient alpha (w_S - w0_S) and
    beta w_head. It takes the place of the optimizer's own weight decay, which should be 0.

    alpha: pull to the start, at least 0. beta: decay of the head, at least 0. The paper searches both over decades; 0.1
    and 0.01 are where this library starts.

    Raises RecipeError if either is negative or not finite. Reference: Li, Grandvalet and Davoine 2018.

    >>> L2SP(alpha=0.1, beta=0.01).alpha
    0.1
    """

    def __init__(self, *, alpha: float = 0.1, beta: float = 0.01) -> None:
        super().__init__()
        self.alpha = positive("alpha", alpha, zero=True)
        self.beta = positive("beta", beta, zero=True)

    def setup(self, context: Context) -> None:
        super().setup(context)
        self.head_names_ = context.head_names

    def norms(self, name: str) -> Norms:
        return Norms(l2=self.beta / 2) if name in self.head_names_ else Norms(l2_start=self.alpha / 2)

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"alpha": Space(1e-4, 1.0, log=True), "beta": Space(1e-4, 1.0, log=True)}
