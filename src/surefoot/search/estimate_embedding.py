"""`estimate` for an embedding: its family orders pairs that nobody rated, and agreement in rank says how well."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from surefoot.assess.similarity import Rated, SimilaritySet
from surefoot.errors import DataError, RunError
from surefoot.files import atomic_write
from surefoot.models.load import load
from surefoot.progress import Progress, Silent
from surefoot.search.answer import Target
from surefoot.search.door import at_most
from surefoot.search.embedding import Embedding, unrated
from surefoot.search.estimate import members_of, with_reason
from surefoot.search.family import Member
from surefoot.search.plan import Plan
from surefoot.search.sets import MOST
from surefoot.search.similarities import SimilaritySets

#: Ratings of the judge's pairs, and the cosines that the shipped model gives them.
RATINGS = "ratings.safetensors"


def write_ratings(folder: Path, judge: Mapping[str, SimilaritySet], outputs: Mapping[str, np.ndarray]) -> None:
    """Write `ratings.safetensors` into a run folder; `outputs`: of the shipped model, by set. A judge that is a retrieval
    set has no ratings, and is left out."""
    stored = {}
    for name, each in judge.items():
        if isinstance(each, Rated) and each.ratings is not None:
            stored[f"judge/{name}"] = np.ascontiguousarray(each.ratings, dtype=np.float64)
            stored[f"cosines/{name}"] = np.ascontiguousarray(outputs[name], dtype=np.float32)
    with atomic_write(folder / RATINGS) as partial:
        save_file(stored, partial)


def read_ratings(folder: Path) -> tuple[dict[str, SimilaritySet], dict[str, np.ndarray]]:
    """(judge's sets, of which only the ratings are known; cosines of the shipped model), by domain."""
    try:
        stored = load_file(folder / RATINGS)
        names = [name.removeprefix("judge/") for name in stored if name.startswith("judge/")]
        cosines = {name: stored[f"cosines/{name}"] for name in names}
    except FileNotFoundError as error:
        raise RunError(f"{folder}: no {RATINGS}, which forecasts need: give the same `tune` command again") from error
    except (OSError, SafetensorError, KeyError) as error:
        raise RunError(f"{folder / RATINGS}: damaged ({error}): give the same `tune` command again") from error
    ratings = {name: stored[f"judge/{name}"] for name in names}
    return {name: Rated([""] * len(each), [""] * len(each), each, name) for name, each in ratings.items()}, cosines


def estimate_embedding(
    folder: Path,
    facts: Mapping[str, Any],
    data: Mapping[str, Any],
    *,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> dict[str, Target]:
    """Spearman's correlation to expect of a search's embedding on each set of `data`: see `estimate`.

    data: pairs, texts alone (each is paired with another), or a retrieval set (queries with documents drawn); ratings are
    ignored. Of more than 1,000 pairs as many are drawn.
    """
    if not data:
        raise DataError("no data to look at: give one set or more")
    plan = Plan(**Plan.load(folder / "plan.yaml"))
    judge, cosines = read_ratings(folder)
    if not judge:
        raise RunError(
            f"{folder}: no judge of this search holds rated pairs, so nothing can be forecast: search with one, such as --judge sts=sts.parquet"
        )
    given = {
        f"unlabelled/{name}": at_most(unrated(each, plan.seed), MOST, np.random.default_rng([plan.seed, 6]))
        for name, each in data.items()
    }
    sets = SimilaritySets(given, max_length=plan.max_length)
    shipped = load(folder, device=device)
    final = Member("the answer", "", 0, shipped.normalize, {**cosines, **sets.logits(shipped)}, {})
    members, why = members_of(folder, facts, (), sets, device, progress or Silent())
    members = [each for each in members if [each.name] != facts["answer"]["members"] or facts["answer"]["share"] < 1]
    task = Embedding()
    seat = task.seat(judge, seed=plan.seed)
    return {name: with_reason(task.look_at(f"unlabelled/{name}", final, members, judge, seat), why) for name in data}
