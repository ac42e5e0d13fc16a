"""The search for an embedding: trained on pairs, judged by ratings of other pairs, or by what it finds.

Home's held-out pairs are judged by nDCG@10 of each anchor's own positive among all positives. A judge's set is pairs with
ratings (Spearman's rho of cosines) or a retrieval set (nDCG@10).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from surefoot.assess.rank_agreement import forecast_metric
from surefoot.assess.similarity import (
    Rated,
    Retrieval,
    Score,
    SimilaritySet,
    evaluate_similarity,
    partners,
    rated,
)
from surefoot.assess.temperature import Calibration
from surefoot.data.examples import Examples
from surefoot.embed.modules import check_no_modules
from surefoot.errors import DataError, RecipeError
from surefoot.models.model import Model
from surefoot.progress import Progress
from surefoot.registry import get
from surefoot.search.answer import Answer, Target
from surefoot.search.bank import Bank
from surefoot.search.family import Member
from surefoot.search.judge import Choice, Judge, Rule, paired
from surefoot.search.plan import Plan
from surefoot.search.sets import HOME
from surefoot.search.similarities import RULES, Similarities, SimilaritySets
from surefoot.search.space import without_labels
from surefoot.search.task import Task

if TYPE_CHECKING:
    from surefoot.search.search import _Search

#: Held-out pairs of home, where none are given: a fifth of the training set, at most so many.
VALIDATION = 500
#: A judge needs so many pairs or queries.
FEWEST = 20


class Embedding(Task):
    """No head; features (N, D), compared by their cosines."""

    name = "embedding"
    baselines: ClassVar[tuple[str, str, str]] = ("untuned", "contrastive", "wise_contrastive")
    #: Single members too: home's metric counts as well, which says more than a hundred labels.
    sizes: ClassVar[tuple[int, ...]] = (1, 3, 5)
    #: Further back than a classifier's: an embedding has a metric at its start, and a line from there to here.
    shares: ClassVar[tuple[float, ...]] = (1.0, 0.75, 0.5, 0.25)
    rules: ClassVar[Mapping[str, Rule]] = RULES
    labelled = False

    def prepare(
        self,
        model: Model,
        train: Examples,
        validation: Examples | None,
        sets: Mapping[str, Mapping[str, Any]],
        plan: Plan,
    ) -> tuple[Examples, Retrieval, dict[str, dict[str, Any]], list[str]]:
        if model.processor.modality != "text":
            raise DataError(
                f"`{model.name}` reads {model.processor.modality}: an embedding of pairs is trained with a model of texts"
            )
        check_no_modules(model)
        for pairs in (train, *([] if validation is None else [validation])):
            if pairs.positive is None:
                raise DataError(
                    f"{pairs.source}: no pairs to train an embedding on; give the columns `anchor` and `positive`"
                )
        if not sets["judge"]:
            raise DataError("a search needs a judge: pairs with ratings, or a folder with corpus, queries and qrels")
        judge = {name: _judging(each) for name, each in sorted(sets["judge"].items())}
        tests = {name: _judging(each) for name, each in sets["tests"].items()}
        targets = {name: unrated(each, plan.seed) for name, each in sets["unlabelled"].items()}
        for each in judge.values():
            if len(each) < FEWEST:
                raise DataError(f"{each.source}: {len(each)} examples cannot judge; give at least {FEWEST}, better 200")
        notes = _overlaps(train, judge, tests)
        if len(judge) == 1:
            notes.append(
                f"one judge, `{next(iter(judge))}`: what is chosen may suit that set alone; a second one would tell"
            )
        if validation is None:
            train, validation = _hold_out(train, plan)
        for name in Bank.of(plan.bank).objectives:
            if get("objective", name).make(**without_labels(name)).reads_labels:
                raise RecipeError(f"`{name}` of the bank reads labels, and an embedding is tuned without: leave it out")
        train = replace(train, labels=None, classes=(), label_texts=None)
        named: dict[str, dict[str, Any]] = {"judge": {**judge}, "unlabelled": {**targets}, "tests": {**tests}}
        return train, partners(validation), named, notes

    def seat(self, judge: Mapping[str, SimilaritySet], *, seed: int) -> Judge:
        return Judge.dealt({name: (np.zeros(len(each)), each.document) for name, each in judge.items()}, seed=seed)

    def sets(self, named: Mapping[str, Any], *, train: Examples, max_length: int | None) -> SimilaritySets:
        return SimilaritySets(named, max_length=max_length)

    def home(self, sets: SimilaritySets) -> dict[str, SimilaritySet]:
        """All sets by name: what is right on home's, and on the judge's."""
        return sets.named

    def view(self, judge: Judge, outputs: Mapping[str, np.ndarray], home: Mapping[str, SimilaritySet]) -> Similarities:
        at_home = home[HOME].contributions(outputs[HOME]).mean()
        if not all(np.isfinite(each).all() for each in outputs.values()):
            raise DataError("a similarity is not finite: the training ran away")
        return Similarities({name: home[name] for name in judge.domains}, outputs, float(at_home))

    def shipped(self, view: Any, judge: Judge, outputs: Mapping[str, np.ndarray], home: Any) -> Calibration:
        """Nothing: an embedding has no threshold."""
        return Calibration(1.0, np.zeros(1))

    def worth(self, choice: Choice, baselines: Mapping[str, Similarities], judge: Judge) -> dict[str, Any]:
        """The metric on the judge's domains by cross-fitting, and paired differences from the baselines; of rank
        correlations, to first order (see `Rated.contributions`)."""
        versus = {
            name: {"metric": paired(choice.crossed - view.contributions(judge), judge).as_json()}
            for name, view in baselines.items()
        }
        home = {name: view.home for name, view in baselines.items()}
        return {"metric": paired(choice.crossed, judge).as_json(), "versus": versus, "home": home}

    def look_at(
        self, name: str, final: Member, members: Sequence[Member], home: Mapping[str, SimilaritySet], judge: Judge
    ) -> Target:
        others = [each for each in members if each.name != final.name]
        known = {
            domain: (np.stack([each.logits[domain] for each in [final, *others]]), judged.ratings)
            for domain in judge.domains
            if isinstance(judged := home[domain], Rated) and judged.ratings is not None
        }
        return Target(forecast_metric(known, np.stack([each.logits[name] for each in [final, *others]])))

    def evaluate(
        self, model: Model, examples: SimilaritySet, *, progress: Progress, label: str
    ) -> tuple[np.ndarray, Score]:
        return evaluate_similarity(model, examples, progress=progress, label=label)

    def write(self, folder: Path, home: Any, judge: Mapping[str, SimilaritySet], answer: Answer) -> None:
        from surefoot.search.estimate_embedding import write_ratings

        write_ratings(folder, judge, answer.member.logits)

    def explain(
        self,
        search: _Search,
        answer: Answer,
        board: Sequence[Mapping[str, Any]],
        tests: Mapping[str, SimilaritySet],
        outputs: Mapping[str, np.ndarray],
    ) -> dict[str, Any]:
        from surefoot.search.explain.embedding import explain_embedding

        return explain_embedding(search, answer, board, tests, outputs)


def _judging(given: Any) -> SimilaritySet:
    """A set with what is right: ratings, or relevant documents."""
    found = rated(given) if isinstance(given, Examples) else given
    if isinstance(found, Rated) and found.ratings is None:
        raise DataError(f"{found.source}: no ratings to judge by; add a column `score`, how alike each pair is")
    return found


def unrated(given: Any, seed: int) -> Rated:
    """Pairs without ratings: as they are; of texts alone, each with another; of queries, each with a document."""
    rng = np.random.default_rng([seed, 9])
    if isinstance(given, Examples) and given.positive is None:
        texts = list(given.inputs)
        return Rated(texts, [texts[i] for i in rng.permutation(len(texts)).tolist()], None, given.source)
    if isinstance(given, Retrieval):
        chosen = rng.integers(len(given.documents), size=(len(given.queries), 4))
        first = [text for text in given.queries for _ in range(4)]
        return Rated(first, [given.documents[i] for i in chosen.ravel().tolist()], None, given.source)
    found = rated(given, ratings=False) if isinstance(given, Examples) else given
    return Rated(found.first, found.second, None, found.source)


def _hold_out(train: Examples, plan: Plan) -> tuple[Examples, Examples]:
    size = min(VALIDATION, len(train) // 5)
    if size < 10:
        raise DataError(f"{train.source}: {len(train)} pairs are too few to hold some out: give 50 or more")
    order = np.random.default_rng([plan.seed, 3]).permutation(len(train))
    return train.take(np.sort(order[size:])), train.take(np.sort(order[:size]))


def _overlaps(train: Examples, judge: Mapping[str, SimilaritySet], tests: Mapping[str, SimilaritySet]) -> list[str]:
    """Texts that are in two sets that should be apart, as notes."""
    seen = {*train.inputs, *(str(each) for each in train.positive)} if train.positive is not None else set()
    notes = []
    for what, sets in (("judge", judge), ("test set", tests)):
        for name, each in sets.items():
            shared = sum(text in seen for text in each.texts[0])
            if shared:
                notes.append(f"{shared} of {len(each)} texts of the {what} `{name}` are also in the training set")
    for name, each in tests.items():
        for other, judging in judge.items():
            shared = len({*each.texts[0]} & {*judging.texts[0]})
            if shared:
                notes.append(f"{shared} texts of the test set `{name}` are also in the judge `{other}`")
    return notes
