"""What makers share that ask a language model: prompts continued in batches, the model opened on first use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from surefoot.data.pairs.maker import PairMaker
from surefoot.errors import RecipeError
from surefoot.tune.selections import whole

T = TypeVar("T")
#: Items whose prompts are continued together.
AT_ONCE = 16


class WritingMaker(PairMaker):
    """A maker whose texts a causal language model writes: SmolLM2-135M-Instruct, or that in the local `folder`.

    A second or so a line on one core. A model of this size often misses the point: read some pairs before training on them.
    """

    slow = True

    def __init__(self, *, folder: str | None, max_tokens: int) -> None:
        self.folder, self.max_tokens = folder, whole("max_tokens", max_tokens, least=1)
        self._writer: Any = None

    def write(self, prompts: Sequence[str]) -> list[str]:
        """One line for each prompt. Raises AssetError or ModelError where the model is not to be had."""
        if self._writer is None:
            from surefoot.models.write import Writer

            self._writer = Writer(self.folder, max_tokens=self.max_tokens)
        lines: list[str] = self._writer(prompts)
        return lines

    def lines(self, items: Iterable[T], prompts: Callable[[T], list[str]]) -> Iterator[tuple[T, list[str]]]:
        """Each item with what follows its prompts."""
        left = iter(items)
        while some := list(islice(left, AT_ONCE)):
            asked = [prompts(each) for each in some]
            written = iter(self.write([prompt for each in asked for prompt in each]))
            for item, each in zip(some, asked, strict=True):
                yield item, [next(written) for _ in each]


def check_prompt(name: str, prompt: str, field: str) -> str:
    """A prompt with a place for the text. Raises RecipeError for one without."""
    if not isinstance(prompt, str) or f"{{{field}}}" not in prompt:
        raise RecipeError(f"`{name}` has no {{{field}}}, where the text is to stand: {prompt!r}")
    return prompt
