"""The search for an embedding, whole, on a two-layer BERT: the same search as a classifier's."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import surefoot
from conftest import BAD, GOOD, sentences
from surefoot.assess.similarity import evaluate_similarity, partners, rated
from surefoot.data.examples import Examples
from surefoot.errors import DataError, RecipeError, RunError
from surefoot.models.load import load
from surefoot.report.run import report_run
from surefoot.search.estimate import estimate
from surefoot.search.family import Family, model_with_classes


def pairs(count: int, seed: int, *, score: bool = False) -> Examples:
    """Two texts with a telling word each; how alike they are is whether these say the same."""
    (first, labels), (second, others) = sentences(count, seed), sentences(count, seed + 1000)
    if not score:
        second = [f"a {GOOD[i % 8] if label else BAD[i % 8]} film" for i, label in enumerate(labels)]
    ratings = (labels == others) + 0.01 * np.arange(count) / count if score else None
    return Examples(first, None, (), positive=np.array(second, dtype=object), score=ratings, source=f"pairs {seed}")


def search(model: str, out: object = None, **changes: object):  # type: ignore[no-untyped-def]
    options = {"trials": 6, "batch_size": 16, "layers": (1, 2), "startup": 0, "seed": 3} | changes
    sets = {"judge": {"rated": pairs(40, 4, score=True)}, "tests": {"test": pairs(40, 5, score=True)}}
    sets |= {"unlabelled": {"test": pairs(40, 5)}}
    return surefoot.tune(load(model), pairs(80, 3), task="embedding", out=out, **{**sets, **options})


@pytest.fixture(scope="module")
def found(bert_folder, tmp_path_factory):
    return search(str(bert_folder), tmp_path_factory.mktemp("search") / "run")


def test_the_baselines_are_there_and_the_answer_is_no_worse(found):
    board = found.leaderboard()
    assert [row["name"] for row in board[:4]] == ["untuned", "contrastive", "wise_contrastive", "contrastive"]
    assert found.answer.choice.scores[found.answer.choice.name] <= min(row["value"] for row in board[:3])
    assert {row["state"] for row in board} <= {"complete", "pruned"}


def test_the_first_trial_is_the_start_and_the_third_lies_half_way(found, bert_folder):
    family = Family(model_with_classes(load(str(bert_folder)), ()), found.folder / "family")
    members = [family.find(f"trial-{number:04d}") for number in range(3)]
    assert members[0].load() == {}
    half, whole = members[2].load(), members[1].load()
    assert whole
    for name, weight in whole.items():
        middle = (weight + family.pretrained[name]) / 2
        torch.testing.assert_close(half[name], middle)


def test_the_score_is_that_of_the_model_in_the_folder(found):
    """Read back, the shipped model says the same of the test pairs; the judge's value is Spearman's rho with home's nDCG."""
    judged = rated(pairs(40, 5, score=True))
    again = load(found.folder)
    assert again.classes == ()
    assert evaluate_similarity(again, judged)[1].value == pytest.approx(found.metrics["test"].value, abs=0.02)
    assert found.answer.nested["metric"]["low"] <= found.answer.nested["metric"]["high"]
    assert found.answer.targets["test"].forecast.method in ("rank_agreement", "judge_mean")


def test_a_finished_search_forecasts_for_other_pairs(found, tmp_path):
    """What `estimate` says of the pairs that the search was told of is what the search said of them."""
    again = estimate(found.folder, {"test": pairs(40, 5), "texts": replace(pairs(40, 6), positive=None)})
    told = found.answer.targets["test"].forecast
    assert again["test"].forecast.method == told.method
    assert again["test"].forecast.value == pytest.approx(told.value, abs=0.02)
    assert -1 <= again["texts"].forecast.low <= again["texts"].forecast.high <= 1
    copied = shutil.copytree(found.folder, tmp_path / "run")
    (copied / "ratings.safetensors").unlink()
    with pytest.raises(RunError, match=r"no ratings.safetensors"):
        estimate(copied, {"test": pairs(40, 5)})


def test_a_judge_that_is_a_retrieval_set_forecasts_nothing_and_says_so(bert_folder, tmp_path):
    judge = {"found": partners(pairs(40, 4))}
    result = search(str(bert_folder), tmp_path / "run", judge=judge, trials=3)
    told = json.loads((result.folder / "search.json").read_text())["answer"]["targets"]["test"]["forecast"]
    assert told["value"] is None
    assert "no judge holds rated pairs" in told["note"]
    assert "no judge holds rated pairs" in (report_run(result.folder)).read_text()
    with pytest.raises(RunError, match="no judge of this search holds rated pairs"):
        estimate(result.folder, {"test": pairs(40, 5)})


def test_without_its_explanation_a_search_still_has_the_page_of_an_embedding(found, tmp_path):
    copied = shutil.copytree(found.folder, tmp_path / "run")
    for name in ("why.json", "metrics.json"):
        (copied / name).unlink()
    facts = json.loads((copied / "search.json").read_text())
    (copied / "search.json").write_text(json.dumps(facts | {"metrics": {}}))
    page = report_run(copied).read_text()
    assert "accuracy, points" not in page
    assert "log-loss" not in page


def test_members_that_cannot_be_had_are_said_to_be_missing(found, tmp_path):
    copied = shutil.copytree(found.folder, tmp_path / "run")
    shutil.rmtree(copied / "family")
    seen = estimate(copied, {"test": pairs(40, 5)})["test"].forecast
    assert "only the shipped model was asked" in seen.note
    assert seen.method == "judge_mean"


def test_the_page_shows_every_set_beside_the_baselines(found):
    """Figures of the page are those of the facts; the path ends where the answer stands."""
    why = json.loads((found.folder / "why.json").read_text())
    assert set(why["sets"]) == {"home/home", "judge/rated", "test/test"}
    tested = why["sets"]["test/test"]["models"]
    assert set(tested) == {"answer", "untuned", "contrastive", "wise_contrastive"}
    assert tested["answer"]["value"] == pytest.approx(found.metrics["test"].value)
    for model in tested.values():
        apart = tested["answer"]["value"] - model["value"]
        assert "answer above" not in model or model["answer above"]["value"] == pytest.approx(apart, abs=1e-9)
    if why["path"]:
        values = why["path"]["sets"]["test/test"]["values"]
        assert values[0] == pytest.approx(tested["untuned"]["value"], abs=1e-4)
        assert values[-1] == pytest.approx(tested["answer"]["value"], abs=1e-4)
    page = report_run(found.folder).read_text()
    for section in ("answer", "metrics", "forecasts", "geometry", "trials", "limits", "recipe"):
        assert f'id="{section}"' in page
    assert f"{100 * found.metrics['test'].value:.1f}" in page
    assert "NaN" not in page
    assert "accuracy" not in page.split('id="trials"')[0].lower()


def test_a_finished_search_is_opened_and_another_is_refused(found, bert_folder):
    again = search(str(bert_folder), found.folder)
    assert again.as_json()["answer"] == found.as_json()["answer"]
    with pytest.raises(surefoot.SurefootError, match="plan"):
        search(str(bert_folder), found.folder, epochs=2)


def test_labels_say_what_is_found_at_home_and_train_nothing(bert_folder):
    train = pairs(80, 3)
    labelled = replace(train, labels=np.arange(80) % 2, classes=("a", "b"))
    assert len(partners(labelled).relevant[0]) > len(partners(train).relevant[0])
    result = surefoot.tune(
        load(str(bert_folder)),
        labelled,
        judge={"rated": pairs(40, 4, score=True)},
        task="embedding",
        trials=3,
        batch_size=16,
    )
    assert result.model.classes == ()


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"judge": {}}, DataError, "a search needs a judge"),
        ({"judge": {"a": pairs(40, 4)}}, DataError, "no ratings; add a column `score`"),
        ({"judge": {"a": pairs(10, 4, score=True)}}, DataError, "10 examples cannot judge"),
        ({"bank": ("infonce", "cross_entropy")}, RecipeError, "`cross_entropy` of the bank reads labels"),
        ({"rule": "threshold_free"}, RecipeError, "which no embedding is judged by"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_trained(bert_folder, change, error, said):
    with pytest.raises(error, match=said):
        search(str(bert_folder), **change)


def test_smart_and_sam_are_drawn_with_the_rest(bert_folder):
    """A bank of any kind: an adversarial objective compares features there, sharpness is an optimizer's, and a loss of
    sentence-transformers is an objective like any other."""
    added = [{"other.objective": True, "objective": name} for name in ("smart", "sentence_transformers")]
    first = (added[0] | {"other.optimizer": True, "optimizer": "sam"}, added[1])
    bank = ("infonce", "l2_start", "smart", "sentence_transformers", "sam")
    found = search(str(bert_folder), bank=bank, warm_start=first, trials=6)
    smooth, library = found.leaderboard()[4:]
    assert smooth["state"] == library["state"] == "complete"
    assert smooth["recipe"]["objectives"]["smart"]["compares"] == "features"
    assert smooth["recipe"]["optimizer"]["name"] == "sam"
    assert "sentence_transformers" in library["recipe"]["objectives"]
