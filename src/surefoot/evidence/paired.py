"""Training pairs for arms that say what they are made by, and of which corpus; and what a model trained on them is asked.

None of the corpora holds what the questions are answered by: of Cranfield the documents are read and the questions are not,
the docstrings are of other libraries, the sentences of other years, the intents other ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from surefoot.data.examples import Examples
from surefoot.data.pairs.maker import Pair, PairMaker
from surefoot.data.pairs.negation import negated
from surefoot.data.records import Records
from surefoot.data.tasks.stored import stored
from surefoot.errors import SurefootError, nearest
from surefoot.files import write_text
from surefoot.tune.build import build

#: From such a rating on two sentences say the same; years that are trained on, and the one that is asked about.
SAME, TRAINED, ASKED = 4.0, (2012, 2013), 2014
#: Intents whose descriptions are trained on; the others are asked about.
INTENTS = 75
#: What a language model writes for: so many documents, or sentences.
WRITTEN = 128


def pairs_of(spec: Mapping[str, Any], *, most: int, seed: int, store: Path) -> Examples:
    """At most so many pairs, drawn with the seed. spec: `corpus`, one of CORPORA, and the maker, by `name` and options;
    without a name the corpus is of pairs already. What a language model writes is written once and kept in `store`."""
    options = dict(spec)
    corpus = options.pop("corpus", None)
    if corpus not in CORPORA:
        raise SurefootError(f"unknown corpus `{corpus}` of pairs: {nearest(str(corpus), CORPORA)}")
    rows: Sequence[Mapping[str, Any]] = CORPORA[corpus]()
    if "name" in options:
        maker: PairMaker = build("pairs", options)
        rows = _written(maker, options, rows, store) if maker.slow else _made(maker, rows, seed)
    order = np.random.default_rng(seed).permutation(len(rows))[:most]
    return examples_of([rows[place] for place in order], source=f"pairs of {corpus}")


def examples_of(rows: Sequence[Mapping[str, Any]], *, source: str) -> Examples:
    """Pairs as training data."""
    columns: dict[str, Any] = {
        name: np.array([row[name] for row in rows], dtype=object) for name in rows[0] if name != "anchor"
    }
    if "score" in columns:
        columns["score"] = columns["score"].astype(np.float64)
    return Examples([row["anchor"] for row in rows], None, (), source=source, **columns)


def _made(maker: PairMaker, rows: Sequence[Mapping[str, Any]], seed: int) -> list[Mapping[str, Any]]:
    return [_row(pair, maker) for pair in maker(Records(rows), seed=seed)]


def _row(pair: Pair, maker: PairMaker) -> dict[str, Any]:
    return {name: getattr(pair, name) for name in maker.gives}


def _written(
    maker: PairMaker, options: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], store: Path
) -> list[Mapping[str, Any]]:
    few = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))[:WRITTEN]]
    digest = hashlib.sha256(json.dumps([options, few], sort_keys=True).encode()).hexdigest()[:12]
    path = store / f"pairs-{digest}.json"
    store.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.is_file():
            write_text(path, json.dumps(_made(maker, few, 0)))
        found: list[Mapping[str, Any]] = json.loads(path.read_text("utf8"))
    return found


# --- corpora


def _cranfield() -> list[dict[str, Any]]:
    import pandas as pd

    table = pd.read_parquet(stored("cranfield/corpus"))
    return [{"id": each["_id"], **each} for each in table.to_dict("records")]


def _docstrings() -> list[dict[str, Any]]:
    from surefoot.evidence.libraries import documents

    return list(documents())


def _paraphrases() -> list[dict[str, Any]]:
    """Sentences of other years with what says the same."""
    rated = _rated()
    rows = rated[rated["year"].isin(TRAINED) & (rated["score"] >= SAME)]
    return [{"text": one, "paraphrase": two} for one, two in zip(rows["sentence1"], rows["sentence2"], strict=True)]


def _utterances() -> list[dict[str, Any]]:
    """What people say to assistants, of the intents that are trained on."""
    return [{"text": text} for text, _, _ in queries("train", first=True)]


def _described() -> list[dict[str, Any]]:
    """The same as pairs: with their intent in words, and with another one of the same service, which is not true of them."""
    found, draws = [], np.random.default_rng(0)
    every = queries("train", first=True)
    siblings = {domain: sorted({intent for _, intent, each in every if each == domain}) for _, _, domain in every}
    for text, intent, domain in every:
        others = [each for each in siblings[domain] if each != intent]
        if others:
            wrong = others[int(draws.integers(len(others)))]
            found.append({"anchor": text, "positive": in_words(intent), "negative": in_words(wrong)})
    return found


CORPORA = {
    "cranfield": _cranfield,
    "docstrings": _docstrings,
    "paraphrases": _paraphrases,
    "utterances": _utterances,
    "described": _described,
}


# --- what is asked


@cache
def negation_triplets() -> list[tuple[str, str, str]]:
    """(sentence, what says the same, the sentence negated), of a year that no arm trains on."""
    rated = _rated()
    rows = rated[(rated["year"] == ASKED) & (rated["score"] >= SAME)]
    found = [
        (one, two, opposite)
        for one, two in zip(rows["sentence1"], rows["sentence2"], strict=True)
        if one != two and (opposite := negated(one)) is not None
    ]
    return sorted(set(found))


def rated_pairs(seed: int, *, each: int) -> Any:
    """Pairs of that year, so many drawn of every subset, as a table with `sentence1`, `sentence2`, `score`, `subset`."""
    rated = _rated()
    return rated[rated["year"] == ASKED].groupby("subset").sample(each, random_state=seed).reset_index(drop=True)


def queries(split: str, *, first: bool) -> list[tuple[str, str, str]]:
    """(text, intent, service) of CLINC150, of the first half of its intents in a drawn order, or of the other half."""
    import pandas as pd

    table = pd.read_parquet(stored("clinc150"))
    table = table[table["in_scope"]]
    intents = sorted(set(table["intent"]))
    order = np.random.default_rng(150).permutation(len(intents))
    chosen = {intents[place] for place in (order[:INTENTS] if first else order[INTENTS:])}
    rows = table[(table["split"] == split) & table["intent"].isin(chosen)]
    return list(zip(rows["text"], rows["intent"], rows["domain"], strict=True))


def in_words(intent: str) -> str:
    """How an intent is described.

    >>> in_words("lost_or_stolen_card")
    'lost or stolen card'
    """
    return intent.replace("_", " ")


@cache
def _rated() -> Any:
    import pandas as pd

    return pd.read_parquet(stored("sts"))
