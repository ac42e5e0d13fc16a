"""RetroMAE: rebuild a text from its one vector and what little of it is left to read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.errors import ModelError, RecipeError
from surefoot.models.model import Model
from surefoot.models.shallow_decoder import WordHead, embedded, pooled, position_embeddings
from surefoot.registry import Paper, register
from surefoot.tune.masking import WordMasking
from surefoot.tune.objective import Context, Objective, Space, fraction, one_of, positive
from surefoot.tune.step import Step

PAPER = Paper(
    "RetroMAE: Pre-Training Retrieval-oriented Language Models Via Masked Auto-Encoder",
    "Xiao et al.",
    2022,
    arxiv="2205.12035",
)
SMALL = Paper(
    "Some Like It Small: Czech Semantic Embedding Models for Industry Applications",
    "Bednář et al.",
    2024,
    link="https://ojs.aaai.org/index.php/AAAI/article/view/30307",
)


class EnhancedDecoder(nn.Module):
    """One block whose queries (B, T, D) are not what it reads, keys = values (B, T, D): attention, then feed-forward.

    h = LayerNorm(q + Attention(q, k, k)), out = LayerNorm(h + W_2 GELU(W_1 h)): BERT's block, random at the start.
    hidden: (B, T, T), what each place may not look at.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        dim, dropout = config.hidden_size, float(getattr(config, "hidden_dropout_prob", 0.1))
        self.heads = int(config.num_attention_heads)
        self.attention = nn.MultiheadAttention(
            dim, self.heads, dropout=float(getattr(config, "attention_probs_dropout_prob", 0.1)), batch_first=True
        )
        self.norm = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, config.intermediate_size), nn.GELU(), nn.Linear(config.intermediate_size, dim)
        )
        self.last_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=float(getattr(config, "initializer_range", 0.02)))
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, queries: Tensor, keys: Tensor, hidden: Tensor) -> Tensor:
        mask = hidden.repeat_interleave(self.heads, 0)
        found, _ = self.attention(queries, keys, keys, attn_mask=mask, need_weights=False)
        inner: Tensor = self.norm(queries + self.dropout(found))
        out: Tensor = self.last_norm(inner + self.dropout(self.feed_forward(inner)))
        return out


@register("retromae", kind="objective", family="self_supervised", papers=[PAPER, SMALL])
class RetroMAE(Objective):
    """Masked auto-encoding for embeddings: L = L_enc + L_dec, both mean -log p of words that are hidden.

    L_enc: 30% of a text is hidden, and the encoder guesses it from the rest, as BERT does. L_dec: the encoder's vector v
    of that text (D,) and one new block guess every word x_t once more. Place t asks with q_t = v + p_t and reads
    k = (v, e_1, ..., e_T) but for its own word and another random 50% of the words, drawn for each place anew:

        L_dec = mean over words t of -log softmax(head(Block(q, k)_t))[x_t]

    e (T, D): the unmasked text's input embeddings; p (T, D): the encoder's position embeddings. So little is left to
    read that v has to hold the text. Gives a scalar in nats.

    encoder_share: 0.3, decoder_share: 0.5, of tokens, whole words: the authors' code (`src/pretrain`), which this
    follows; hidden for the encoder means [MASK] for 80%, a random token for 10%, itself for 10%. bottleneck: `pooled`,
    the vector that the model is used by; `cls`, the first state, the paper's. They are the same for a model that pools so.
    Both losses share one output layer for masked words with the input embeddings as its table: the checkpoint's own, or a
    fresh one. It and the block, which starts at random, train along and are dropped.

    Needs no labels. It is the first half of the recipe for small languages: `retromae` (or `distil`) and then `simcse`
    on the model that comes of it. Costs a pass, one block, and the output layer at every word. State: weights of block
    and output. Raises RecipeError for shares outside (0, 1), or for a model that is no encoder of text with a mask
    token, tied words and a table of positions. Reference: Xiao et al. 2022; Bednář et al. 2024.

    >>> RetroMAE(bottleneck="cls").decoder_share
    0.5
    """

    needs = frozenset({"inputs", "hidden_states", "tokens", "layers"})
    reads_labels = False

    def __init__(self, *, encoder_share: float = 0.3, decoder_share: float = 0.5, bottleneck: str = "pooled") -> None:
        super().__init__()
        self.encoder_share = fraction("encoder_share", positive("encoder_share", encoder_share))
        self.decoder_share = fraction("decoder_share", positive("decoder_share", decoder_share))
        self.bottleneck = one_of("bottleneck", bottleneck, ["pooled", "cls"])

    def setup(self, context: Context) -> None:
        model = context.model
        self.masking_ = WordMasking("retromae", model)
        try:
            position_embeddings(model, 1)
        except ModelError as error:
            raise RecipeError(f"retromae: {error}") from error
        self.decoder = EnhancedDecoder(model.backbone.config)
        self.head = WordHead(model)

    def forward(self, step: Step) -> Tensor:
        model, ids, seen = step.model, step.batch.inputs["input_ids"], step.batch.inputs["attention_mask"]
        hidden = self.masking_.draw(ids, seen, self.encoder_share, step.generator)[:, 0]
        read = self.masking_.hide(ids, hidden, step.generator, vocabulary=len(self.head.bias))
        output = step.again(inputs={**step.batch.inputs, "input_ids": read})
        assert output.hidden_states is not None, "`needs` holds hidden_states"
        states = output.hidden_states[-1].float()
        vector = states[:, 0] if self.bottleneck == "cls" else pooled(model, output, step.batch.inputs)
        return self._guessing(model, states, ids, hidden) + self._rebuilding(step, vector)

    def _guessing(self, model: Model, states: Tensor, ids: Tensor, where: Tensor) -> Tensor:
        """Mean of -log p over the places `where`; 0 where there is none."""
        if not where.any():
            return 0.0 * states.sum()
        return F.cross_entropy(self.head(model, states[where]), ids[where])

    def _rebuilding(self, step: Step, vector: Tensor) -> Tensor:
        """L_dec, from the texts' vectors (B, D)."""
        model, ids, seen = step.model, step.batch.inputs["input_ids"], step.batch.inputs["attention_mask"]
        length = ids.shape[1]
        keys = torch.cat([vector[:, None], embedded(model, step.batch.inputs)[:, 1:]], 1)
        queries = vector[:, None] + position_embeddings(model, length)
        unread = self.masking_.draw(ids, seen, self.decoder_share, step.generator, copies=length)
        unread = unread | torch.eye(length, dtype=torch.bool, device=ids.device) | ~seen.bool()[:, None]
        unread[:, :, 0] = False  # where v stands
        rebuilt = self.decoder(queries, keys, unread)
        return self._guessing(model, rebuilt, ids, self.masking_.words(ids, seen))

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"encoder_share": Space(0.1, 0.5), "decoder_share": Space(0.3, 0.9)}
