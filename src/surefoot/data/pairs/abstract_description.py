"""Abstract descriptions: what a sentence is an instance of, and what it nearly is an instance of, in a model's words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

from surefoot.data.pairs.maker import Pair
from surefoot.data.pairs.passages import sentences
from surefoot.data.pairs.written import WritingMaker, check_prompt
from surefoot.data.records import Record
from surefoot.registry import Paper, register
from surefoot.tune.selections import whole

RAVFOGEL = Paper("Retrieving Texts based on Abstract Descriptions", "Ravfogel et al.", 2023, arxiv="2305.12517")
#: Of our own, with two examples each: the paper's are instructions, and ask GPT-3 for several at once.
VALID = (
    "Sentence: The bridge over the Tay fell in a storm in 1879, with a train on it.\n"
    "In general terms: a structure that failed in bad weather\n"
    "Sentence: Marie Curie won two Nobel prizes, in physics and in chemistry.\n"
    "In general terms: a scientist who was honoured in more than one field\n"
    "Sentence: {sentence}\nIn general terms:"
)
WRONG = (
    "Sentence: The bridge over the Tay fell in a storm in 1879, with a train on it.\n"
    "Similar, but not true of it: a structure that was rebuilt after a fire\n"
    "Sentence: Marie Curie won two Nobel prizes, in physics and in chemistry.\n"
    "Similar, but not true of it: a scientist who was refused an honour\n"
    "Sentence: {sentence}\nSimilar, but not true of it:"
)


@register("abstract_description", kind="pairs", family="written", papers=[RAVFOGEL])
class AbstractDescriptions(WritingMaker):
    """anchor = a sentence, positive = a description that is true of it, negative = one that sounds like it and is wrong.

    Both descriptions are written by a language model: `valid` and `wrong` are prompts with {sentence}. For the objective
    `abstract_description`, InfoNCE from descriptions to sentences and a triplet loss against the wrong ones. Reads `text`,
    of which every sentence of `least` words or more counts; sentences for which a description is missing or is an
    example of the prompt, or both are one, give nothing.

    The paper has GPT-3 write five to eight of either kind for a sentence; SmolLM2-135M-Instruct writes one, and what it
    calls wrong is often true: what a small model gives here is no more than the pipeline. folder: of a better one.
    least: 6 words, of our own. max_tokens: 24. Raises RecipeError for settings out of range, AssetError or ModelError
    where the model is not to be had. Reference: Ravfogel et al. 2023, section 3.

    >>> AbstractDescriptions(least=4).least
    4
    """

    gives: ClassVar[tuple[str, ...]] = ("anchor", "positive", "negative")

    def __init__(
        self,
        *,
        valid: str = VALID,
        wrong: str = WRONG,
        least: int = 6,
        folder: str | None = None,
        max_tokens: int = 24,
    ) -> None:
        super().__init__(folder=folder, max_tokens=max_tokens)
        self.valid, self.wrong = check_prompt("valid", valid, "sentence"), check_prompt("wrong", wrong, "sentence")
        self.least = whole("least", least, least=1)

    def pairs(self, records: Iterable[Record], seed: int) -> Iterator[Pair]:
        for sentence, (positive, negative) in self.lines(self._sentences(records), self._asked):
            copied = positive in self.valid or negative in self.wrong  # an example of the prompt, said again
            if not copied and positive != negative and sentence not in (positive, negative):
                yield Pair(sentence, positive, negative=negative)

    def _sentences(self, records: Iterable[Record]) -> Iterator[str]:
        for record in records:
            yield from (each for each in sentences(record.text("text")) if len(each.split()) >= self.least)

    def _asked(self, sentence: str) -> list[str]:
        return [prompt.replace("{sentence}", sentence) for prompt in (self.valid, self.wrong)]

    def why_none(self) -> str:
        return "the language model described none of the sentences; try a larger one: folder=FOLDER"
