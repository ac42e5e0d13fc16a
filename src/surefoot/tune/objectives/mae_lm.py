"""MAE-LM: masked language modelling whose encoder never sees a mask."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.models.model import Model
from surefoot.models.shallow_decoder import WordHead, embedded_vectors, through, top_layers
from surefoot.models.vocabulary import word_embeddings
from surefoot.registry import Paper, register
from surefoot.tune.masking import WordMasking
from surefoot.tune.objective import Context, Objective, Space, fraction, positive
from surefoot.tune.selections import whole
from surefoot.tune.step import Step


@register(
    "mae_lm",
    kind="objective",
    family="self_supervised",
    papers=[Paper("Representation Deficiency in Masked Language Modeling", "Meng et al.", 2024, arxiv="2302.02060")],
)
class MAELM(Objective):
    """Masked auto-encoding: L = mean over left-out words t of -log softmax(head(g_t))[x_t], g = Decoder(h with [MASK] put in).

    The encoder reads the text without the words that are to be guessed, each remaining one at its own position, and
    gives h_t (D,) for those alone. A shallow decoder reads h_t where there is one, the embedding of [MASK] elsewhere, and
    their positions again:

        g = Decoder(LayerNorm(z + p)),  z_t = h_t, or E[MASK] for a left-out word

    So no dimension of the encoder is spent on telling masks from words, as masked language modelling makes it. A text
    without its left-out words is computed as one in which nothing may look at them, which comes to the same. Gives a scalar
    in nats.

    share: of tokens left out, 0.15, BERT's, drawn one by one; the authors' script leaves it at their toolkit's default.
    decoder_layers: 4 (theirs), at most the encoder's own; fresh ones of the encoder's kind, without the relative positions
    that they give both sides. Output: the checkpoint's own for masked words, or a fresh one, with the input embeddings as
    its table. Decoder and output train along and are dropped.

    How much of the encoder's width real words use, before and after: the analysis `representation_deficiency`. Needs no labels.
    Costs a pass and one of the decoder. State: weights of decoder and output. Raises RecipeError for a share outside
    (0, 1), for no layers, or for a model that is no encoder of text with a mask token and tied words.
    Reference: Meng et al. 2024.

    >>> MAELM(decoder_layers=2).share
    0.15
    """

    needs = frozenset({"inputs", "hidden_states", "tokens", "layers"})
    reads_labels = False

    def __init__(self, *, share: float = 0.15, decoder_layers: int = 4) -> None:
        super().__init__()
        self.share = fraction("share", positive("share", share))
        self.decoder_layers = whole("decoder_layers", decoder_layers, least=1)

    def setup(self, context: Context) -> None:
        self.masking_ = WordMasking("mae_lm", context.model)
        self.head = WordHead(context.model)
        self.decoder = top_layers(context.model, self.decoder_layers, fresh=True)

    def forward(self, step: Step) -> Tensor:
        ids, seen = step.batch.inputs["input_ids"], step.batch.inputs["attention_mask"]
        drawn = torch.rand(ids.shape, generator=step.generator, device=step.generator.device).to(ids.device)
        left_out = self.masking_.words(ids, seen) & (drawn < self.share)
        states = step.again(inputs={**step.batch.inputs, "attention_mask": seen * ~left_out}).hidden_states
        assert states is not None, "`needs` holds hidden_states"
        if not left_out.any():
            return 0.0 * states[-1].float().sum()
        rebuilt = self._decoded(step.model, states[-1].float(), left_out, ids, seen)
        return F.cross_entropy(self.head(step.model, rebuilt[left_out]), ids[left_out])

    def _decoded(self, model: Model, states: Tensor, left_out: Tensor, ids: Tensor, seen: Tensor) -> Tensor:
        """What the decoder makes of the states (B, T, D) of the words that the encoder read: (B, T, D)."""
        mask = word_embeddings(model)[self.masking_.mask_id].float()
        filled = torch.where(left_out[:, :, None], mask, states)
        return through(model, self.decoder, embedded_vectors(model, filled, seen), seen, ids)

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"share": Space(0.05, 0.5), "decoder_layers": Space(1, 6, integer=True)}
