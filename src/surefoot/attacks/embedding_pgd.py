"""PGD on word embeddings: texts moved where no words are."""

from __future__ import annotations

from surefoot.attacks.attack import Moves
from surefoot.attacks.pgd import EPSILON, PAPER, PGD
from surefoot.registry import Paper, register


@register(
    "embedding_pgd",
    kind="attack",
    family="gradient",
    papers=[
        PAPER,
        Paper(
            "Adversarial Training Methods for Semi-Supervised Text Classification",
            "Miyato et al.",
            2017,
            arxiv="1605.07725",
        ),
    ],
)
class EmbeddingPGD(PGD):
    """PGD on input embeddings: e_t <- project(e_t + step_size g_t / ||g_t||_2), g = grad_e CE(f(e), y), token by token.

    e: input embeddings (N, T, D), each token's within a ball of epsilon times the mean norm of the embedding matrix's
    rows, the radius of continuous attacks on language models (Xhonneux et al. 2024). Gives e' (N, T, D). No sentence
    has these embeddings: what it says is how smooth the model is around a text, and an upper bound on how many
    rewordings as near could do harm; `word_substitution` writes real ones.

    epsilon: 8/255 as for pixels, in those units; steps: 10; step_size: a quarter of epsilon where None; norm: only
    `token_l2`; restarts: 1. Raises RecipeError for values out of range; ModelError for a model that reads no text.
    Reference: Madry et al. 2018; Miyato et al. 2017, section 3.

    >>> EmbeddingPGD(epsilon=0.05).norm
    'token_l2'
    """

    moves: Moves = "embeddings"  # type: ignore[misc]

    def __init__(
        self,
        *,
        epsilon: float = EPSILON,
        steps: int = 10,
        step_size: float | None = None,
        norm: str = "token_l2",
        restarts: int = 1,
    ) -> None:
        super().__init__(epsilon=epsilon, steps=steps, step_size=step_size, norm=norm, restarts=restarts)  # type: ignore[arg-type]

    @staticmethod
    def _norms() -> tuple[str, ...]:
        return ("token_l2",)
