"""Robust tuning of an embedding: what a model gains at home and loses elsewhere, plainly tuned and by surefoot's search.

    SUREFOOT_DATA=folder python benchmarks/embedding_tuning.py --seeds 3

Home is Banking77: pairs of two training queries of one intent; the metric is nDCG@10 of the test queries of the same
intent. The judge is 400 pairs of STS 2012. The tests, which nothing is chosen on: 300 pairs of each STS year from 2013 on,
Cranfield, and the queries of CLINC150's test set by intent. `contrastive` is the search's second trial, all layers by
InfoNCE at the recipe's rate; `plain` is the same at the one of RATES that finds most of the held-out pairs of home, which
is how one tunes who looks at home alone; gains and losses are set against it. `surefoot` is what the search would ship.
Writes benchmarks/results/embedding_tuning.json after every seed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import surefoot
from surefoot.assess.similarity import Retrieval, SimilaritySet, evaluate_similarity, load_similarity, rated
from surefoot.data.examples import Examples
from surefoot.data.tasks.stored import stored
from surefoot.environment import environment
from surefoot.files import write_json
from surefoot.models.model import Model
from surefoot.search.family import Family, model_with_classes
from surefoot.search.plan import Plan
from surefoot.search.search import tune
from surefoot.search.task import task_of
from surefoot.tune.recipe import Recipe

RESULTS = Path(__file__).parent / "results"
PAIRS, JUDGED, RATED, ASKED = 1500, 400, 300, 400
MODEL, LENGTH = "minilm", 64
#: Of plain tuning: the recipe's learning rate, and two that tune harder.
RATES = (5e-5, 1e-4, 3e-4)


def pairs_of_intents(texts: pd.DataFrame, count: int, seed: int) -> Examples:
    """So many pairs of two texts of one intent; no text is in two of them."""
    rng, rows = np.random.default_rng(seed), []
    for intent, group in texts.groupby("intent"):
        found = group["text"].drop_duplicates().to_numpy()[rng.permutation(group["text"].nunique())]
        rows += [{"anchor": a, "positive": b, "label": intent} for a, b in zip(found[::2], found[1::2], strict=False)]
    return surefoot.load_data([rows[i] for i in rng.permutation(len(rows))[:count]])


def same_intent(texts: pd.DataFrame, asked: int, *, most: int, name: str) -> Retrieval:
    """Queries to find the others of their intent among `most` texts."""
    few = texts.drop_duplicates("text").sample(most, random_state=0)
    documents, intents = few["text"].tolist(), few["intent"].to_numpy()
    relevant = [
        {int(row): 1.0 for row in np.flatnonzero(intents == intents[i]) if row != i} for i in range(len(documents))
    ]
    chosen = [i for i in range(len(documents)) if relevant[i]][:asked]
    return Retrieval([documents[i] for i in chosen], documents, [relevant[i] for i in chosen], name)


def rated_year(year: int, count: int, seed: int) -> Examples:
    """So many rated pairs of an STS year."""
    pairs = pd.read_parquet(stored("sts"))
    return surefoot.load_data(pairs[pairs["year"] == year].sample(count, random_state=seed), require_labels=False)


def tests() -> dict[str, SimilaritySet]:
    """Home's test set first, then those away."""
    banking, clinc = pd.read_parquet(stored("banking77")), pd.read_parquet(stored("clinc150"))
    found: dict[str, SimilaritySet] = {
        "home": same_intent(banking[banking["split"] == "test"], ASKED, most=1500, name="banking77")
    }
    years = pd.read_parquet(stored("sts"))["year"].unique()
    found |= {f"sts{year}": rated(rated_year(year, RATED, 0)) for year in sorted(years) if year > 2012}
    found["cranfield"] = load_similarity(stored("cranfield/corpus").parent)
    within = clinc[(clinc["split"] == "test") & clinc["in_scope"]]
    found["clinc150"] = same_intent(within, ASKED, most=1500, name="clinc150")
    return found


def tuned_plainly(train: Examples, plan: dict[str, Any], seed: int) -> tuple[Model, float]:
    """Every layer by InfoNCE on what the search trains on too, and the rate that did best on what it holds out."""
    kept, held, _, _ = task_of("embedding").prepare(
        surefoot.load(MODEL, max_length=LENGTH),
        train,
        None,
        {"judge": {"sts2012": rated_year(2012, JUDGED, seed)}, "unlabelled": {}, "tests": {}},
        Plan(task="embedding", seed=seed),
    )
    found: list[tuple[float, float, Model]] = []
    for rate in RATES:
        recipe = Recipe.named(
            "contrastive", epochs=plan["epochs"], max_length=LENGTH, optimizer={"name": "adamw", "lr": rate}
        )
        model = recipe.fit(surefoot.load(MODEL, max_length=LENGTH), kept, seed=seed).model
        found.append((evaluate_similarity(model, held)[1].value, rate, model))
    _, rate, model = max(found, key=lambda each: each[0])
    return model, rate


def scores(model: Any, sets: dict[str, SimilaritySet]) -> dict[str, float]:
    return {name: evaluate_similarity(model, each)[1].value for name, each in sets.items()}


def one_seed(
    seed: int, sets: dict[str, SimilaritySet], plan: dict[str, Any], *, pairs: int, store: Path
) -> dict[str, Any]:
    """Scores of the start, the three baselines and the answer of one search; one that was stopped goes on."""
    banking = pd.read_parquet(stored("banking77"))
    train = pairs_of_intents(banking[banking["split"] == "train"], pairs, seed)
    began = time.monotonic()
    members = store / f"family-{seed}"
    found = tune(
        surefoot.load(MODEL, max_length=LENGTH),
        train,
        judge={"sts2012": replace(rated_year(2012, JUDGED, seed), source="sts2012")},
        task="embedding",
        seed=seed,
        max_length=LENGTH,
        out=store / f"seed-{seed}",
        family=members,
        **plan,
    )
    seconds = time.monotonic() - began
    arms = {"surefoot": scores(found.model, sets)}
    family = Family(model_with_classes(surefoot.load(MODEL, max_length=LENGTH), ()), members)
    for number, name in enumerate(("untuned", "contrastive", "wise_contrastive")):
        member = family.find(f"trial-{number:04d}")
        assert member is not None
        arms[name] = scores(family.build(member.load(), normalize=member.normalize), sets)
    plain, rate = tuned_plainly(train, plan, seed)
    arms["plain"] = scores(plain, sets)
    answer = found.answer.as_json()
    chosen = {key: answer[key] for key in ("candidate", "members", "share", "scores", "judge domains")}
    return {"seed": seed, "arms": arms, "answer": chosen, "rate": rate, "seconds": round(seconds, 1)}


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Home gain and away loss of each arm over the start: means over seeds, points of the metrics."""
    found: dict[str, Any] = {}
    for arm in ("plain", "contrastive", "wise_contrastive", "surefoot"):
        changes = [
            {name: 100 * (each["arms"][arm][name] - each["arms"]["untuned"][name]) for name in each["arms"][arm]}
            for each in rounds
        ]
        by_set = {name: float(np.mean([change[name] for change in changes])) for name in changes[0]}
        away = [float(np.mean([-value for name, value in change.items() if name != "home"])) for change in changes]
        found[arm] = {"home_gain": by_set["home"], "away_loss": float(np.mean(away)), "changes": by_set}
        found[arm] |= {"home_gain_by_seed": [change["home"] for change in changes], "away_loss_by_seed": away}
    plain, ours = found["plain"], found["surefoot"]
    found["share_of_home_gain"] = ours["home_gain"] / plain["home_gain"]
    # Where plain tuning loses nothing on average there is nothing to keep, and a share would say the opposite.
    found["share_of_away_loss"] = ours["away_loss"] / plain["away_loss"] if plain["away_loss"] > 0 else None
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--most-layers", type=int, default=6, help="that a draw trains")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of the training set")
    parser.add_argument("--rule", default="with_home")
    parser.add_argument("--store", type=Path, help="folder of the searches, so that a stopped one goes on")
    parser.add_argument("--name", default="embedding_tuning", help="of the file of results")
    asked = parser.parse_args()
    plan = {"trials": asked.trials, "epochs": asked.epochs, "rule": asked.rule, "layers": (2, asked.most_layers)}
    path, sets, rounds = RESULTS / f"{asked.name}.json", tests(), []
    store = asked.store or Path(tempfile.mkdtemp())
    for seed in range(asked.seeds):
        rounds.append(one_seed(seed, sets, plan, pairs=asked.pairs, store=store))
        facts = {"pairs": asked.pairs, "judge": JUDGED, "model": MODEL, "max_length": LENGTH, "rates": RATES, **plan}
        write_json(
            path, {"settings": facts, "summary": summary(rounds), "rounds": rounds, "environment": environment()}
        )
        print(json.dumps(summary(rounds), indent=1), flush=True)


if __name__ == "__main__":
    main()
