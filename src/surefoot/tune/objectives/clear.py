"""CLEAR: two edits of a text are each other's positives, beside masked-language modelling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.models.shallow_decoder import WordHead
from surefoot.models.vocabulary import word_embeddings
from surefoot.registry import Paper, register
from surefoot.tune.masking import WordMasking
from surefoot.tune.objective import Context, Objective, Space, fraction, one_of, positive
from surefoot.tune.objectives.compcse import padded
from surefoot.tune.objectives.masked_lm import guessing_loss
from surefoot.tune.objectives.pairs import unit
from surefoot.tune.objectives.views import started
from surefoot.tune.step import Step

EDITS = ("delete_words", "delete_spans", "reorder", "substitute")
#: Spans, or pairs of spans, that an edit touches, and the share of the tokens that each has.
SPANS, LENGTH = 5, 0.05


@register(
    "clear",
    kind="objective",
    family="contrastive",
    papers=[Paper("CLEAR: Contrastive Learning for Sentence Representation", "Wu et al.", 2020, arxiv="2012.15466")],
)
class CLEAR(Objective):
    """L = mlm L_MLM + L_CL; L_CL: NT-Xent, the mean over the 2B views of -log exp(s_ij / t) / sum_(k != i) exp(s_ik / t).

    Each text is edited twice; i and j are its views, s the cosine of z = W_2 ReLU(W_1 f), f (D,) the features of a view;
    all other views of the batch are negatives. L_MLM: that of `masked_lm`, on the text itself. Gives a scalar in nats.

    views: two of "delete_words" (each token with probability `deleted`), "delete_spans" (five spans of 5% of the tokens
    each), "reorder" (five times, two such spans change places), "substitute" (each token with probability
    `substituted` becomes its nearest neighbour among the encoder's word embeddings as they are at the start). What is
    deleted leaves one mask token a run, the paper's [DEL], which no checkpoint knows. Spans and reorder by default: our
    choice among the paper's pairs. temperature: t, 0.1; deleted: 0.7; substituted: 0.3; mlm: 1. No code is public, and
    these values and the spans are the paper's as we remember it; its synonyms come from a dictionary.

    Costs a pass over both views and one for L_MLM. Needs no labels. State: W_1, W_2, random at the start, and the output
    layer; all dropped. Raises RecipeError for values out of range, edits that are not two of these, a model without mask
    token. Reference: Wu et al. 2020, section 3.

    >>> CLEAR(views=["delete_words", "reorder"]).temperature
    0.1
    """

    needs = frozenset({"inputs", "hidden_states", "tokens", "layers"})
    reads_labels = False

    def __init__(
        self,
        *,
        views: Sequence[str] = ("delete_spans", "reorder"),
        temperature: float = 0.1,
        deleted: float = 0.7,
        substituted: float = 0.3,
        mlm: float = 1.0,
    ) -> None:
        super().__init__()
        if isinstance(views, str) or len(views) != 2:
            raise RecipeError(f"`views` is {views!r}: it must be a list of two of {', '.join(EDITS)}")
        for each in views:
            one_of("views", each, EDITS)
        self.views = views
        self.temperature = positive("temperature", temperature)
        self.deleted = fraction("deleted", deleted)
        self.substituted = fraction("substituted", substituted, one=True)
        self.mlm = positive("mlm", mlm, zero=True)

    def setup(self, context: Context) -> None:
        model = context.model
        self.masking_ = WordMasking("clear", model)
        if getattr(model.processor, "template", None) is not None:
            raise RecipeError(
                f"clear edits texts, and `{model.name}` writes a template around them: leave it out, or load the model with another pooling"
            )
        tokenizer: Any = model.processor.tokenizer  # type: ignore[attr-defined]
        self.pad_ = int(tokenizer.pad_token_id)
        self.special_ = sorted(int(each) for each in tokenizer.all_special_ids)
        self.head = WordHead(model)
        self.projector = started(
            nn.Sequential(nn.Linear(model.dim, model.dim), nn.ReLU(), nn.Linear(model.dim, model.dim))
        )
        self.table_ = unit(word_embeddings(model).detach().float()) if "substitute" in self.views else None
        self.neighbours_: dict[int, int] = {}

    def forward(self, step: Step) -> Tensor:
        edited = [self.edited(step.batch.inputs, name, step.generator) for name in self.views]
        both = padded([row for view in edited for row in view], self.pad_, step.batch.index.device)
        projected = unit(self.projector(step.again(inputs=both).features))
        loss = nt_xent(projected, self.temperature)
        return loss + self.mlm * guessing_loss(step, self.masking_, self.head, 0.15) if self.mlm else loss

    def edited(self, inputs: Mapping[str, Tensor], name: str, generator: torch.Generator) -> list[list[int]]:
        """The texts of a batch after an edit, marks at their ends as they were."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        words = self.masking_.words(ids, mask)
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        rng, found = np.random.default_rng(seed), []
        for row, seen, word in zip(ids.tolist(), mask.tolist(), words.tolist(), strict=True):
            tokens = [token for token, there in zip(row, seen, strict=True) if there]
            places = [place for place, is_word in enumerate(word) if is_word]
            if not places:
                found.append(tokens)
                continue
            begin, end = places[0], places[-1] + 1
            found.append([*tokens[:begin], *self._edit(name, tokens[begin:end], rng), *tokens[end:]])
        return found

    def _edit(self, name: str, tokens: list[int], rng: np.random.Generator) -> list[int]:
        if name == "delete_words":
            return without(tokens, rng.random(len(tokens)) < self.deleted, self.masking_.mask_id)
        if name == "delete_spans":
            gone = np.zeros(len(tokens), dtype=bool)
            for begin, end in _spans(len(tokens), SPANS, rng):
                gone[begin:end] = True
            return without(tokens, gone, self.masking_.mask_id)
        if name == "reorder":
            for _ in range(SPANS):
                (a, b), (c, d) = sorted(_spans(len(tokens), 2, rng))
                if b <= c:
                    tokens = tokens[:a] + tokens[c:d] + tokens[b:c] + tokens[a:b] + tokens[d:]
            return tokens
        chosen = rng.random(len(tokens)) < self.substituted
        return [self._neighbour(token) if there else token for token, there in zip(tokens, chosen, strict=True)]

    def _neighbour(self, token: int) -> int:
        """The token whose word embedding is the nearest by cosine, itself and marks left out."""
        if token not in self.neighbours_:
            assert self.table_ is not None
            cosines = self.table_ @ self.table_[token]
            cosines[[token, *self.special_]] = -torch.inf
            self.neighbours_[token] = int(cosines.argmax())
        return self.neighbours_[token]

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"temperature": Space(0.02, 0.3, log=True), "deleted": Space(0.1, 0.8)}


def nt_xent(projected: Tensor, temperature: float) -> Tensor:
    """The loss of 2B unit vectors, of which i and B + i are two views of one text: a scalar."""
    scores = (projected @ projected.T / temperature).fill_diagonal_(-torch.inf)
    half = len(projected) // 2
    own = (torch.arange(2 * half, device=projected.device) + half) % (2 * half)
    return F.cross_entropy(scores, own)


def without(tokens: list[int], gone: np.ndarray, mark: int) -> list[int]:
    """The tokens with one mark for every run of those that are gone.

    >>> without([5, 6, 7, 8], np.array([False, True, True, False]), 0)
    [5, 0, 8]
    """
    kept = []
    for place, (token, lost) in enumerate(zip(tokens, gone, strict=True)):
        if not lost:
            kept.append(token)
        elif place == 0 or not gone[place - 1]:
            kept.append(mark)
    return kept


def _spans(count: int, spans: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Begins and ends of spans of 5% of so many tokens, at least one."""
    length = max(1, round(LENGTH * count))
    return [(int(begin), int(begin) + length) for begin in rng.integers(0, count - length + 1, spans)]
