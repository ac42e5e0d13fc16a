"""Which words of a text are hidden from a model that has to guess them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from surefoot.errors import ModelError, RecipeError
from surefoot.models.model import Model
from surefoot.models.vocabulary import check_vocabulary, is_causal


class WordMasking:
    """Hides whole words of tokenised texts; marks such as [CLS] and padding never are.

    name: of the objective that asks, for messages. Raises RecipeError for a model without a mask token, one whose tokens
    see only what is before them, or one whose words do not follow from its states by its input embeddings.
    """

    def __init__(self, name: str, model: Model) -> None:
        tokenizer: Any = getattr(model.processor, "tokenizer", None)
        if getattr(tokenizer, "mask_token_id", None) is None or is_causal(model) or not model.layers:
            raise RecipeError(
                f"{name} guesses masked words from both sides, and this model has no mask token, no blocks or reads from one side: leave it out, or choose an encoder of text such as `minilm`"
            )
        try:
            check_vocabulary(model)
        except ModelError as error:
            raise RecipeError(f"{name}: {error}") from error
        self.mask_id = int(tokenizer.mask_token_id)
        self._special = torch.tensor(sorted(int(each) for each in tokenizer.all_special_ids))
        words = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else {}
        # WordPiece marks what goes on with a word; where a tokenizer marks beginnings instead, each token is a word.
        self._continuing = torch.tensor([place for word, place in words.items() if word.startswith("##")])

    def words(self, ids: Tensor, seen: Tensor) -> Tensor:
        """Which tokens are of words: ids and seen (the attention mask) (B, T) to bool (B, T)."""
        return seen.bool() & ~torch.isin(ids, self._special.to(ids.device))

    def draw(self, ids: Tensor, seen: Tensor, share: float, generator: torch.Generator, *, copies: int = 1) -> Tensor:
        """Words to hide, in `copies` draws that know nothing of each other: (B, copies, T), bool.

        Of a text of n tokens, its marks included, words are drawn at random until max(1, round(share n)) tokens are
        hidden; the word that no longer fits stays, and what would come after it.
        """
        words = self.words(ids, seen)
        starts = ~torch.isin(ids, self._continuing.to(ids.device)) | ~words
        number = (starts.long().cumsum(1) - 1).clamp_min(0)
        shape = (len(ids), copies, ids.shape[1])
        drawn = torch.rand(shape, generator=generator, device=generator.device).to(ids.device)
        # One draw a word, read by all of its tokens; 2 is more than any draw.
        keys = drawn.gather(2, number[:, None].expand(shape)).masked_fill(~words[:, None], 2.0)
        through = torch.searchsorted(keys.sort(2).values, keys, right=True)
        budget = (share * seen.sum(1)).round().clamp_min(1)
        return words[:, None] & (through <= budget[:, None, None])

    def hide(self, ids: Tensor, hidden: Tensor, generator: torch.Generator, *, vocabulary: int) -> Tensor:
        """What is read in place of the hidden tokens, as in BERT: [MASK] for 80%, a random token for 10%, itself for the rest."""
        drawn = torch.rand(ids.shape, generator=generator, device=generator.device).to(ids.device)
        other = torch.randint(vocabulary, ids.shape, generator=generator, device=generator.device).to(ids.device)
        read = ids.masked_fill(hidden & (drawn < 0.8), self.mask_id)
        return torch.where(hidden & (drawn >= 0.9), other, read)
