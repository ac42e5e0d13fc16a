"""Strategies that tune retrieval online: which embedding, how much of a document it reads, how many documents to hand on.

Every setting's reward for every question is computed once; a strategy then plays on them, question after question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from surefoot.evidence.reading import embed
from surefoot.models.model import Model
from surefoot.search.bandit import Bandit
from surefoot.tune.build import build

#: Sixty settings. `reads`: the share of a document's words that is embedded and handed on.
SPACE: Mapping[str, Sequence[Any]] = {
    "embedding": ("characters", "words", "minilm"),
    "top_k": (1, 2, 5, 10, 20),
    "reads": (0.1, 0.25, 0.5, 1.0),
}
#: Weight of the share of the most tokens that a setting can cost, in the reward.
BETA = 0.5
#: Calls of a play, a fifth of what 20 calls of each setting would be, and plays of a seed.
CALLS, PLAYS = 240, 20
#: A setting is found if it is among so many that are thought best.
AMONG = 5


def rewards(model: Model, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
    """(S, Q): whether document q is among the first k for query q, less BETA times the tokens' share, by setting in the
    order of SPACE's product; at least 0."""
    found: dict[tuple[str, float], np.ndarray] = {}
    for reads in SPACE["reads"]:
        short = [" ".join(text.split()[: max(1, round(reads * len(text.split())))]) for text in documents]
        for kind in SPACE["embedding"]:
            found[kind, reads] = _ranks(kind, model, queries, short)
    most = max(SPACE["top_k"]) * max(SPACE["reads"])
    rows = [
        np.maximum((found[kind, reads] < k) - BETA * k * reads / most, 0.0)
        for kind, k, reads in product(*SPACE.values())
    ]
    return np.stack(rows).astype(np.float64)


def _ranks(kind: str, model: Model, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
    """How many documents are nearer to query q than document q, (Q,)."""
    if kind == "minilm":
        scores = embed(model, queries) @ embed(model, documents).T
    else:
        from sklearn.feature_extraction.text import TfidfVectorizer

        options = {"analyzer": "char_wb", "ngram_range": (3, 3)} if kind == "characters" else {}
        vectors = TfidfVectorizer(**options).fit(documents)
        scores = (vectors.transform(queries) @ vectors.transform(documents).T).toarray()
    own = np.diag(scores)[:, None]
    return np.asarray((scores > own).sum(1))


def play(spec: Mapping[str, Any], table: np.ndarray, *, seed: int) -> dict[str, float]:
    """`found_among_five`: share of plays after which the best setting is among the five that are thought best.
    `regret`: by how much the setting thought best is worse than the best one, in reward."""
    bandit: Bandit = build("strategy", dict(spec))
    true = table.mean(1)
    found, regret = [], []
    for number in range(PLAYS):
        rng = np.random.default_rng([seed, number])
        run = bandit.over(SPACE, seed=int(rng.integers(1 << 31)))
        place = {repr(setting): row for row, setting in enumerate(run.settings)}
        for _ in range(CALLS):
            setting = run.ask()
            run.tell(setting, float(table[place[repr(setting)], rng.integers(table.shape[1])]))
        thought = [place[repr(setting)] for setting in run.ranking(AMONG)]
        found.append(int(true.argmax()) in thought)
        regret.append(true.max() - true[thought[0]])
    return {"found_among_five": float(np.mean(found)), "regret": float(np.mean(regret))}
