"""Texts to token ids, with a true count of what was cut, or with what would be cut as chunks of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from surefoot.errors import ModelError
from surefoot.models.model import Model
from surefoot.models.processor import EncodedText

#: Characters tokenised at once of a text that is cut: a book need not be read to the end to know that it is too long.
_MOST_CHARACTERS_A_TOKEN = 40


@dataclass(frozen=True)
class Chunks:
    """Tokenised rows, and which of them belong to which text.

    encoded: M rows. owner: (M,) the text of each, None where row i is text i. truncated, chunked: texts that were longer
    than the model reads and were cut, or read in pieces.
    """

    encoded: EncodedText
    count: int
    owner: np.ndarray | None = None
    truncated: int = 0
    chunked: int = 0

    def gather(self, features: np.ndarray) -> np.ndarray:
        """(M, D) features of rows to (N, D) of texts: the mean of a text's chunks."""
        if self.owner is None:
            return features
        total = np.zeros((self.count, features.shape[1]), dtype=np.float64)
        np.add.at(total, self.owner, features)
        return (total / np.bincount(self.owner, minlength=self.count)[:, None]).astype(np.float32)


def tokenise(model: Model, texts: list[str], *, max_length: int, chunk: bool) -> Chunks:
    """The texts as the model reads them. Raises ModelError where a model writes around its texts and chunks are asked for."""
    processor: Any = model.processor
    encoded: EncodedText = processor.encode(texts, max_length=max_length)
    if getattr(processor, "template", None) is not None:
        if chunk:
            raise ModelError(
                f"`{model.name}` writes a template around each text, which chunks have no room for: leave --chunk out"
            )
        return Chunks(encoded, len(texts), truncated=encoded.truncated)
    full = np.flatnonzero(encoded.lengths >= max_length)
    if not len(full):
        return Chunks(encoded, len(texts))
    pieces = {int(row): _pieces(processor.tokenizer, texts[row], max_length, all_of_it=chunk) for row in full}
    longer = [row for row, found in pieces.items() if len(found) > 1]
    if not chunk or not longer:
        return Chunks(encoded, len(texts), truncated=len(longer))
    rows: list[np.ndarray] = []
    owner: list[int] = []
    for row in range(len(texts)):
        own = encoded.ids[encoded.offsets[row] : encoded.offsets[row + 1]]
        parts = [np.asarray(each, dtype=np.int32) for each in pieces[row]] if row in pieces else [own]
        rows += parts
        owner += [row] * len(parts)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    joined = EncodedText(np.concatenate(rows), offsets, encoded.pad, 0)
    return Chunks(joined, len(texts), np.array(owner), chunked=len(longer))


def _pieces(tokenizer: Any, text: str, limit: int, *, all_of_it: bool) -> list[list[int]]:
    """The text in rows of at most `limit` tokens, marks of beginning and end around each; without `all_of_it` the first
    two will do, and no more is read than they need."""
    if not all_of_it and len(text) > 2 * limit * _MOST_CHARACTERS_A_TOKEN:
        text = text[: 2 * limit * _MOST_CHARACTERS_A_TOKEN]
    found: list[list[int]] = tokenizer(
        text,
        truncation=True,
        max_length=limit,
        return_overflowing_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
    return found if not found or isinstance(found[0], list) else [found]
