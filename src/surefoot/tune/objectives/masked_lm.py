"""Masked language modelling: guess the words that are hidden."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.models.shallow_decoder import WordHead
from surefoot.registry import Paper, register
from surefoot.tune.masking import WordMasking
from surefoot.tune.objective import Context, Objective, Space, fraction, positive
from surefoot.tune.step import Step


@register(
    "masked_lm",
    kind="objective",
    family="self_supervised",
    papers=[
        Paper(
            "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
            "Devlin et al.",
            2019,
            arxiv="1810.04805",
        )
    ],
)
class MaskedLM(Objective):
    """Cross-entropy of the hidden tokens: the mean of -log p(x_t) over the chosen tokens t of the batch.

    Every token but marks is chosen with probability `share`; 80% of the chosen are read as the mask, 10% as another
    token, 10% as they are. p: softmax over the vocabulary of BERT's output layer on the last states (a linear layer,
    GELU and a norm, then the product with the encoder's own word embeddings), the checkpoint's where it has one and
    random at the start where not, which trains along and is dropped. Gives a scalar in nats, 0 where nothing was chosen. Beside another objective it keeps what pretraining
    has learned; alone it goes on with pretraining, and undoes what a sentence encoder has learned of sentences.

    share: of tokens, 0.15, the paper's. Needs no labels. One pass of its own. State: the output layer. Raises
    RecipeError for a share outside (0, 1), a causal model, or one without a mask token. Reference: Devlin et al. 2019,
    section 3.1.

    >>> MaskedLM(share=0.3).share
    0.3
    """

    needs = frozenset({"inputs", "hidden_states", "tokens", "layers"})
    reads_labels = False

    def __init__(self, *, share: float = 0.15) -> None:
        super().__init__()
        self.share = fraction("share", positive("share", share))

    def setup(self, context: Context) -> None:
        self.masking_ = WordMasking("masked_lm", context.model)
        self.head = WordHead(context.model)

    def forward(self, step: Step) -> Tensor:
        return guessing_loss(step, self.masking_, self.head, self.share)

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        return {"share": Space(0.05, 0.4)}


def choose(masking: WordMasking, step: Step, share: float) -> Tensor:
    """Which tokens of the batch are chosen, each with probability `share`: (B, T), bool."""
    ids, generator = step.batch.inputs["input_ids"], step.generator
    drawn = torch.rand(ids.shape, generator=generator, device=generator.device).to(ids.device)
    return masking.words(ids, step.batch.inputs["attention_mask"]) & (drawn < share)


def guessing_loss(step: Step, masking: WordMasking, head: WordHead, share: float) -> Tensor:
    """The mean cross-entropy of the tokens that are hidden in a pass of its own: a scalar, in nats."""
    ids = step.batch.inputs["input_ids"]
    chosen = choose(masking, step, share)
    read = masking.hide(ids, chosen, step.generator, vocabulary=len(head.bias))
    states = step.again(inputs={**step.batch.inputs, "input_ids": read}).hidden_states
    assert states is not None, "`needs` holds hidden_states"
    if not chosen.any():
        return 0 * states[-1].float().sum()
    return F.cross_entropy(head(step.model, states[-1][chosen]), ids[chosen])
