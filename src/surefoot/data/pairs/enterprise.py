"""EnterpriseEM's pairs: personal data masked, markup taken out, documents cut, and a question written for each piece."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from html import unescape
from typing import ClassVar

from surefoot.data.pairs.maker import Pair
from surefoot.data.pairs.masking import masked
from surefoot.data.pairs.passages import passages, sections
from surefoot.data.pairs.written import WritingMaker, check_prompt
from surefoot.data.records import Record
from surefoot.errors import RecipeError
from surefoot.registry import Paper, register
from surefoot.tune.selections import whole

RATHINASAMY = Paper(
    "EnterpriseEM: Fine-tuned Embeddings for Enterprise Semantic Search", "Rathinasamy et al.", 2024, arxiv="2406.00010"
)
#: Of our own; the paper's prompts were not at hand.
PROMPTS = (
    "Passage: Water boils at 100 degrees Celsius at sea level and at a lower temperature on a mountain.\n"
    "Question: At what temperature does water boil on a mountain?\n\nPassage: {passage}\nQuestion:",
)
_SCRIPTS = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->", re.DOTALL | re.IGNORECASE)
_TAGS = re.compile(r"</?[A-Za-z][^<>]*>")


@register("enterprise", kind="pairs", family="written", papers=[RATHINASAMY])
class SyntheticQuestions(WritingMaker):
    """anchor = a question that a language model writes for a passage, positive = the passage.

    text -> mask -> clean -> passages of at most `words` words -> one question for each of `prompts`. Masking puts asterisks
    in the place of e-mail and IP addresses, IBANs, card and telephone numbers, by rules (`masking.py`); the paper masks
    names too, by Presidio with a model of spaCy's. Cleaning takes out scripts, comments and tags, and turns entities into
    characters; with `ascii`, as in the paper, everything that is not ASCII. A line without a word of the passage of four
    letters or more is dropped, as are lines that stand in the passage. Trained on with in-batch negatives (`infonce`),
    which is this library's choice: the paper's loss could not be confirmed.

    Reads `text`, or `sections` and `title`. words: 100. mask: true. ascii: false, since it ruins every other language.
    prompts: texts with {passage}. folder, max_tokens: the model, SmolLM2-135M-Instruct by default, and the most it writes,
    32 tokens. Raises RecipeError for settings out of range, AssetError or ModelError where the model is not to be had.
    Reference: Rathinasamy et al. 2024.

    >>> SyntheticQuestions(words=50).clean("<p>Mail <b>jo@example.org</b> &amp; wait.</p>")
    'Mail ************** & wait.'
    """

    optional: ClassVar[frozenset[str]] = frozenset({"title", "sections"})

    def __init__(
        self,
        *,
        words: int = 100,
        mask: bool = True,
        ascii: bool = False,
        prompts: Sequence[str] = PROMPTS,
        folder: str | None = None,
        max_tokens: int = 32,
    ) -> None:
        super().__init__(folder=folder, max_tokens=max_tokens)
        self.words, self.mask, self.ascii = whole("words", words, least=5), mask, ascii
        if isinstance(prompts, str) or not prompts:
            raise RecipeError("`prompts` must be a list of at least one text with {passage} in it")
        self.prompts = [check_prompt("prompts", each, "passage") for each in prompts]

    def clean(self, text: str) -> str:
        """The text as passages are cut from it."""
        text = masked(text) if self.mask else text
        text = unescape(_TAGS.sub(" ", _SCRIPTS.sub(" ", text)))
        if self.ascii:
            text = text.encode("ascii", "ignore").decode()
        return " ".join(text.split())

    def passages(self, records: Iterable[Record]) -> Iterator[str]:
        """What questions are written for."""
        for record in records:
            cleaned = self.clean("\n\n".join(sections(record)))
            for sentences in passages(cleaned, words=self.words):
                yield " ".join(sentences)

    def pairs(self, records: Iterable[Record], seed: int) -> Iterator[Pair]:
        for passage, lines in self.lines(self.passages(records), self._asked):
            for question in dict.fromkeys(lines):
                if self._asks(question, passage):
                    yield Pair(question, passage)

    def _asked(self, passage: str) -> list[str]:
        return [prompt.replace("{passage}", passage) for prompt in self.prompts]

    @staticmethod
    def _asks(question: str, passage: str) -> bool:
        telling = set(re.findall(r"\w{4,}", question.lower()))
        return question not in passage and not telling.isdisjoint(re.findall(r"\w{4,}", passage.lower()))

    def why_none(self) -> str:
        return "the language model wrote no question that has to do with its passage; try a larger one: folder=FOLDER"
