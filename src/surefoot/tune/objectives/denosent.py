"""DenoSent: the one vector of a noisy text has to suffice to write the text out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.models.shallow_decoder import WordHead, embedded
from surefoot.registry import Paper, register
from surefoot.tune.masking import WordMasking
from surefoot.tune.objective import Context, Objective, Space, fraction
from surefoot.tune.objectives.masked_lm import choose
from surefoot.tune.objectives.views import started
from surefoot.tune.selections import whole
from surefoot.tune.step import Step


@register(
    "denosent",
    kind="objective",
    family="self_supervised",
    papers=[
        Paper(
            "DenoSent: A Denoising Objective for Self-Supervised Sentence Representation Learning",
            "Wang et al.",
            2024,
            arxiv="2401.13621",
        )
    ],
)
class DenoSent(Objective):
    """Denoising: the mean over tokens t, padding left out, of -log softmax(head(Decoder(d, v)_t))[x_t].

    v = W f(x~) + b, (D,): the features of the text x after discrete noise, the only thing that the decoder attends to
    beside its own places. d_t: the encoder's input embeddings of x, detached, of which dropout leaves `kept` = 1 - 0.825:
    continuous noise. The decoder, transformer layers without a causal mask, writes all tokens at once; head: BERT's output
    for masked words, on the encoder's own embeddings. So little of d is left that v has to hold the text. Gives a scalar in
    nats.

    noise: share of the words that are hidden in x~, as masked-language modelling hides them; 0.15, ours, where the authors
    translate forth and back. decoder_dropout: 0.825, layers: 16, heads: 1, theirs for BERT-base. Encoder and decoder are
    read by the model's own pooling, where theirs is the state of a mask in a prompt. Their whole loss is 7 times this and
    5 times that of `simcse`, whose projector is another here: {denosent: 7.0, simcse: 5.0}.

    Costs a pass over x~ and the decoder, which at 16 layers is larger than most encoders. Needs no labels. State: weights
    of W, decoder and head, random at the start and dropped. Raises RecipeError for values out of range, or a model without
    mask token. Reference: Wang et al. 2024, section 3; xinghaow99/DenoSent, model.py and README.md.

    >>> DenoSent(layers=2).decoder_dropout
    0.825
    """

    needs = frozenset({"inputs", "tokens", "layers"})
    reads_labels = False

    def __init__(
        self, *, noise: float = 0.15, decoder_dropout: float = 0.825, layers: int = 16, heads: int = 1
    ) -> None:
        super().__init__()
        self.noise = fraction("noise", noise)
        self.decoder_dropout = fraction("decoder_dropout", decoder_dropout)
        self.layers = whole("layers", layers, least=1)
        self.heads = whole("heads", heads, least=1)

    def setup(self, context: Context) -> None:
        model = context.model
        self.masking_ = WordMasking("denosent", model)
        self.project = started(nn.Sequential(nn.Linear(model.dim, model.dim)))
        layer = nn.TransformerDecoderLayer(model.dim, self.heads, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, self.layers)
        for name, parameter in self.decoder.named_parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        self.head = WordHead(model)

    def forward(self, step: Step) -> Tensor:
        model, inputs = step.model, step.batch.inputs
        ids, seen = inputs["input_ids"], inputs["attention_mask"].bool()
        hidden = choose(self.masking_, step, self.noise)
        read = self.masking_.hide(ids, hidden, step.generator, vocabulary=len(self.head.bias))
        vector = self.project(step.again(inputs={**inputs, "input_ids": read}).features)
        with torch.no_grad():
            words = embedded(model, inputs)
        noisy = F.dropout(words, self.decoder_dropout)
        with step._autocast():
            written = self.decoder(noisy, vector[:, None], tgt_key_padding_mask=~seen)
        return F.cross_entropy(self.head(model, written[seen]), ids[seen])

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"noise": Space(0.0, 0.4), "decoder_dropout": Space(0.5, 0.9)}
