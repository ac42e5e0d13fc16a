"""PromptEOL: the state in which a language model would name the text in one word."""

from __future__ import annotations

from surefoot.models.pooling import Prompted
from surefoot.models.template import Template
from surefoot.registry import Paper, register

WORDING = 'This sentence : "{text}" means in one word:"'


@register(
    "one_word",
    kind="pooling",
    family="prompted",
    papers=[Paper("Scaling Sentence Embeddings with Large Language Models", "Jiang et al.", 2023, arxiv="2307.16645")],
)
class OneWord(Prompted):
    """f = h at the last token of 'This sentence : "x" means in one word:"', from which the model would write that word.

    template: has {text}, and ends where the word would begin. Raises ModelError for one without {text}, and for a model
    that is not causal.
    """

    def __init__(self, *, template: str = WORDING) -> None:
        super().__init__(Template(template, pooled="all"), "last")

    def __repr__(self) -> str:
        return f"OneWord(template={self._template.wording!r})"
