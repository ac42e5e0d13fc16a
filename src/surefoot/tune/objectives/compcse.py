"""CompCSE: a text and what its two halves make together are each other's positives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.masking import WordMasking
from surefoot.tune.objective import Context, Objective, Space, one_of, positive
from surefoot.tune.objectives.views import contrast, projector
from surefoot.tune.selections import whole
from surefoot.tune.step import Step


@register(
    "compcse",
    kind="objective",
    family="contrastive",
    papers=[
        Paper(
            "Composition-contrastive Learning for Sentence Embeddings",
            "Chanchani and Huang",
            2023,
            arxiv="2307.07380",
        )
    ],
)
class CompCSE(Objective):
    """A text finds its own halves among the batch: l_i = -log exp(cos(z_i, z'_i) / t) / sum_j exp(cos(z_i, z'_j) / t).

    z_i: the first d_0 numbers of tanh(W f_i + b), z'_i: of tanh(W (a_i + b_i) / 2 + b); f_i, a_i, b_i (D,): features of
    the text, of its first and of its second half, each a text of its own between the model's marks. Gives (B,) in nats, 0
    for a batch of one. Needs no labels, and no dropout: positives differ in what is read. A text of one word is its own
    halves.

    A text is cut before a whole word. cut: "middle" (default), at the word nearest to the middle of the tokens, or
    "random"; the authors cut by a discourse parser where that finds parts. compose: "mean", the authors' for BERT, or
    "join": the first half of the numbers from a_i and the second from b_i, theirs for RoBERTa. width: d_0; None (default)
    for a third of D, the authors' 256 of 768. temperature: t, 0.05, theirs. W, b: BERT's pooler, random at the start, in
    training alone, and dropped.

    Costs one pass over the halves, about that of the texts again. State: W and b. Raises RecipeError for values out of
    range, a model that does not read text from both sides, or that writes a template around it. Reference: Chanchani and
    Huang 2023, section 3; perceptiveshawty/CompCSE, compcse/models.py.

    >>> CompCSE(compose="join").cut
    'middle'
    """

    needs = frozenset({"inputs", "tokens", "layers"})
    reads_labels = False

    def __init__(
        self,
        *,
        temperature: float = 0.05,
        cut: Literal["middle", "random"] = "middle",
        compose: Literal["mean", "join"] = "mean",
        width: int | None = None,
    ) -> None:
        super().__init__()
        self.temperature = positive("temperature", temperature)
        self.cut = one_of("cut", cut, ["middle", "random"])
        self.compose = one_of("compose", compose, ["mean", "join"])
        self.width = None if width is None else whole("width", width, least=1)

    def setup(self, context: Context) -> None:
        model = context.model
        self.masking_ = WordMasking("compcse", model)
        if getattr(model.processor, "template", None) is not None:
            raise RecipeError(
                f"compcse cuts a text in two, and `{model.name}` writes a template around it: leave it out, or load the model with another pooling"
            )
        tokenizer: Any = model.processor.tokenizer  # type: ignore[attr-defined]
        words = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else {}
        self.inside_ = {place for word, place in words.items() if word.startswith("##")}
        self.pad_ = int(tokenizer.pad_token_id)
        self.width_ = min(self.width or max(1, model.dim // 3), model.dim)
        self.projector = projector(model.dim)

    def per_example(self, step: Step) -> Tensor:
        halves = step.again(inputs=self.halves(step.batch.inputs, step.generator)).features
        composed = self.composed(*halves.chunk(2))
        first, second = self.projector(torch.cat([step.output.features, composed]))[:, : self.width_].chunk(2)
        return contrast(first, second, self.temperature)

    def composed(self, left: Tensor, right: Tensor) -> Tensor:
        """(B, D) of the features of both halves."""
        if self.compose == "mean":
            return (left + right) / 2
        middle = left.shape[1] // 2
        return torch.cat([left[:, :middle], right[:, middle:]], 1)

    def halves(self, inputs: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """All first halves and then all second ones, as a batch of 2B texts."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        words = self.masking_.words(ids, mask)
        lefts, rights = [], []
        for row, seen, word in zip(ids.tolist(), mask.tolist(), words.tolist(), strict=True):
            tokens = [token for token, there in zip(row, seen, strict=True) if there]
            places = [place for place, is_word in enumerate(word) if is_word]
            begin, end = (places[0], places[-1] + 1) if places else (0, len(tokens))
            at = self._cut(tokens, begin, end, generator)
            lefts.append(tokens[:at] + tokens[end:] if at > begin else tokens)
            rights.append(tokens[:begin] + tokens[at:] if at > begin else tokens)
        return padded(lefts + rights, self.pad_, ids.device)

    def _cut(self, tokens: list[int], begin: int, end: int, generator: torch.Generator) -> int:
        """Where the second half begins; `begin` where there is but one word."""
        starts = [place for place in range(begin + 1, end) if tokens[place] not in self.inside_]
        if not starts:
            return begin
        if self.cut == "random":
            return starts[int(torch.randint(len(starts), (1,), generator=generator, device=generator.device))]
        return min(starts, key=lambda place: abs(2 * place - begin - end))

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"temperature": Space(0.01, 0.2, log=True)}


def padded(rows: list[list[int]], pad: int, device: torch.device) -> dict[str, Tensor]:
    """Token ids of texts of different lengths as a batch: `input_ids` and `attention_mask` (N, T).

    >>> padded([[5, 6], [7]], 0, torch.device("cpu"))["input_ids"].tolist()
    [[5, 6], [7, 0]]
    """
    width = max(len(row) for row in rows)
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return {"input_ids": ids, "attention_mask": (torch.arange(width, device=device) < lengths[:, None]).long()}
