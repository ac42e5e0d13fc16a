"""PATH: the student's loss and its metric against scikit-learn and scipy, the choice of a prompt, and a real language model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import ndcg_score

from command_line import one_thread
from surefoot.assess.ranking import ndcg
from surefoot.errors import AssetError, DataError, MissingExtra, RecipeError
from surefoot.evidence.tracks.search import documented
from surefoot.search.strategies.path import PATH, PROMPTS
from surefoot.search.synthetic import PULL, TEMPERATURE, student_scores, train_student


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def pairs() -> list[tuple[str, str]]:
    """First sentences and the rest of numpy's docstrings."""
    found = documented("numpy")
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))[:60]]


class Latent:
    """Texts to latent semantic embeddings of the documents' words, of unit length."""

    def __init__(self, documents: Sequence[str]) -> None:
        self.words = TfidfVectorizer().fit(documents)
        self.latent = TruncatedSVD(24, random_state=0).fit(self.words.transform(documents))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        found = self.latent.transform(self.words.transform(texts)).astype(np.float32) + 1e-6
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def test_ndcg_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(20, 30))
    grades = rng.integers(0, 4, (20, 30)) * (rng.random((20, 30)) < 0.2)
    grades[:, 0] = 1
    relevant = [{j: float(grade) for j, grade in enumerate(row) if grade} for row in grades]
    assert ndcg(scores, relevant) == pytest.approx(ndcg_score(grades, scores, k=10), rel=1e-12)


def test_the_student_minimises_the_loss_that_it_says(pairs: list[tuple[str, str]]) -> None:
    """The loss written in numpy and scipy, in float64: lower than at the start, and steps in either direction of the
    largest change raise it once the training has converged."""
    embed = Latent([document for _, document in pairs])
    queries, documents = embed([query for query, _ in pairs[:12]]), embed([document for _, document in pairs])
    where = np.arange(12)

    def loss(student: np.ndarray) -> float:
        scores = student_scores(student.astype(np.float64), queries, documents)
        likely = log_softmax(scores / TEMPERATURE, axis=1)[np.arange(12), where]
        return float(-likely.mean() + PULL * np.square(student - np.eye(len(student))).sum())

    student = train_student(queries, where, documents, steps=800)
    assert loss(student) < loss(np.eye(24)) - 0.1
    step = 0.05 * (student - np.eye(24))
    assert loss(student) < min(loss(student + step), loss(student - step))
    assert (train_student(queries, where, documents, steps=0) == np.eye(24)).all(), "no steps, no change"


def test_it_takes_the_prompt_whose_queries_teach_most(pairs: list[tuple[str, str]]) -> None:
    """A writer that knows the real first sentences, but under one prompt writes them for the wrong documents."""
    documents = [document for _, document in pairs]
    real = {document[:40]: query for query, document in pairs}
    right, wrong = "Right: {document}", "Wrong: {document}"

    def write(prompts: Sequence[str]) -> list[str]:
        shift = 1 if prompts[0].startswith("Wrong") else 0
        lines = [real[prompt.partition(": ")[2][:40]] for prompt in prompts]
        return lines[shift:] + lines[:shift]

    gold = {query: {row: 1.0} for row, (query, _) in enumerate(pairs[:20])}
    embed = Latent(documents)
    for prompts in ((wrong, right), (right, wrong)):
        found = PATH(prompts=prompts, documents=30, final=40, words=200).search(write, embed, documents, gold, seed=1)
        assert found.prompt == right
        assert found.scores[right] > found.start > found.scores[wrong]
        assert len(found.queries) == 40
        again = PATH(prompts=prompts, documents=30, final=40, words=200).search(write, embed, documents, gold, seed=1)
        assert (again.student == found.student).all()
    alone = PATH(prompts=(right, wrong), trials=1, words=200).search(write, embed, documents, gold)
    assert alone.prompt == right
    assert not alone.scores


def test_a_language_model_writes_the_queries(pairs: list[tuple[str, str]]) -> None:
    """SmolLM2-135M, two prompts, three documents."""
    from surefoot.models.write import Writer

    try:
        write = Writer(max_tokens=10, batch=4)
    except (AssetError, MissingExtra) as error:
        pytest.skip(str(error))
    documents = [document for _, document in pairs]
    gold = {query: {row: 1.0} for row, (query, _) in enumerate(pairs[:10])}
    path = PATH(prompts=PROMPTS[1:3], documents=3, final=4, words=20)
    found = path.search(write, Latent(documents), documents, gold)
    assert set(found.scores) == set(PROMPTS[1:3])
    assert len(found.queries) >= 3, "hardly ever silent"
    assert all(query and "\n" not in query for query in found.queries.values())
    texts = [prompt.replace("{document}", documents[0][:80]) for prompt in PROMPTS[1:3]]
    together, alone = write(texts), [write([text])[0] for text in texts]
    assert together == alone, "padding changes nothing"


def test_bad_input(pairs: list[tuple[str, str]]) -> None:
    for options in ({"prompts": []}, {"prompts": ["no place"]}, {"trials": 0}, {"documents": 40}, {"words": 1}):
        with pytest.raises(RecipeError):
            PATH(**options)
    documents = [document for _, document in pairs]
    embed = Latent(documents)
    for corpus, gold, error in (
        (documents[:1], {"q": {0: 1.0}}, "corpus has 1"),
        (documents, {}, "no gold"),
        (documents, {"q": {0: 0.0}}, "no document is relevant"),
        (documents, {"q": {99: 1.0}}, "document 99"),
    ):
        with pytest.raises(DataError, match=error):
            PATH().search(lambda prompts: ["x"] * len(prompts), embed, corpus, gold)
