"""PATH: the prompt by which a language model writes queries, chosen by how well a retriever learns from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from surefoot.assess.ranking import ndcg
from surefoot.errors import DataError, RecipeError
from surefoot.registry import Paper, register
from surefoot.search.strategy import Strategy
from surefoot.search.synthetic import student_scores, train_student
from surefoot.tune.selections import whole

#: What the prompts are tried from; the first is the one that is taken where nothing is searched.
PROMPTS = (
    "Write a question that this passage answers.\n\nPassage: {document}\n\nQuestion:",
    "Passage: {document}\n\nA short search query for this passage:",
    "{document}\n\nTitle:",
    "{document}\n\nKeywords:",
    "Passage: {document}\n\nSomebody who needs this passage would ask:",
    "Passage: Water boils at 100 degrees Celsius at sea level and at a lower temperature on a mountain.\n"
    "Question: at what temperature does water boil on a mountain?\n\nPassage: {document}\nQuestion:",
)

Write = Callable[[Sequence[str]], list[str]]
Embed = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class PromptFound:
    """`prompt`: the best; `scores`: nDCG@10 of the gold queries by prompt that was tried; `start`: the same without
    training. `student` (D, D): the map of embeddings that was trained in the end; `queries`: what it was trained on, by
    document's index."""

    prompt: str
    scores: Mapping[str, float]
    start: float
    student: np.ndarray
    queries: Mapping[int, str]


@register(
    "path",
    kind="strategy",
    family="prompt",
    papers=[
        Paper(
            "Prompts as Auto-Optimized Training Hyperparameters: Training Best-in-Class IR Models from Scratch with 10 Gold Labels",
            "Xian et al.",
            2024,
            arxiv="2406.11706",
        )
    ],
)
class PATH(Strategy):
    """The prompt for synthetic queries as a hyperparameter of the training on them, judged by about ten gold queries.

    prompt* = argmax_p nDCG@10(gold; train(p)),   train(p): a student trained on {(LM(p, d), d)} over drawn documents d

    For each prompt in turn the language model writes a query for each of `documents` documents, the same ones for every
    prompt; a student is trained on the pairs and ranks the whole corpus for the gold queries. The best prompt then writes
    for `final` documents, on which the student that is kept is trained. The student is a linear map of given embeddings
    (`search/synthetic.py`), which trains in a second; the paper's are whole rerankers of less than 100 million weights,
    and its prompts are proposed by a large language model that reads what earlier ones scored (DSPy), where these come
    from a list: `PROMPTS`, or yours. So this is the paper's outer loop at the size of a laptop, not its figures.

    prompts: texts with {document}; None for PROMPTS. trials: how many of them are tried, the first ones; None for all,
    1 searches nothing. documents: 12; final: 24; words: 60, how much of a document is read. All this library's choice.
    Raises RecipeError for settings out of range, DataError where gold queries or documents are missing.
    Reference: Xian et al. 2024.

    >>> PATH(trials=1).final
    24
    """

    def __init__(
        self,
        *,
        prompts: Sequence[str] | None = None,
        trials: int | None = None,
        documents: int = 12,
        final: int = 24,
        words: int = 60,
    ) -> None:
        self.prompts = tuple(PROMPTS if prompts is None else prompts)
        if not self.prompts:
            raise RecipeError("`prompts` is empty: give at least one text with {document} in it")
        for prompt in self.prompts:
            if not isinstance(prompt, str) or "{document}" not in prompt:
                raise RecipeError(f"a prompt has no {{document}}, where the document is to stand: {prompt!r}")
        self.trials = None if trials is None else whole("trials", trials, least=1)
        self.documents = whole("documents", documents, least=2)
        self.final = whole("final", final, least=documents)
        self.words = whole("words", words, least=4)

    def search(
        self,
        write: Write,
        embed: Embed,
        corpus: Sequence[str],
        gold: Mapping[str, Mapping[int, float]],
        *,
        seed: int = 0,
    ) -> PromptFound:
        """Find the prompt and train the student.

        write: prompts to lines, such as `surefoot.models.write.Writer()`. embed: texts to embeddings of unit length
        (N, D). corpus: N documents. gold: graded relevance by document's index, for each gold query.
        """
        self._check(corpus, gold)
        vectors, asked = embed(list(corpus)), embed(list(gold))
        relevant = list(gold.values())
        order: list[int] = np.random.default_rng(seed).permutation(len(corpus)).tolist()
        written: dict[str, dict[int, str]] = {}
        scores: dict[str, float] = {}
        tried = self.prompts[: self.trials]
        for prompt in tried if len(tried) > 1 else ():
            written[prompt] = self._queries(prompt, write, corpus, order[: self.documents])
            student = self._student(written[prompt], embed, vectors)
            scores[prompt] = ndcg(student_scores(student, asked, vectors), relevant)
        best = max(scores, key=scores.__getitem__) if scores else tried[0]
        known = written.get(best, {})
        more = [i for i in order[: self.final] if i not in known]
        queries = known | self._queries(best, write, corpus, more)
        student = self._student(queries, embed, vectors)
        return PromptFound(best, scores, ndcg(asked @ vectors.T, relevant), student, queries)

    def _queries(self, prompt: str, write: Write, corpus: Sequence[str], chosen: Sequence[int]) -> dict[int, str]:
        short = [" ".join(corpus[i].split()[: self.words]) for i in chosen]
        lines = write([prompt.replace("{document}", text) for text in short])
        return {i: line for i, line in zip(chosen, lines, strict=True) if line}

    @staticmethod
    def _student(queries: Mapping[int, str], embed: Embed, vectors: np.ndarray) -> np.ndarray:
        if not queries:  # the model had nothing to say
            return np.eye(vectors.shape[1], dtype=vectors.dtype)
        return train_student(embed(list(queries.values())), np.fromiter(queries, dtype=np.int64), vectors)

    @staticmethod
    def _check(corpus: Sequence[str], gold: Mapping[str, Mapping[int, float]]) -> None:
        if len(corpus) < 2:
            raise DataError(f"the corpus has {len(corpus)} documents: a ranking needs more")
        if not gold:
            raise DataError("no gold queries: give some, each with the documents that are relevant to it; ten will do")
        for query, grades in gold.items():
            wrong = [each for each in grades if not 0 <= each < len(corpus)]
            if wrong or not any(grade > 0 for grade in grades.values()):
                what = f"document {wrong[0]} is not in the corpus" if wrong else "no document is relevant"
                raise DataError(f"gold query `{query}`: {what}; mend it or leave it out")
