"""Group DRO: distributionally robust optimisation over groups."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.errors import DataError
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, positive
from surefoot.tune.reducer import Reducer
from surefoot.tune.step import Step


@register(
    "group_dro",
    kind="reducer",
    family="groups",
    papers=[
        Paper(
            "Distributionally Robust Neural Networks for Group Shifts: On the Importance of Regularization for "
            "Worst-Case Generalization",
            "Sagawa et al.",
            2020,
            arxiv="1911.08731",
        )
    ],
)
class GroupDRO(Reducer):
    """Group DRO, which trains on the worst group: sum_g q_g l_g, with q_g <- q_g exp(eta (l_g + C / sqrt(n_g))) / Z.

    l_g: mean loss of group g in the batch, 0 where the batch has none of it; n_g: its number of training examples; q: a
    distribution over the G groups, uniform at first, moved once a step before the loss is taken and without gradient;
    Z makes it sum to 1. Gives a scalar in units of the losses. Example weights, if any, weigh within their group.

    eta: step size of q, at least 0; 0.01 as in the paper; 0 keeps q uniform, the group-balanced mean. adjustment: C, at
    least 0; 0 leaves the generalisation adjustment out; the paper searches 0 to 5.

    Sample groups uniformly, or groups that are absent from batches lose weight; and regularise strongly or stop early
    by the worst group's validation accuracy: a net that fits every training example has nothing left to weigh.

    State: `log_q` (G,). Raises RecipeError for negative values; DataError if the data has no groups or a group has no
    training example. Reference: Sagawa et al. 2020, algorithm 1; kohpangwei/group_DRO, loss.py.

    >>> GroupDRO(eta=0.01, adjustment=0.0).eta
    0.01
    """

    needs = frozenset({"group"})
    log_q: Tensor
    extra: Tensor

    def __init__(self, *, eta: float = 0.01, adjustment: float = 0.0) -> None:
        super().__init__()
        self.eta = positive("eta", eta, zero=True)
        self.adjustment = positive("adjustment", adjustment, zero=True)

    def setup(self, context: Context) -> None:
        if context.groups is None:
            raise DataError("group_dro needs to know the group of every training example: name the group column")
        names = context.group_names or range(int(context.groups.max()) + 1)
        counts = torch.bincount(context.groups, minlength=len(names))
        for name, count in zip(names, counts.tolist(), strict=True):
            if count == 0:
                raise DataError(f"group_dro: the training set has no example of group `{name}`")
        self.register_buffer("log_q", -torch.log(torch.full_like(counts, len(names), dtype=torch.float32)))
        self.register_buffer("extra", self.adjustment / counts.float().sqrt(), persistent=False)

    @property
    def q(self) -> Tensor:
        """The distribution over groups: (G,)."""
        return self.log_q.exp()

    def group_losses(self, losses: Tensor, step: Step) -> Tensor:
        """l_g: (G,)."""
        assert step.batch.group is not None
        members = F.one_hot(step.batch.group, len(self.log_q)).to(losses.dtype)  # (B, G)
        if step.batch.weight is not None:
            members = members * step.batch.weight[:, None]
        # A product, not a scatter: the same bytes every time.
        return losses @ members / members.sum(0).clamp_min(torch.finfo(losses.dtype).tiny)

    @torch.no_grad()
    def update(self, losses: Tensor, step: Step) -> None:
        gain = self.group_losses(losses.detach(), step) + self.extra
        self.log_q.copy_(F.log_softmax(self.log_q + self.eta * gain, dim=0))

    def forward(self, losses: Tensor, step: Step) -> Tensor:
        return (self.q * self.group_losses(losses, step)).sum()
