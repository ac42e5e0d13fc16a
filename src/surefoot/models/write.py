"""A causal language model that goes on from prompts: what synthetic queries are written by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from surefoot.errors import ModelError
from surefoot.models.gguf import smollm2
from surefoot.models.pretrained import from_pretrained, open_tokenizer


class Writer:
    """Continues prompts greedily and keeps the first line that is not empty: the same prompts give the same lines.

    Opens SmolLM2-135M-Instruct from its 4-bit file, or the causal model in a local folder. max_tokens: read for it.
    batch: prompts that are continued together. Prompts are given to the model as they are, without a chat's frame.
    """

    def __init__(self, folder: str | None = None, *, max_tokens: int = 24, batch: int = 16) -> None:
        import transformers

        place = smollm2() if folder is None else folder
        self.model = from_pretrained(transformers.AutoModelForCausalLM, place, dtype=torch.float32).eval()
        self.tokenizer = open_tokenizer(place)
        self.max_tokens, self.batch = max_tokens, batch
        if self.tokenizer.eos_token_id is None:
            raise ModelError(f"the tokenizer of {place} has no token that ends a text: choose another model")
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.tokenizer.padding_side = "left"

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[str], *, advance: Callable[[int], None] = lambda count: None) -> list[str]:
        """One line for each prompt, without the prompt; empty where the model ends at once."""
        lengths = [len(prompt) for prompt in prompts]
        order = sorted(range(len(prompts)), key=lengths.__getitem__)
        found = [""] * len(prompts)
        for first in range(0, len(order), self.batch):
            chosen = order[first : first + self.batch]
            inputs = self.tokenizer([prompts[i] for i in chosen], return_tensors="pt", padding=True)
            made = self.model.generate(
                **inputs,
                max_new_tokens=self.max_tokens,
                do_sample=False,
                pad_token_id=self.tokenizer.pad_token_id,
            )
            width = inputs["input_ids"].shape[1]
            for i, ids in zip(chosen, made, strict=True):
                text = self.tokenizer.decode(ids[width:], skip_special_tokens=True)
                found[i] = text.strip().partition("\n")[0].strip()
            advance(len(chosen))
        return found
