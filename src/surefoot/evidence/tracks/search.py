"""`search`: Cranfield's questions on aerodynamics; and docstrings of numpy, with scipy's and scikit-learn's away."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from surefoot import load
from surefoot.assess.ranking import ndcg
from surefoot.data.tasks.stored import stored
from surefoot.evidence.cost import Clock
from surefoot.evidence.entry import Arm
from surefoot.evidence.reading import embed, only_baseline
from surefoot.evidence.retrieving import play, rewards
from surefoot.evidence.track import Track
from surefoot.models.model import Model
from surefoot.models.write import Writer
from surefoot.search.strategies.path import PATH
from surefoot.search.synthetic import student_scores
from surefoot.tune.build import build

#: Questions drawn of Cranfield's 225, and functions drawn of each library.
QUESTIONS, FUNCTIONS = 150, 100
#: Questions that a prompt is chosen by.
GOLD = 10
HOME = "numpy"
#: The library at home and those away, with the packages that are looked through.
LIBRARIES = {
    "numpy": ("numpy", "numpy.linalg", "numpy.fft", "numpy.random", "numpy.polynomial"),
    "scipy": ("scipy.stats", "scipy.signal", "scipy.optimize", "scipy.linalg", "scipy.special", "scipy.ndimage"),
    "sklearn": ("sklearn",),
}


class Search(Track):
    """Nearest documents by MiniLM's embeddings. A query of the second kind is a docstring's first line, its document
    the rest of it, to be found among those of the same library."""

    name = "search"
    summary = "retrieval (MiniLM as it is): Cranfield; docstrings of numpy, of scipy and scikit-learn away; nDCG@10"
    metric: ClassVar[str] = "ndcg"

    def check(self) -> None:
        cranfield()

    def run(self, arm: Arm, *, seed: int, quantities: Collection[str] = (), store: Path) -> dict[str, float]:
        if arm.words is not None:
            from surefoot.evidence.wording import run_retrieval

            return run_retrieval(arm.words, *_questions(seed), seed=seed)
        model, clock = load("minilm", max_length=128), Clock()
        if arm.strategy is not None:
            return self._searched(arm.strategy, model, seed)
        only_baseline(self.name, arm)
        with clock.running():
            found = {"ndcg": _cranfield(model, seed)}
            for library in LIBRARIES:
                found[f"ndcg/{library}"] = _docstrings(model, library, seed)
        away = [found[f"ndcg/{library}"] for library in list(LIBRARIES)[1:]]
        return found | {"ndcg_away": float(np.mean(away)), "seconds": clock.seconds}

    @staticmethod
    def _searched(spec: Mapping[str, Any], model: Model, seed: int) -> dict[str, float]:
        """What a strategy finds: a prompt on Cranfield, or settings of retrieval on docstrings."""
        strategy, clock = build("strategy", spec), Clock()
        if isinstance(strategy, PATH):
            return _prompted(strategy, model, seed)
        table = rewards(model, *_drawn(HOME, seed))
        with clock.running():
            found = play(spec, table, seed=seed)
        return found | {"seconds": clock.seconds}


def cranfield() -> Path:
    """The folder with corpus.parquet, queries.parquet and qrels.parquet."""
    return stored("cranfield/corpus").parent


def _cranfield(model: Model, seed: int) -> float:
    documents, questions = _questions(seed)
    scores = embed(model, list(questions)) @ embed(model, documents).T
    return ndcg(scores, list(questions.values()))


def _questions(seed: int) -> tuple[list[str], dict[str, dict[int, float]]]:
    """Cranfield's documents, and the drawn questions with graded relevance by document."""
    import pandas as pd

    corpus, queries, judged = (
        pd.read_parquet(cranfield() / f"{name}.parquet") for name in ("corpus", "queries", "qrels")
    )
    drawn = queries.sample(QUESTIONS, random_state=seed)
    place = {identifier: row for row, identifier in enumerate(corpus["_id"])}
    grades: dict[str, dict[int, float]] = {}
    for question, document, score in judged.itertuples(index=False):
        if document in place:
            grades.setdefault(question, {})[place[document]] = float(score)
    drawn = drawn[drawn["_id"].isin(grades)]
    return list(corpus["text"]), {text: grades[name] for name, text in zip(drawn["_id"], drawn["text"], strict=True)}


def _prompted(strategy: PATH, model: Model, seed: int) -> dict[str, float]:
    """The student of the best prompt: `ndcg` of the questions that nothing was chosen on, `gold_ndcg` of the others."""
    documents, questions = _questions(seed)
    # A question whose documents are all graded 0 cannot be gold.
    usable = [text for text, grades in questions.items() if max(grades.values()) > 0]
    gold = {text: questions[text] for text in usable[:GOLD]}
    rest = {text: questions[text] for text in usable[GOLD:]}

    def vectors(texts: Sequence[str]) -> np.ndarray:
        return embed(model, texts)

    corpus, clock = vectors(documents), Clock()
    with clock.running():
        found = strategy.search(Writer(), vectors, documents, gold, seed=seed)
    scored = {
        name: ndcg(student_scores(found.student, vectors(list(asked)), corpus), list(asked.values()))
        for name, asked in (("ndcg", rest), ("gold_ndcg", gold))
    }
    return scored | {"gold_before": found.start, "seconds": clock.seconds}


def _docstrings(model: Model, library: str, seed: int) -> float:
    queries, documents = _drawn(library, seed)
    scores = embed(model, queries) @ embed(model, documents).T
    return ndcg(scores, [{row: 1.0} for row in range(len(queries))])


def _drawn(library: str, seed: int) -> tuple[list[str], list[str]]:
    pairs = documented(library)
    order = np.random.default_rng(seed).permutation(len(pairs))[:FUNCTIONS]
    return [pairs[i][0] for i in order], [pairs[i][1] for i in order]


def documented(library: str) -> list[tuple[str, str]]:
    """(first sentence, the rest) of the docstrings of an installed library's public functions and classes."""
    found: dict[str, str] = {}
    for module in _modules(library):
        for name, thing in sorted(vars(module).items()):
            if name.startswith("_") or not (inspect.isclass(thing) or callable(thing)):
                continue
            if not str(getattr(thing, "__module__", "") or "").startswith(library):
                continue
            head, _, rest = (inspect.getdoc(thing) or "").partition("\n\n")
            if len(head.split()) >= 4 and len(rest.split()) >= 20 and "(" not in head:
                found.setdefault(" ".join(head.split()), " ".join(rest.split()))
    return sorted(found.items())


def _modules(library: str) -> list[object]:
    names = list(LIBRARIES[library])
    if library == "sklearn":  # its public packages hold what they document
        root = importlib.import_module("sklearn")
        names = [f"sklearn.{info.name}" for info in pkgutil.iter_modules(root.__path__) if info.ispkg]
        names = [name for name in names if not name.rpartition(".")[2].startswith(("_", "externals", "experimental"))]
    return [importlib.import_module(name) for name in names]


TRACK = Search()
