"""SimLM: restore a text whose words were replaced, in full, through the one vector of its encoder."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.errors import ModelError, RecipeError
from surefoot.models.model import Model
from surefoot.models.shallow_decoder import WordHead, embedded, pooled, through, top_layers
from surefoot.models.vocabulary import word_embeddings
from surefoot.registry import Paper, register
from surefoot.tune.masking import WordMasking
from surefoot.tune.objective import Context, Objective, Space, fraction, one_of, positive
from surefoot.tune.objectives.electra import _generator as small_encoder
from surefoot.tune.selections import whole
from surefoot.tune.step import Step

#: How much the words that a generator in training guesses weigh: `rlm_generator_mlm_weight` of the authors' script.
GENERATOR_WEIGHT = 0.2


class Generator(nn.Module):
    """Guesses masked words: a frozen copy of the starting encoder with its own output, or a small one that trains along."""

    def __init__(self, model: Model, head: WordHead) -> None:
        super().__init__()
        self.trains = not head.found
        if self.trains:
            table = word_embeddings(model)
            self.encoder = small_encoder(model, dim=table.shape[1], width=0.25)
            width = self.encoder.config.hidden_size
            self.guess = nn.Sequential(nn.Linear(width, table.shape[1]), nn.GELU(), nn.LayerNorm(table.shape[1]))
            self.bias = nn.Parameter(torch.zeros(len(table)))
        else:
            # Not registered: what never changes need not be in every checkpoint of the training.
            self.__dict__["frozen"] = deepcopy(model).eval().requires_grad_(False)
            self.__dict__["output"] = deepcopy(head).eval().requires_grad_(False)

    def forward(self, model: Model, masked: Tensor, seen: Tensor, where: Tensor) -> Tensor:
        """Logits (n, V) at the n places `where` of the masked texts (B, T)."""
        if self.trains:
            table = word_embeddings(model)
            states = self.encoder(inputs_embeds=F.embedding(masked, table), attention_mask=seen).last_hidden_state
            logits: Tensor = self.guess(states[where]) @ table.T + self.bias
            return logits
        with torch.no_grad():
            frozen: Model = self.__dict__["frozen"]
            backbone: Any = frozen.backbone
            states = backbone(input_ids=masked, attention_mask=seen).last_hidden_state
            found: Tensor = self.__dict__["output"](frozen, states[where])
            return found


@register(
    "simlm",
    kind="objective",
    family="self_supervised",
    papers=[
        Paper(
            "SimLM: Pre-training with Representation Bottleneck for Dense Passage Retrieval",
            "Wang et al.",
            2022,
            arxiv="2207.02578",
        )
    ],
)
class SimLM(Objective):
    """Replaced language modelling with a bottleneck: L = L_enc + L_dec, both mean -log p(x_t) over every word t of a text.

    A generator replaces words of the text x twice: 30% of them for the encoder and 50%, those among them, for the decoder,
    drawn from what it takes for likely there, so that one cannot see which were replaced. Encoder and decoder both say
    what stood at every place:

        L_enc = -log softmax(head(h_t))[x_t],  h = Encoder(x_enc)
        L_dec = -log softmax(head(g_t))[x_t],  g = Decoder(v, e_2, ..., e_T),  e = embeddings(x_dec)

    h_t (D,): the encoder's last states, v (D,): the text's one vector, in the place of the first token. The decoder is two
    blocks, at the start copies of the encoder's topmost, so that what a half-replaced text lacks has to come through v.
    Means over the words, marks left out. Gives a scalar in nats.

    encoder_share: 0.3, decoder_share: 0.5, decoder_layers: 2 (at most the encoder's own): the authors' script
    (`train_rlm.sh`, `rlm.py`). bottleneck: `pooled`, the vector that the model is used by; `cls`, the first state, the
    paper's. The generator there is ELECTRA's, frozen. Here it is a frozen copy of the starting encoder where its checkpoint
    has an output layer for masked words; otherwise a small one trains along with a weight of 0.2, which that code offers
    too. Both losses share the output layer, the checkpoint's own or a fresh one, with the input embeddings as its table.

    Needs no labels. Costs a pass, one of the generator, one of the decoder, and the output layer at every word twice.
    State: weights of decoder, output and a generator that trains. Raises RecipeError for shares outside (0, 1) or a
    decoder's below the encoder's, for no layers, or for a model that is no encoder of text with a mask token and tied
    words. Reference: Wang et al. 2022.

    >>> SimLM().decoder_layers
    2
    """

    needs = frozenset({"inputs", "hidden_states", "tokens", "layers"})
    reads_labels = False

    def __init__(
        self,
        *,
        encoder_share: float = 0.3,
        decoder_share: float = 0.5,
        decoder_layers: int = 2,
        bottleneck: str = "pooled",
    ) -> None:
        super().__init__()
        self.encoder_share = fraction("encoder_share", positive("encoder_share", encoder_share))
        self.decoder_share = fraction("decoder_share", positive("decoder_share", decoder_share))
        if decoder_share < encoder_share:
            raise RecipeError(
                f"`decoder_share` is {decoder_share}: the decoder reads less than the encoder, so it must be {encoder_share} at least"
            )
        self.decoder_layers = whole("decoder_layers", decoder_layers, least=1)
        self.bottleneck = one_of("bottleneck", bottleneck, ["pooled", "cls"])

    def setup(self, context: Context) -> None:
        model = context.model
        self.masking_ = WordMasking("simlm", model)
        self.head = WordHead(model)
        self.decoder = top_layers(model, self.decoder_layers)
        try:
            self.generator = Generator(model, self.head)
        except AttributeError as error:
            raise ModelError(
                f"simlm: `{model.name}` is of an architecture that has no small likeness ({error})"
            ) from error

    def forward(self, step: Step) -> Tensor:
        model, inputs = step.model, step.batch.inputs
        ids, seen = inputs["input_ids"], inputs["attention_mask"]
        words = self.masking_.words(ids, seen)
        for_encoder, for_decoder = self._hidden(ids, seen, step.generator)
        read, guessing = self._replaced(step, for_encoder)
        output = step.again(inputs={**inputs, "input_ids": read})
        assert output.hidden_states is not None, "`needs` holds hidden_states"
        states = output.hidden_states[-1].float()
        if not words.any():
            return 0.0 * states.sum()
        vector = states[:, 0] if self.bottleneck == "cls" else pooled(model, output, inputs)
        with torch.no_grad():
            left, _ = self._replaced(step, for_decoder)
        below = torch.cat([vector[:, None], embedded(model, {**inputs, "input_ids": left})[:, 1:]], 1)
        rebuilt = through(model, self.decoder, below, seen, left)
        losses = [F.cross_entropy(self.head(model, each[words]), ids[words]) for each in (states, rebuilt)]
        return losses[0] + losses[1] + GENERATOR_WEIGHT * guessing

    def _hidden(self, ids: Tensor, seen: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Which words are replaced for the encoder, and which for the decoder: the same and others, (B, T), bool."""
        first = self.masking_.draw(ids, seen, self.encoder_share, generator)[:, 0]
        # Two draws that know nothing of each other hide s + (1 - s) x of the words.
        more = (self.decoder_share - self.encoder_share) / (1 - self.encoder_share)
        return first, first | self.masking_.draw(ids, seen, more, generator)[:, 0] if more > 1e-4 else first

    def _replaced(self, step: Step, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The text with the generator's words in the hidden places (B, T), and the generator's own loss ()."""
        ids, seen = step.batch.inputs["input_ids"], step.batch.inputs["attention_mask"]
        if not hidden.any():
            return ids, torch.zeros((), device=ids.device)
        masked = ids.masked_fill(hidden, self.masking_.mask_id)
        logits = self.generator(step.model, masked, seen, hidden)
        chances = logits.detach().softmax(1).to(step.generator.device)
        drawn = torch.multinomial(chances, 1, generator=step.generator).squeeze(1).to(ids.device)
        loss = F.cross_entropy(logits, ids[hidden]) if self.generator.trains else torch.zeros((), device=ids.device)
        return ids.masked_scatter(hidden, drawn), loss

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"encoder_share": Space(0.1, 0.5), "decoder_share": Space(0.5, 0.9)}
