"""A task of mteb on a surefoot model, beside scipy on the same vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scipy.stats import spearmanr

from conftest import sentences
from surefoot.embed import Encoder
from surefoot.errors import DataError
from surefoot.models.model import Model
from surefoot.models.save import save


def local_task(first: list[str], second: list[str], scores: list[float]) -> Any:
    """A task of similarity whose pairs are here and not on a hub."""
    import datasets
    from mteb.abstasks.sts import AbsTaskSTS
    from mteb.abstasks.task_metadata import TaskMetadata

    unknown = dict.fromkeys(
        [
            *("reference", "date", "domains", "task_subtypes", "license", "annotations_creators"),
            *("dialect", "sample_creation", "bibtex_citation"),
        ]
    )

    class Local(AbsTaskSTS):
        metadata = TaskMetadata(
            name="LocalSTS",
            dataset={"path": "local/sts", "revision": "1"},
            description="pairs of this test",
            type="STS",
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="cosine_spearman",
            **unknown,
        )
        min_score, max_score = 0, 5

        def load_data(self, **options: Any) -> None:
            columns = {"sentence1": first, "sentence2": second, "score": scores}
            self.dataset = datasets.DatasetDict({"test": datasets.Dataset.from_dict(columns)})
            self.data_loaded = True

    return Local()


def test_the_score_is_spearman_of_our_cosines(tiny_bert: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against scipy: mteb's main score is the rank correlation of the encoder's own cosines."""
    mteb = pytest.importorskip("mteb")
    from surefoot.assess.mteb import evaluate_task

    first, second = sentences(30, 1)[0], sentences(30, 2)[0]
    scores = [float(len(set(a.split()) & set(b.split()))) for a, b in zip(first, second, strict=True)]
    monkeypatch.setattr(mteb, "get_task", lambda name: local_task(first, second, scores))
    found = evaluate_task(tiny_bert, "LocalSTS")
    encoder = Encoder(tiny_bert, normalize=True)
    cosines = (encoder.encode(first) * encoder.encode(second)).sum(1)
    assert found["metric"] == "cosine_spearman"
    assert found["splits"]["test"] == pytest.approx(spearmanr(cosines, scores).statistic, abs=1e-4)


def test_a_saved_model_runs_in_mteb_as_it_is(tiny_bert: Model, tmp_path: Path) -> None:
    """mteb takes the folder as sentence-transformers opens it, without a line of ours, and finds the score we find."""
    mteb = pytest.importorskip("mteb")
    from sentence_transformers import SentenceTransformer

    first, second = sentences(30, 1)[0], sentences(30, 2)[0]
    scores = [float(len(set(a.split()) & set(b.split()))) for a, b in zip(first, second, strict=True)]
    save(tiny_bert, tmp_path / "model")
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    found = mteb.evaluate(theirs, tasks=[local_task(first, second, scores)], cache=None, show_progress_bar=False)
    ours = Encoder(tiny_bert, normalize=True)
    cosines = (ours.encode(first) * ours.encode(second)).sum(1)
    score = found.task_results[0].scores["test"][0]["cosine_spearman"]
    assert score == pytest.approx(spearmanr(cosines, scores).statistic, abs=1e-4)


def test_a_task_that_is_none(tiny_bert: Model) -> None:
    pytest.importorskip("mteb")
    from surefoot.assess.mteb import evaluate_task

    with pytest.raises(DataError, match="mteb has no task `NoSuchTask`"):
        evaluate_task(tiny_bert, "NoSuchTask")
