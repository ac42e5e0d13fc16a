"""MSLM: guess masked words and find the entities among them, with more weight on entities."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.errors import ModelError, RecipeError
from surefoot.models.vocabulary import check_vocabulary, is_causal, vocabulary, word_embeddings
from surefoot.registry import Paper, register
from surefoot.tune.entities import Entities
from surefoot.tune.objective import Context, Objective, Space, fraction
from surefoot.tune.step import Step


@register(
    "mslm",
    kind="objective",
    family="self_supervised",
    papers=[
        Paper(
            "Improving Pre-trained Language Model Sensitivity via Mask Specific losses: A case study on Biomedical NER",
            "Abaho et al.",
            2024,
            arxiv="2403.18025",
        )
    ],
)
class MSLM(Objective):
    """Mask-specific losses: (1 + M) (1/T) sum_t v_t [CE(p_t, x_t) + CE(e_t, s_t)], M: how many tokens are masked.

    Of each text a share of the entities is masked whole, and a share of the other words one by one, drawn anew in every
    step. x_t: the token that was there, masked or not; p_t: softmax over the vocabulary of what the encoder says at t;
    s_t: whether t lies in an entity; e_t: softmax of a linear layer on the same state; T: the text's tokens, padding
    left out. v_t = 1 + w_E on masked entities, 1 + w_B on other masked words, 1 elsewhere, with (w_E, w_B) =
    softmax(max(0.5, r), min(0.5, r)), r: the share of entities among the masked tokens of the training set. Gives (B,),
    in nats times (1 + M). With both shares 0 it is the plain mean over tokens of both cross-entropies.

    entity_share: of entities, 0.25; other_share: of other words, 0.15; the authors' first values: they tune both for
    every model and data set. They mask a corpus once and count r there; r is the expected one here. Their second task
    tells the types of entities, as a tagger; the data's `entities` are spans without types, so that it is inside or
    outside here. Texts without entities teach the other words.

    The output layer is BERT's for masked words: a linear layer, GELU and a norm before the product with the word
    embeddings. It and the tagger start at random (no checkpoint's own is read), train along and are dropped. One pass of
    its own. State: their weights. Raises RecipeError for shares outside [0, 1], and before the first step for data
    without the column `entities` (pairs [start, end] of characters), a causal model or one without a mask token.
    Reference: Abaho et al. 2024, section 3.

    >>> MSLM(entity_share=0.5).other_share
    0.15
    """

    needs = frozenset({"inputs", "hidden_states", "tokens", "layers", "entities", "index"})
    reads_labels = False

    def __init__(self, *, entity_share: float = 0.25, other_share: float = 0.15) -> None:
        super().__init__()
        self.entity_share = fraction("entity_share", entity_share, one=True)
        self.other_share = fraction("other_share", other_share, one=True)

    def setup(self, context: Context) -> None:
        model, dim = context.model, context.model.dim
        tokenizer: Any = getattr(model.processor, "tokenizer", None)
        if getattr(tokenizer, "mask_token_id", None) is None or is_causal(model) or context.entities is None:
            raise RecipeError(
                "mslm guesses masked words from both sides, and this model has no mask token or reads from one side: leave it out, or choose an encoder of text such as `minilm`"
            )
        try:
            check_vocabulary(model)
        except ModelError as error:
            raise RecipeError(f"mslm: {error}") from error
        self.mask_id_ = int(tokenizer.mask_token_id)
        self.special_ = sorted(int(each) for each in tokenizer.all_special_ids)
        self.entities_: Entities = context.entities
        self.weights_ = self._weights(self.entities_)
        self.transform = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim))
        self.bias = nn.Parameter(torch.zeros(len(word_embeddings(model))))
        self.tagger = nn.Linear(dim, 2)

    def _weights(self, entities: Entities) -> tuple[float, float]:
        """(w_E, w_B)."""
        inside = int((entities.spans > 0).sum())
        masked = self.entity_share * inside, self.other_share * (len(entities.spans) - inside)
        r = masked[0] / sum(masked) if sum(masked) else 0.5
        high, low = math.exp(max(0.5, r)), math.exp(min(0.5, r))
        return high / (high + low), low / (high + low)

    def per_example(self, step: Step) -> Tensor:
        ids, seen = step.batch.inputs["input_ids"], step.batch.inputs["attention_mask"].bool()
        spans = self.entities_.batch(step.batch.index, ids.shape[1]) * seen
        entity, other = self._masked(ids, seen, spans, step.generator)
        read = ids.masked_fill(entity | other, self.mask_id_)
        states = step.again(inputs={**step.batch.inputs, "input_ids": read}).hidden_states
        assert states is not None, "`needs` holds hidden_states"
        found = states[-1].float()[seen]
        guessed = vocabulary(step.model, self.transform(found)) + self.bias
        tagged = self.tagger(found)
        losses = F.cross_entropy(guessed, ids[seen], reduction="none")
        losses = losses + F.cross_entropy(tagged, (spans > 0).long()[seen], reduction="none")
        weights = 1 + self.weights_[0] * entity + self.weights_[1] * other
        placed = torch.zeros(ids.shape, device=ids.device).masked_scatter(seen, weights[seen] * losses)
        means = placed.sum(1) / seen.sum(1).clamp_min(1)
        return (1 + (entity | other).sum(1)) * means

    def _masked(self, ids: Tensor, seen: Tensor, spans: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Which tokens of entities and which others are masked: (B, T), bool, each. Marks never are."""
        words = seen & ~torch.isin(ids, torch.tensor(self.special_, device=ids.device))
        drawn = torch.rand((2, *ids.shape), generator=generator, device=generator.device).to(ids.device)
        # One draw for each entity, read by all of its tokens: spans are counted from 1, and there are at most T.
        whole = drawn[0].gather(1, spans.clamp(min=1, max=ids.shape[1]) - 1) < self.entity_share
        return words & (spans > 0) & whole, words & (spans == 0) & (drawn[1] < self.other_share)

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"entity_share": Space(0.05, 0.5), "other_share": Space(0.05, 0.3)}
