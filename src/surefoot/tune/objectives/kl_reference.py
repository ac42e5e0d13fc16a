"""Kullback-Leibler divergence to the pretrained model's predictions."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space, positive
from surefoot.tune.step import Step


@register(
    "kl_reference",
    kind="objective",
    family="distillation",
    papers=[
        Paper("Learning without Forgetting", "Li and Hoiem", 2016, arxiv="1606.09282"),
        Paper("Distilling the Knowledge in a Neural Network", "Hinton et al.", 2015, arxiv="1503.02531"),
    ],
)
class KLReference(Objective):
    """Keep the pretrained model's predictions: T^2 KL(p_ref || p) = T^2 sum_c p_ref,c (log p_ref,c - log p_c).

    p = softmax(z / T), p_ref = softmax(z_ref / T); z: logits (B, C); z_ref: those of the model before training, without
    gradient. Gives (B,) in nats times T^2, at least 0, and 0 where nothing has changed. It needs a head that means
    something before training: from label texts, from a probe, or trained.

    temperature: T, above 0; 2 as in Learning without Forgetting, which takes the cross-entropy of p_ref and p (the same
    gradient). The factor T^2 is Hinton et al.'s: it keeps the gradient's size when T changes.

    Raises RecipeError if T is not above zero. Reference: Li and Hoiem 2016; Hinton et al. 2015, section 2.

    >>> KLReference(temperature=2.0).temperature
    2.0
    """

    needs = frozenset({"reference"})

    def __init__(self, *, temperature: float = 2.0) -> None:
        super().__init__()
        self.temperature = positive("temperature", temperature)

    def per_example(self, step: Step) -> Tensor:
        log_p = F.log_softmax(step.output.logits / self.temperature, dim=1)
        log_reference = F.log_softmax(step.reference.logits.detach() / self.temperature, dim=1)
        return self.temperature**2 * F.kl_div(log_p, log_reference, reduction="none", log_target=True).sum(1)

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"temperature": Space(0.5, 8.0, log=True)}
