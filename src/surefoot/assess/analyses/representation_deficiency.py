"""How much of its width a masked language model spends on telling masks from words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from surefoot.assess.analysis import Analysis, Record, numbers
from surefoot.errors import DataError
from surefoot.registry import Paper, register
from surefoot.tune.objective import fraction, positive


@dataclass(frozen=True)
class Deficiency(Record):
    """`word_rank` and `mask_rank`: directions that states of words and of [MASK] fill; `both_rank`: together; `mask_only`:
    the share of the masks' energy outside of the words' directions; `width`: D."""

    word_rank: int
    mask_rank: int
    both_rank: int
    mask_only: float
    width: int


def numerical_rank(states: np.ndarray, epsilon: float) -> int:
    """The least k with sum_(i <= k) s_i^2 >= (1 - epsilon) sum_i s_i^2, s the singular values of the states (n, D).

    >>> numerical_rank(np.diag([3.0, 1.0, 0.1]), 0.01)
    2
    """
    energy = np.linalg.svd(states, compute_uv=False) ** 2
    return int(np.searchsorted(np.cumsum(energy), (1 - epsilon) * energy.sum()) + 1)


@register(
    "representation_deficiency",
    kind="analysis",
    family="representation",
    papers=[Paper("Representation Deficiency in Masked Language Modeling", "Meng et al.", 2024, arxiv="2302.02060")],
)
class RepresentationDeficiency(Analysis):
    """Do words fill the width of a layer? Numerical ranks k_eps = min {k: sum_(i <= k) s_i^2 >= (1 - eps) sum_i s_i^2}.

    Call with `words` (n, D) and `masks` (m, D): a layer's states at words and at [MASK]. Gives a `Deficiency`: k_eps of both,
    s their singular values, and of both together; and the share of ||masks||^2 that lies outside of the k_eps first right
    singular vectors of the words. A model that was pretrained on texts with [MASK] keeps directions for it alone: then words
    fill less than the width, and both together more than words. The objective `mae_lm` is the paper's remedy.

    epsilon: 0.01; which threshold the paper calls effective, and whether of squares, could not be verified. The states
    are taken as they are, not centred. With fewer states than D, the rank is bounded by their number: give several times D
    of both. Raises RecipeError for an epsilon outside (0, 1), DataError for states of two widths or of zeros. Reference: Meng
    et al. 2024.
    """

    def __init__(self, *, epsilon: float = 0.01) -> None:
        self.epsilon = fraction("epsilon", positive("epsilon", epsilon))

    def __call__(self, *, words: Any, masks: Any) -> Deficiency:  # type: ignore[override]
        found = {name: numbers(name, each, dimensions=2) for name, each in (("words", words), ("masks", masks))}
        if found["words"].shape[1] != found["masks"].shape[1]:
            raise DataError(
                f"states of width {found['words'].shape[1]} and {found['masks'].shape[1]}: give two kinds of one layer"
            )
        if not all(each.any() for each in found.values()):
            raise DataError("all states are zeros: give those of a layer")
        rank = numerical_rank(found["words"], self.epsilon)
        _, _, directions = np.linalg.svd(found["words"], full_matrices=False)
        inside = found["masks"] @ directions[:rank].T
        # Each kind as heavy as the other, however many states there are of it.
        both = np.concatenate([each / np.linalg.norm(each) for each in found.values()])
        return Deficiency(
            word_rank=rank,
            mask_rank=numerical_rank(found["masks"], self.epsilon),
            both_rank=numerical_rank(both, self.epsilon),
            mask_only=float(1 - (inside**2).sum() / (found["masks"] ** 2).sum()),
            width=found["words"].shape[1],
        )
