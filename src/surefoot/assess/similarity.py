"""How good an embedding is: its cosines against people's ratings, and what it finds among documents.

A set that judges an embedding names its texts, turns their vectors into one number per example (`outputs`), and those
into the metric and what each example contributes to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.stats import norm, rankdata, t

from surefoot.assess.ranking import ndcg_of_each
from surefoot.data.examples import Examples
from surefoot.data.load import load_data
from surefoot.data.read import read_file
from surefoot.embed.geometry import unit_length
from surefoot.embed.modules import read_modules
from surefoot.errors import DataError
from surefoot.models.model import Model
from surefoot.models.predict import encode_inputs, predict
from surefoot.progress import Progress, Silent

#: The files of a retrieval set, as BEIR lays them out.
FILES = ("corpus", "queries", "qrels")


@dataclass(frozen=True)
class Score:
    """A metric of an embedding with its 95% interval over pairs or queries. `metric`: spearman or ndcg@10."""

    metric: str
    value: float
    low: float
    high: float
    examples: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Rated:
    """N pairs of texts with people's ratings (N,), None where there are none. `document`: (N,) what pairs come from."""

    first: Sequence[str]
    second: Sequence[str]
    ratings: np.ndarray | None
    source: str = "data"
    document: np.ndarray | None = None
    metric: ClassVar[str] = "spearman"

    def __len__(self) -> int:
        return len(self.first)

    @property
    def labelled(self) -> bool:
        return self.ratings is not None

    @property
    def texts(self) -> tuple[Sequence[str], Sequence[str]]:
        return self.first, self.second

    def take(self, indices: np.ndarray) -> Rated:
        """The pairs at these positions."""
        first, second = ([texts[i] for i in indices] for texts in self.texts)
        kept = {
            name: None if (column := getattr(self, name)) is None else column[indices]
            for name in ("ratings", "document")
        }
        return Rated(first, second, kept["ratings"], self.source, kept["document"])

    def outputs(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Cosine of each pair (N,), from unit vectors (N, D)."""
        return np.asarray((first * second).sum(1))

    def contributions(self, outputs: np.ndarray) -> np.ndarray:
        """(N,), their mean Spearman's rho: rho + x_i y_i - rho (x_i^2 + y_i^2) / 2, x and y the standardised ranks.

        The influence of each pair on a correlation: paired differences of it are those of rho, to first order.
        """
        assert self.ratings is not None
        return influence(outputs, self.ratings)

    def score(self, outputs: np.ndarray) -> Score:
        """Spearman's rho with its interval (Bonett and Wright 2000): Fisher's z with variance (1 + rho^2 / 2) / (N - 3)."""
        assert self.ratings is not None
        rho = spearman(outputs, self.ratings)
        half = norm.ppf(0.975) * np.sqrt((1 + rho**2 / 2) / max(len(self) - 3, 1))
        z = np.arctanh(np.clip(rho, -0.999999, 0.999999))
        return Score(self.metric, rho, float(np.tanh(z - half)), float(np.tanh(z + half)), len(self))

    def fingerprint(self) -> str:
        """SHA-256: equal sets, equal fingerprints."""
        facts = (list(self.first), list(self.second), None if self.ratings is None else self.ratings.tolist())
        return _hash((*facts, None if self.document is None else self.document.tolist()))


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Q queries and N documents. `relevant`: for each query the grades above 0, by the document's place."""

    queries: Sequence[str]
    documents: Sequence[str]
    relevant: Sequence[Mapping[int, float]]
    source: str = "data"
    document: np.ndarray | None = None
    metric: ClassVar[str] = "ndcg@10"
    labelled: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def texts(self) -> tuple[Sequence[str], Sequence[str]]:
        return self.queries, self.documents

    def outputs(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """nDCG@10 of each query (Q,), from unit vectors (Q, D) and (N, D). A document that is the query is not ranked."""
        found = np.empty(len(queries))
        place = {text: row for row, text in enumerate(self.documents)}
        for first in range(0, len(queries), 256):
            rows = slice(first, first + 256)
            scores = queries[rows] @ documents.T
            for row, text in enumerate(self.queries[rows]):
                if text in place:
                    scores[row, place[text]] = -np.inf
            found[rows] = ndcg_of_each(scores, self.relevant[rows])
        return found

    def contributions(self, outputs: np.ndarray) -> np.ndarray:
        """(Q,): nDCG@10 is a mean already."""
        return outputs

    def score(self, outputs: np.ndarray) -> Score:
        """The mean with its interval by Student's t over queries."""
        value, count = float(outputs.mean()), len(self)
        half = float(t.ppf(0.975, max(count - 1, 1)) * outputs.std(ddof=min(1, count - 1)) / np.sqrt(count))
        return Score(self.metric, value, max(0.0, value - half), min(1.0, value + half), count)

    def fingerprint(self) -> str:
        """SHA-256: equal sets, equal fingerprints."""
        return _hash((list(self.queries), list(self.documents), [sorted(each.items()) for each in self.relevant]))


#: What an embedding is judged on.
SimilaritySet = Rated | Retrieval


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation: Pearson's of the ranks, ties sharing theirs; 0 where one side is constant.

    >>> round(spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])), 3)
    0.5
    """
    return float((_standard(first) * _standard(second)).mean())


def influence(outputs: np.ndarray, ratings: np.ndarray) -> np.ndarray:
    """(N,): see `Rated.contributions`."""
    x, y = _standard(outputs), _standard(ratings)
    rho = (x * y).mean()
    return np.asarray(rho + x * y - rho * (x**2 + y**2) / 2)


def _standard(values: np.ndarray) -> np.ndarray:
    ranks = rankdata(values)
    spread = ranks.std()
    return np.asarray((ranks - ranks.mean()) / spread) if spread > 0 else np.zeros(len(ranks))


# --- from data


def rated(examples: Examples, *, ratings: bool = True) -> Rated:
    """Pairs of `load_data` as a set to judge on; DataError where they are no pairs, or have no `score` and ratings are
    asked for."""
    if examples.positive is None:
        raise DataError(
            f"{examples.source}: no pairs; give the columns `sentence1` and `sentence2` (or `anchor`, `positive`)"
        )
    if ratings and examples.score is None:
        raise DataError(f"{examples.source}: no ratings; add a column `score`, how alike each pair is")
    if ratings and examples.score is not None and len(np.unique(examples.score)) < 2:
        raise DataError(
            f"{examples.source}, column `score`: every pair has the same rating, so that no order can be right"
        )
    kept = examples.score if ratings else None
    return Rated(examples.inputs, [str(each) for each in examples.positive], kept, examples.source, examples.document)


def partners(examples: Examples) -> Retrieval:
    """Each anchor's positive among all positives: what pairs without ratings can be judged by. Where they have labels, all
    positives of the anchor's label are relevant."""
    assert examples.positive is not None
    documents = list(dict.fromkeys(str(each) for each in examples.positive))
    place = {text: row for row, text in enumerate(documents)}
    own = [place[str(each)] for each in examples.positive]
    keys = examples.labels.tolist() if examples.labels is not None else list(examples.inputs)
    groups: dict[Any, set[int]] = {}
    for key, row in zip(keys, own, strict=True):
        groups.setdefault(key, set()).add(row)
    relevant = [
        {row: 1.0 for row in sorted(groups[key]) if documents[row] != text} or {mine: 1.0}
        for key, text, mine in zip(keys, examples.inputs, own, strict=True)
    ]
    return Retrieval(examples.inputs, documents, relevant, examples.source, examples.document)


def load_similarity(
    source: str | Path, *, ratings: bool = True, columns: Mapping[str, str] | None = None
) -> SimilaritySet:
    """A file of pairs with ratings, or a folder with corpus, queries and qrels (parquet, CSV or JSONL).

    ratings: whether pairs must have them. Corpus and queries have `_id` and `text`, qrels `query_id`, `corpus_id` and
    `score`; grades of 0 and queries without a relevant document are left out. Raises DataError in one sentence.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        return rated(load_data(str(source), columns=columns, require_labels=False), ratings=ratings)
    tables = {name: _columns(folder, name) for name in FILES}
    corpus, queries, judged = (tables[name] for name in FILES)
    place = {str(each): row for row, each in enumerate(corpus["_id"])}
    grades: dict[str, dict[int, float]] = {}
    for query, document, grade in zip(judged["query_id"], judged["corpus_id"], judged["score"], strict=True):
        if str(document) in place and float(grade) > 0:
            grades.setdefault(str(query), {})[place[str(document)]] = float(grade)
    asked = [
        (str(text), grades[str(each)])
        for each, text in zip(queries["_id"], queries["text"], strict=True)
        if str(each) in grades
    ]
    if not asked:
        raise DataError(f"{folder}: no query has a relevant document; check `query_id` and `corpus_id` in qrels")
    return Retrieval(
        [text for text, _ in asked], [str(each) for each in corpus["text"]], [each for _, each in asked], str(source)
    )


def _columns(folder: Path, name: str) -> Mapping[str, Sequence[Any]]:
    found = [path for suffix in (".parquet", ".csv", ".jsonl") if (path := folder / f"{name}{suffix}").exists()]
    if not found:
        raise DataError(
            f"{folder}: no {name}.parquet, which a retrieval set has beside {' and '.join(each for each in FILES if each != name)}"
        )
    table = read_file(found[0])
    wanted = ("query_id", "corpus_id", "score") if name == "qrels" else ("_id", "text")
    for column in wanted:
        if column not in table.columns:
            raise DataError(f"{found[0]}: no column `{column}`; a retrieval set's {name} has {', '.join(wanted)}")
    return table.columns


# --- from a model


def vectors(
    model: Model, texts: Sequence[str], *, progress: Progress | None = None, label: str = "embed"
) -> np.ndarray:
    """Unit vectors (N, D) float32 of texts, with the modules that follow the pooling; equal texts are run once."""
    distinct = list(dict.fromkeys(texts))
    encoded = encode_inputs(model, distinct, "text")
    features = predict(model, encoded, advance=(progress or Silent()).start(label, len(distinct))).features
    if len(modules := read_modules(model)):
        features = modules(torch.from_numpy(features)).numpy()
    return unit_length(features)[_places(distinct, texts)]


def evaluate_similarity(
    model: Model, judged: SimilaritySet, *, progress: Progress | None = None, label: str = "evaluate"
) -> tuple[np.ndarray, Score]:
    """What an embedding says of a set, one number per example, and its score. Raises ModelError for a model of no text."""
    first, second = judged.texts
    found = vectors(model, [*first, *second], progress=progress, label=label)
    outputs = judged.outputs(found[: len(first)], found[len(first) :])
    return outputs, judged.score(outputs)


def _places(distinct: Sequence[str], texts: Sequence[str]) -> list[int]:
    place = {text: row for row, text in enumerate(distinct)}
    return [place[text] for text in texts]


def _hash(facts: Any) -> str:
    return hashlib.sha256(repr(facts).encode("utf-8", "surrogatepass")).hexdigest()
