"""What is written around a text before a model reads it, and which of the tokens stand for the text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from surefoot.errors import ModelError

SLOT = "{text}"


@dataclass(frozen=True)
class Template:
    """`wording` with one or more `{text}`. pooled: "text", the tokens of the last one; "all", every token.

    The pieces are tokenised one by one and joined, so that every copy of a text is the same tokens, cut at the same
    place, wherever it stands: a tokenizer that read the whole would begin each copy differently. A text that follows a
    space takes it (`{text}` after "sentence: " is read as " x"), as tokenizers of words with their spaces want it.
    """

    wording: str
    pooled: Literal["text", "all"] = "text"

    def __post_init__(self) -> None:
        if SLOT not in self.wording:
            raise ModelError(f"the template {self.wording!r} has no {SLOT}: write it where the text goes")

    @property
    def copies(self) -> int:
        """How many times a text is read."""
        return self.wording.count(SLOT)

    def pieces(self) -> list[tuple[str, bool]]:
        """(literal text before, whether the slot after it takes a space) for every slot, then (what comes last, False)."""
        parts = re.split(re.escape(SLOT), self.wording)
        return [(part.removesuffix(" "), part.endswith(" ")) for part in parts[:-1]] + [(parts[-1], False)]

    def around(self, tokenizer: Any) -> Around:
        """Its literal parts as token ids: the mark of the beginning first, where the tokenizer writes one."""
        pieces = self.pieces()
        ids = [np.array(_ids(tokenizer, literal), dtype=np.int32) for literal, _ in pieces]
        opening = _ids(tokenizer, "x", special=True)
        if tokenizer.bos_token_id is not None and opening[:1] == [tokenizer.bos_token_id]:
            ids[0] = np.concatenate([np.array([tokenizer.bos_token_id], dtype=np.int32), ids[0]])
        return Around(ids, [spaced for _, spaced in pieces[:-1]], self.pooled == "text")


@dataclass(frozen=True)
class Around:
    """The token ids of a template's literal parts, one more than it has slots; `spaced`: which slots begin with a space."""

    literals: list[np.ndarray]
    spaced: list[bool]
    last_copy: bool

    @property
    def size(self) -> int:
        """Tokens that are not the text's."""
        return sum(len(each) for each in self.literals)

    def row(self, copies: list[np.ndarray]) -> tuple[np.ndarray, int, int]:
        """The whole as token ids, and from where to where it is pooled."""
        parts = [self.literals[0]]
        for text, literal in zip(copies, self.literals[1:], strict=True):
            parts += [text, literal]
        whole = np.concatenate(parts)
        end = len(whole) - len(self.literals[-1])
        return (whole, end - len(copies[-1]), end) if self.last_copy else (whole, 0, len(whole))


def _ids(tokenizer: Any, text: str, *, special: bool = False) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"] if text else []
    return ids
