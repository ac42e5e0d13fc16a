"""Echo embeddings: the text is read twice, and the second copy is pooled."""

from __future__ import annotations

from surefoot.errors import ModelError
from surefoot.models.pooling import Prompted
from surefoot.models.template import Template
from surefoot.registry import Paper, register

#: The zero-shot wording. The catalogue gives it from memory; the authors' code takes any.
WORDING = "Rewrite the sentence: {text}, rewritten sentence: {text}"
#: What may pool the second copy.
TOKENS = ("mean", "last")


@register(
    "echo",
    kind="pooling",
    family="prompted",
    papers=[
        Paper("Repetition Improves Language Model Embeddings", "Springer et al.", 2024, arxiv="2402.15449"),
    ],
)
class Echo(Prompted):
    """f = mean (or last) of the states of the second copy of a text that the model reads twice.

    In a causal model a token sees what is before it and nothing else; every token of the second copy has the whole text
    before it. template: has {text} at least twice, the last one being pooled; the fine-tuned models of the paper read
    "Instruct:...,\\nQuery:{text}\\nQuery again:{text}". tokens: "mean" (the paper's best without training) or "last".
    The model's `max_length` cuts each copy, both at the same token. About twice the tokens of the text, and its wording.
    Raises ModelError for a template that does not repeat, and for a model whose tokens see the whole text anyway.
    """

    def __init__(self, *, template: str = WORDING, tokens: str = "mean") -> None:
        wording = Template(template)
        if wording.copies < 2:
            raise ModelError(f"the template {template!r} does not repeat {{text}}: an echo reads it at least twice")
        if tokens not in TOKENS:
            raise ModelError(f"echo pools by `mean` or `last`, not by `{tokens}`")
        self.tokens = tokens
        super().__init__(wording, tokens)

    def __repr__(self) -> str:
        return f"Echo(template={self._template.wording!r}, tokens={self.tokens!r})"
