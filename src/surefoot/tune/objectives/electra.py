"""ELECTRA: tell replaced tokens from original ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.models.model import Model
from surefoot.models.vocabulary import word_embeddings
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective, Space, fraction, positive
from surefoot.tune.step import Step


@register(
    "electra",
    kind="objective",
    family="self_supervised",
    papers=[
        Paper(
            "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators",
            "Clark et al.",
            2020,
            arxiv="2003.10555",
        )
    ],
)
class ELECTRA(Objective):
    """Replaced-token detection on the training texts, without their labels: L_MLM + discriminator_weight L_disc.

    A share of the tokens is masked; a small generator reads the rest and learns to guess them, L_MLM = the mean of
    -log p_G(x_t) over the masked places. One token is drawn from p_G for each of these places, through which nothing
    flows back, and the encoder reads the text that comes of it: L_disc = the mean over all tokens but padding of the
    binary cross-entropy of D(h_t) with whether the token was replaced; one that was drawn as it was counts as original.
    h_t: last state of the encoder (D,); D: two layers. Gives a scalar in nats.

    The generator is a transformer of the encoder's depth and `width` times its width, random at first as is D; both
    train along and are dropped at the end. It shares the word embeddings with the encoder, in and out; its positions
    are its own. Beside cross-entropy this goes on with pretraining on the user's texts; alone, it is pretraining.

    discriminator_weight: 50, the paper's, so that a recipe's weight of 0.02 weighs L_disc by 1. share: of tokens that
    are masked, 0.15, the paper's. width: 0.25, the smallest that the paper recommends (to 0.5).

    Costs a pass of the encoder and one of the generator. State: weights of generator and D. Raises RecipeError for
    other values, or a model that reads no text or has no mask token. Reference: Clark et al. 2020.

    >>> ELECTRA(share=0.2).discriminator_weight
    50.0
    """

    needs = frozenset({"inputs", "hidden_states", "tokens", "layers"})

    reads_labels = False

    def __init__(self, *, discriminator_weight: float = 50.0, share: float = 0.15, width: float = 0.25) -> None:
        super().__init__()
        self.discriminator_weight = positive("discriminator_weight", discriminator_weight, zero=True)
        self.share = fraction("share", positive("share", share))
        self.width = fraction("width", positive("width", width), one=True)

    def setup(self, context: Context) -> None:
        model = context.model
        tokenizer: Any = getattr(model.processor, "tokenizer", None)
        if tokenizer is None or getattr(tokenizer, "mask_token_id", None) is None or not model.layers:
            raise RecipeError(
                "electra masks tokens, and this model has no mask token or no blocks: leave it out, or choose an encoder of text such as `minilm`"
            )
        self.mask_id_ = int(tokenizer.mask_token_id)
        self.special_ = sorted(int(each) for each in tokenizer.all_special_ids)
        table = word_embeddings(model)
        self.small = _generator(model, dim=table.shape[1], width=self.width)
        hidden = self.small.config.hidden_size
        self.guess = nn.Sequential(nn.Linear(hidden, table.shape[1]), nn.GELU(), nn.LayerNorm(table.shape[1]))
        self.bias = nn.Parameter(torch.zeros(len(table)))
        self.discriminator = nn.Sequential(nn.Linear(model.dim, model.dim), nn.GELU(), nn.Linear(model.dim, 1))

    def forward(self, step: Step) -> Tensor:
        ids, mask = step.batch.inputs["input_ids"], step.batch.inputs["attention_mask"]
        masked = self._masked(ids, mask, step.generator)
        corrupted, guessing = self._replaced(step, ids, mask, masked)
        states = step.again(inputs={**step.batch.inputs, "input_ids": corrupted}).hidden_states
        assert states is not None, "`needs` holds hidden_states"
        scores = self.discriminator(states[-1].float()).squeeze(2)
        seen = mask.bool()
        found = F.binary_cross_entropy_with_logits(scores[seen], (corrupted != ids).float()[seen])
        return guessing + self.discriminator_weight * found

    def _masked(self, ids: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Which tokens are masked: (B, T), bool."""
        words = mask.bool() & ~torch.isin(ids, torch.tensor(self.special_, device=ids.device))
        drawn = torch.rand(ids.shape, generator=generator, device=generator.device).to(ids.device)
        return words & (drawn < self.share)

    def _replaced(self, step: Step, ids: Tensor, mask: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
        """The text with the generator's guesses (B, T), and the generator's loss ()."""
        if not masked.any():
            return ids, torch.zeros((), device=ids.device)
        table = word_embeddings(step.model)
        embedded = F.embedding(ids.masked_fill(masked, self.mask_id_), table)
        states = self.small(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
        logits = self.guess(states[masked]) @ table.T + self.bias
        chances = logits.detach().softmax(1).to(step.generator.device)
        drawn = torch.multinomial(chances, 1, generator=step.generator).squeeze(1).to(ids.device)
        return ids.masked_scatter(masked, drawn), F.cross_entropy(logits, ids[masked])

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"share": Space(0.05, 0.4)}


def _generator(model: Model, *, dim: int, width: float) -> Any:
    from transformers import ElectraConfig, ElectraModel

    config: Any = model.backbone.config
    heads = max(1, round(width * config.num_attention_heads))
    hidden = max(1, round(width * config.hidden_size / heads)) * heads
    return ElectraModel(
        ElectraConfig(
            vocab_size=1,  # the words come from the encoder
            pad_token_id=0,
            embedding_size=dim,
            hidden_size=hidden,
            intermediate_size=4 * hidden,
            num_hidden_layers=len(model.layers),
            num_attention_heads=heads,
            max_position_embeddings=config.max_position_embeddings,
        )
    )
