"""Scores of embeddings beside scipy and scikit-learn, and the forecast of a rank correlation nobody measured."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import ndcg_score

import surefoot
from surefoot.assess.rank_agreement import forecast_metric, rank_agreement
from surefoot.assess.similarity import Rated, Retrieval, influence, load_similarity, partners, rated
from surefoot.embed.geometry import unit_length
from surefoot.errors import DataError

RNG = np.random.default_rng(0)


def test_spearman_is_scipys_ties_included():
    """scipy.stats.spearmanr side by side, on ratings with many ties."""
    ratings = RNG.integers(0, 6, 200).astype(float)
    cosines = ratings + RNG.normal(0, 2, 200)
    pairs = Rated(["a"] * 200, ["b"] * 200, ratings)
    score = pairs.score(cosines)
    assert score.value == pytest.approx(spearmanr(cosines, ratings).statistic, abs=1e-12)
    assert score.low < score.value < score.high
    assert pairs.contributions(cosines).mean() == pytest.approx(score.value, abs=1e-12)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Of 300 samples of a bivariate normal, whose Spearman's rho is 6 / pi arcsin(r / 2), by its closed form."""
    rng, truth, held = np.random.default_rng(1), 6 / np.pi * np.arcsin(0.35), 0
    for _ in range(300):
        x = rng.normal(size=80)
        y = 0.7 * x + np.sqrt(1 - 0.49) * rng.normal(size=80)
        score = Rated(["a"] * 80, ["b"] * 80, y).score(x)
        held += score.low <= truth <= score.high
    assert 0.90 < held / 300 <= 0.99


def test_influence_is_what_leaving_a_pair_out_changes():
    """Finite differences: the correlation without pair i differs by -(influence_i - rho) / (N - 1), to first order."""
    y = RNG.normal(size=400)
    x = y + RNG.normal(size=400)
    rho, found = spearmanr(x, y).statistic, influence(x, y)
    left = np.array([spearmanr(np.delete(x, i), np.delete(y, i)).statistic for i in range(60)])
    assert np.corrcoef(left - rho, -(found[:60] - rho) / 399)[0, 1] > 0.95


def test_ndcg_is_scikit_learns():
    """sklearn.metrics.ndcg_score at 10, side by side, on graded relevance."""
    queries, documents = unit_length(RNG.normal(size=(7, 8))), unit_length(RNG.normal(size=(40, 8)))
    relevant = [{int(i): float(1 + i % 3) for i in RNG.permutation(40)[:5]} for _ in range(7)]
    names = [f"d{i}" for i in range(40)]
    found = Retrieval([f"q{i}" for i in range(7)], names, relevant).outputs(queries, documents)
    truth = np.zeros((7, 40))
    for row, grades in enumerate(relevant):
        truth[row, list(grades)] = list(grades.values())
    assert found.mean() == pytest.approx(ndcg_score(truth, queries @ documents.T, k=10), abs=1e-6)


def test_a_query_does_not_find_itself():
    vectors = unit_length(np.array([[1.0, 0.1], [1.0, 0.2], [0.0, 1.0]]))
    texts = ["a", "b", "c"]
    found = Retrieval(texts, texts, [{1: 1.0}, {0: 1.0}, {0: 1.0}]).outputs(vectors, vectors)
    assert found[:2].tolist() == [1.0, 1.0]


def test_partners_are_those_of_the_label_where_there_is_one():
    rows = [{"anchor": "a", "positive": "x"}, {"anchor": "b", "positive": "y"}, {"anchor": "c", "positive": "x"}]
    assert [dict(each) for each in partners(surefoot.load_data(rows)).relevant] == [{0: 1.0}, {1: 1.0}, {0: 1.0}]
    labelled = [{**row, "label": label} for row, label in zip(rows, "uuv", strict=True)]
    assert [dict(each) for each in partners(surefoot.load_data(labelled)).relevant] == [
        {0: 1.0, 1: 1.0},
        {0: 1.0, 1: 1.0},
        {0: 1.0},
    ]


def test_a_folder_is_a_retrieval_set(tmp_path):
    pd.DataFrame({"_id": ["d1", "d2"], "text": ["one", "two"]}).to_parquet(tmp_path / "corpus.parquet")
    pd.DataFrame({"_id": ["q1", "q2"], "text": ["uno", "due"]}).to_parquet(tmp_path / "queries.parquet")
    with pytest.raises(DataError, match=r"no qrels\.parquet"):
        load_similarity(tmp_path)
    qrels = pd.DataFrame({"query_id": ["q1", "q2"], "corpus_id": ["d2", "d1"], "score": [2, 0]})
    qrels.to_parquet(tmp_path / "qrels.parquet")
    found = load_similarity(tmp_path)
    assert (list(found.queries), found.relevant) == (["uno"], [{1: 2.0}])
    qrels.drop(columns="score").to_parquet(tmp_path / "qrels.parquet")
    with pytest.raises(DataError, match="no column `score`; a retrieval set's qrels has query_id, corpus_id, score"):
        load_similarity(tmp_path)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"anchor": "a", "positive": "b"}], "no ratings; add a column `score`"),
        ([{"text": "a", "label": "x"}], "no pairs; give the columns `sentence1` and `sentence2`"),
        ([{"sentence1": "a", "sentence2": "b", "score": 1}] * 3, "every pair has the same rating"),
    ],
)
def test_what_cannot_judge_says_so(rows, said):
    with pytest.raises(DataError, match=said):
        rated(surefoot.load_data(rows, require_labels=False))


# --- forecasts


def family(rng, deviations, pairs):
    """Models that see a truth through noise of their own: (F, N) and the truth."""
    truth = rng.normal(size=pairs)
    return truth + deviations[:, None] * rng.normal(size=(len(deviations), pairs)), truth


def test_agreement_is_scipys():
    """scipy.stats.spearmanr of every two rows, side by side."""
    outputs = RNG.normal(size=(4, 50))
    np.testing.assert_allclose(rank_agreement(outputs), spearmanr(outputs, axis=1).statistic, atol=1e-12)


def test_where_models_err_apart_the_line_forecasts():
    """Ratings as one more reader of the same kind: the forecast lies within its interval of what the ratings say."""
    deviations, rng = np.linspace(0.3, 2.0, 10), np.random.default_rng(2)
    deviations[0] = 0.8
    home, truth = family(rng, deviations, 6000)
    away, away_truth = family(rng, 1.5 * deviations, 6000)
    reader = truth + 0.6 * rng.normal(size=6000)
    found = forecast_metric({"judge": (home, reader)}, away)
    right = spearmanr(away[0], away_truth + 0.9 * rng.normal(size=6000)).statistic
    assert found.method == "rank_agreement"
    assert found.r2 > 0.95
    assert found.low <= right <= found.high
    assert abs(found.value - right) < 0.5 * abs(spearmanr(home[0], reader).statistic - right)


def test_where_there_is_no_line_it_says_why():
    outputs, truth = family(np.random.default_rng(3), np.full(6, 0.01), 300)
    ratings = truth + 2 * np.random.default_rng(4).normal(size=300)
    found = forecast_metric({"judge": (outputs, ratings)}, outputs[:, ::-1].copy())
    assert found.method == "judge_mean"
    assert found.value == pytest.approx(spearmanr(outputs[0], ratings).statistic)
    assert "no line here" in found.note
    assert forecast_metric({"judge": (outputs[:1], ratings)}, outputs[:1]).note.startswith(
        "no line here: 1 model cannot"
    )
    assert np.isnan(forecast_metric({}, outputs).value)
