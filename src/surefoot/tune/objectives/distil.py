"""Distillation of embeddings: put every text where a teacher puts it, and its translation too."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from surefoot.errors import ModelError, RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective
from surefoot.tune.objectives.retromae import SMALL
from surefoot.tune.step import Step


@lru_cache(maxsize=2)
def taught(teacher: str, texts: tuple[str, ...]) -> Tensor:
    """The teacher's vectors of the texts, (N, D) float32, each distinct text read once; kept for the trials of a search."""
    from surefoot import load
    from surefoot.embed.encoder import Encoder

    return torch.from_numpy(Encoder(load(teacher)).encode(texts))


def narrowed(vectors: Tensor, width: int) -> Tensor:
    """The vectors (N, D) in their `width` principal directions, as they lie, not centred; zeros where there are fewer.

    >>> narrowed(torch.tensor([[3.0, 0.0, 4.0], [6.0, 0.0, 8.0]]), 1).abs()
    tensor([[ 5.],
            [10.]])
    """
    if vectors.shape[1] == width:
        return vectors
    _, _, directions = torch.linalg.svd(vectors.double(), full_matrices=False)
    found = vectors.double() @ directions[:width].T
    signs = torch.where(directions[:width].sum(1) < 0, -1.0, 1.0)  # a direction and its opposite are one: choose
    padding = found.new_zeros(len(found), max(0, width - found.shape[1]))
    return torch.cat([found * signs, padding], 1).float()


@register(
    "distil",
    kind="objective",
    family="distillation",
    papers=[
        SMALL,
        Paper(
            "Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation",
            "Reimers, Gurevych",
            2020,
            arxiv="2004.09813",
        ),
    ],
)
class Distil(Objective):
    """Mean squared error of the student's vectors to the teacher's: l_i = ||s(x_i) - t(x_i)||^2 / D [+ ||s(y_i) - t(x_i)||^2 / D].

    s(x) (D,): the student's features, as it pools and scales them; t(x) (D,): the teacher's vector of the same text. With
    `translations`, y_i is the data's column `positive`, a translation of x_i: the student puts a sentence and its
    translation where the teacher puts the sentence, so that it learns a language that the teacher does not know. Gives (B,),
    squared units of the teacher's vectors (of length 1 for MiniLM), a mean over D.

    teacher: what `surefoot.load` opens, a name or a folder; MiniLM by default, the papers' (all-mpnet-base-v2) where there is
    a copy of it. It reads each distinct text once, before the first step, in eval mode and float32. A student narrower than
    its teacher learns the teacher's principal directions of these texts (t' = P t, P the first D right singular vectors): how
    the small models of 256 numbers were taught by one of 768 is not said in what was published.

    Needs no labels. It is the first half of the recipe for small languages: `distil` (or `retromae`), and then `simcse` on
    the model that comes of it. Costs the teacher's pass over the data, once; with translations one more pass a step.
    Raises RecipeError for a teacher that cannot be opened or reads no text, a student that is wider than its teacher, or
    data without pairs where translations are asked for. Reference: Bednář et al. 2024; Reimers and Gurevych 2020, equation 1.

    >>> Distil(teacher="minilm", translations=True).needs == {"texts", "tokens", "index", "pairs"}
    True
    """

    needs = frozenset({"texts", "tokens", "index"})
    reads_labels = False

    def __init__(self, *, teacher: str = "minilm", translations: bool = False) -> None:
        super().__init__()
        if not isinstance(teacher, str) or not teacher:
            raise RecipeError(
                f"`teacher` is {teacher!r}: it must be the name or the folder of a model, such as `minilm`"
            )
        if not isinstance(translations, bool):
            raise RecipeError(f"`translations` is {translations!r}: it must be true or false")
        self.teacher = teacher
        self.translations = translations
        if translations:
            self.needs = self.needs | {"pairs"}

    def setup(self, context: Context) -> None:
        if context.texts is None:
            raise RecipeError("distil reads the training texts, and this model reads none: leave it out")
        try:
            vectors = taught(self.teacher, tuple(context.texts))
        except ModelError as error:
            raise RecipeError(f"distil: the teacher `{self.teacher}`: {error}") from error
        width = context.model.dim
        if width > vectors.shape[1]:
            raise RecipeError(
                f"distil: the student `{context.model.name}` has {width} numbers a text and the teacher `{self.teacher}` {vectors.shape[1]}: choose a teacher as wide as the student"
            )
        # Not a buffer: it follows from texts and teacher, and need not be in every checkpoint of the training.
        self.targets_ = narrowed(vectors, width)

    def per_example(self, step: Step) -> Tensor:
        targets = self.targets_[step.batch.index.cpu()].to(step.batch.index.device)
        losses = (step.output.features - targets).square().mean(1)
        if self.translations:
            losses = losses + (step.pair("positive").features - targets).square().mean(1)
        return losses
