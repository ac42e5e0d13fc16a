"""Arms of static vectors: a method learns from the texts of a track without their labels, and its vectors are put to use.

On `search` it learns from Cranfield's documents and ranks them; with `pseudowords`, pairs of words are first written as one,
and the senses that a method finds for it are compared with the words that stood there. On tracks of classification it
learns from the training texts, and a logistic regression of its vectors, fitted on few labels, is scored; with `rare`, the
task is to find one class of which few examples are labelled.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from surefoot.embed.geometry import unit_length
from surefoot.embed.partition import partition_spread
from surefoot.embed.vocabulary import NOTHING, Vocabulary, tokens, windows
from surefoot.embed.word_vectors import WordVectors
from surefoot.embed.words.binary_paragraph import BinaryParagraph, hamming
from surefoot.embed.words.disambiguated_skipgram import DisambiguatedSkipGram
from surefoot.embed.words.scope import SCoPE
from surefoot.embed.words.skipgram import SkipGram
from surefoot.embed.words.wespad import WESPAD
from surefoot.evidence.cost import Clock
from surefoot.tune.build import build

if TYPE_CHECKING:
    from surefoot.evidence.classification import World

#: Documents of Cranfield that are learned from; all.
DOCUMENTS: int | None = None
#: Pairs of words of five letters or more that are written as one, and how often each of the two is to be seen.
PAIRS, SEEN = 10, (150, 1500)
#: Words on both sides of a pseudoword that its senses are clustered by, where a method has none of its own.
AROUND = 5
#: Labelled examples of a classifier, and of a rare class among them.
LABELLED, RARE = 200, 10


def run_retrieval(
    spec: Mapping[str, Any], documents: Sequence[str], questions: Mapping[str, Mapping[int, float]], *, seed: int
) -> dict[str, float]:
    """`ndcg` of the questions by vectors learned from the documents; with `pseudowords`, `pseudoword_rand` instead."""
    from surefoot.assess.ranking import ndcg

    options = dict(spec)
    pseudo, clock = options.pop("pseudowords", False), Clock()
    documents = documents[:DOCUMENTS]
    if pseudo:
        documents, truth = _pseudowords(documents, seed=seed)
    vectors: WordVectors = build("word_vectors", options)
    with clock.running():
        vectors.fit([text for text in documents if text.strip()], seed=seed)
    found = {"seconds": clock.seconds, "training_seconds": clock.seconds}
    if pseudo:
        return found | {"pseudoword_rand": _sense_agreement(vectors, documents, truth, seed=seed)}
    held, asked = vectors.encode(documents), vectors.encode(list(questions))
    coded = isinstance(vectors, BinaryParagraph)
    scores = -hamming(asked, held) if coded else unit_length(asked) @ unit_length(held).T
    found |= {"ndcg": ndcg(scores, list(questions.values())), "partition_spread": partition_spread(vectors.vectors_)}
    if isinstance(vectors, BinaryParagraph):
        found["code_loss"] = _code_loss(vectors, documents, held)
    return found


def _code_loss(vectors: BinaryParagraph, documents: Sequence[str], codes: np.ndarray) -> float:
    """Cross-entropy of a document's words given its bits (nats a word), the mean over documents."""
    import torch

    from surefoot.embed.words.binary_paragraph import cross_entropies, word_shares

    rows = [vectors.vocabulary.rows(vectors.words(text)) for text in documents]
    known = [place for place, each in enumerate(rows) if len(each)]
    parts = (
        codes[known],
        vectors.vectors_,
        vectors.bias_,
        word_shares([rows[i] for i in known], len(vectors.vocabulary)),
    )
    return float(cross_entropies(*map(torch.from_numpy, parts)).mean())


def _pseudowords(documents: Sequence[str], *, seed: int) -> tuple[list[str], dict[str, list[int]]]:
    """The documents with pairs of words written as one, and for each such word which of the two stood there, in order."""
    written = [tokens(text) for text in documents]
    counted = Vocabulary.of(written)
    usual = [
        word
        for word, count in zip(counted.words, counted.counts, strict=True)
        if SEEN[0] <= count <= SEEN[1] and word.isalpha() and len(word) > 4
    ]
    drawn = np.random.default_rng(seed).permutation(len(usual))[: 2 * PAIRS]
    one: dict[str, tuple[str, int]] = {}
    for first, second in zip(drawn[::2], drawn[1::2], strict=False):
        name = f"{usual[first]}{usual[second]}"
        one |= {usual[first]: (name, 0), usual[second]: (name, 1)}
    truth: dict[str, list[int]] = {}
    found = []
    for each in written:
        for word in each:
            if word in one:
                truth.setdefault(one[word][0], []).append(one[word][1])
        found.append(" ".join(one[word][0] if word in one else word for word in each))
    return found, truth


def _sense_agreement(
    vectors: WordVectors, documents: Sequence[str], truth: Mapping[str, Sequence[int]], *, seed: int
) -> float:
    """Adjusted Rand index of the senses found with the words that stood there, the mean over pseudowords."""
    from sklearn.metrics import adjusted_rand_score

    rows = [vectors.vocabulary.rows(vectors.words(text)) for text in documents]
    own = isinstance(vectors, DisambiguatedSkipGram)
    centres, contexts = windows(rows, window=vectors.window if isinstance(vectors, DisambiguatedSkipGram) else AROUND)
    scores = []
    for word, stood in sorted(truth.items()):
        at = np.flatnonzero(centres == vectors.vocabulary.place.get(word, NOTHING - 1))
        if len(at) != len(stood):  # too seldom for the vocabulary
            continue
        if own:
            senses = vectors.disambiguate(centres[at], contexts[at]).argmax(1)  # type: ignore[attr-defined]
        else:
            senses = _clusters(vectors, contexts[at], seed=seed)
        scores.append(adjusted_rand_score(stood, senses))
    return float(np.mean(scores)) if scores else 0.0


def _clusters(vectors: WordVectors, contexts: np.ndarray, *, seed: int) -> np.ndarray:
    """Contexts in two by k-means of the means of their words' vectors: Schuetze, "Automatic Word Sense Discrimination"."""
    from sklearn.cluster import KMeans

    means = np.stack([vectors.encode_document(each[each != NOTHING]) for each in contexts])
    return np.asarray(KMeans(2, n_init=10, random_state=seed).fit_predict(unit_length(means)))


def run_classified(spec: Mapping[str, Any], world: World, *, unlabelled: Sequence[str], seed: int) -> dict[str, float]:
    """Accuracy at home and away of a logistic regression of the vectors with 200 labels; with `rare`, F1 of one class."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    options = dict(spec)
    rare, clock = options.pop("rare", False), Clock()
    labelled, labels = _few(world, rare=rare, seed=seed)
    vectors: WordVectors = build("word_vectors", options)
    with clock.running():
        if vectors.supervised:
            _fit_on(vectors, unlabelled, labelled, labels, seed=seed)
        else:
            vectors.fit(list(unlabelled), seed=seed)
        # Means of many words' vectors are short: unscaled, the classifier's penalty would hold it at the larger class.
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        classifier.fit(vectors.encode(labelled), labels)
    found = {"seconds": clock.seconds}
    for name in (world.home, *world.away):
        test = world.tests[name]
        truth = _wanted(np.asarray(test.labels), rare=rare)
        predicted = classifier.predict(vectors.encode(list(test.inputs)))
        found[f"accuracy/{name}"] = float((predicted == truth).mean())
        found[f"f1/{name}"] = _f1(truth, predicted)
    home = world.tests[world.home]
    found |= {"accuracy_home": found[f"accuracy/{world.home}"], "f1_home": found[f"f1/{world.home}"]}
    found["accuracy_away"] = float(np.mean([found[f"accuracy/{name}"] for name in world.away or [world.home]]))
    truth = _wanted(np.asarray(home.labels), rare=rare)
    found["class_separation"] = _separation(vectors, list(home.inputs), truth)
    if isinstance(vectors, SCoPE):
        found["content_accuracy"] = _content(vectors, list(home.inputs), seed=seed)
    return found


def _fit_on(
    vectors: WordVectors, unlabelled: Sequence[str], labelled: Sequence[str], labels: np.ndarray, *, seed: int
) -> None:
    """Fit a supervised method on labelled texts, with skip-gram's vectors of the unlabelled ones."""
    assert isinstance(vectors, WESPAD)
    base = SkipGram().fit(list(unlabelled), seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        base.save(Path(folder) / "base", name="skipgram")
        vectors.vectors = str(Path(folder) / "base")
        vectors.fit(labelled, labels=labels, seed=seed)


def _separation(vectors: WordVectors, texts: Sequence[str], labels: np.ndarray) -> float:
    """Distance of the means of two classes over the root of the mean square distance from them."""
    x = vectors.distorted(texts) if isinstance(vectors, WESPAD) else vectors.encode(texts)
    x = x.astype(np.float64)
    means = np.stack([x[labels == label].mean(0) for label in np.unique(labels)])
    return float(
        np.linalg.norm(means[-1] - means[0])
        / np.sqrt(((x - means[np.unique(labels, return_inverse=True)[1]]) ** 2).sum(1).mean())
    )


def _content(vectors: WordVectors, texts: Sequence[str], *, seed: int) -> float:
    """Accuracy of the sentence content probe, one sentence of each text and one of another's."""
    from surefoot.assess.analyses.sentence_content import SentenceContentProbe
    from surefoot.embed.sentence_content import sentence_content

    pairs = sentence_content(texts, seed=seed, every=False)
    found = SentenceContentProbe(seed=seed)(
        paragraphs=vectors.encode(texts),
        sentences=vectors.encode(pairs.sentences),
        paragraph=pairs.paragraph,
        sentence=pairs.sentence,
        present=pairs.present,
    )
    return found.accuracy


def _few(world: World, *, rare: bool, seed: int) -> tuple[list[str], np.ndarray]:
    """So many labelled training texts; of a rare class no more than RARE."""
    labels = _wanted(np.asarray(world.train.labels), rare=rare)
    order = np.random.default_rng(seed).permutation(len(labels))
    if rare:
        some = [row for row in order if labels[row] == 1][:RARE]
        order = np.array(some + [row for row in order if labels[row] == 0][: LABELLED - len(some)])
    chosen = order[:LABELLED]
    return [world.train.inputs[row] for row in chosen], labels[chosen]


def _wanted(labels: np.ndarray, *, rare: bool) -> np.ndarray:
    """Labels, or 1 for the first class and 0 for the others."""
    return (labels == 0).astype(np.int64) if rare else labels


def _f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    both = float(((truth == 1) & (predicted == 1)).sum())
    return 2 * both / max(1.0, float((truth == 1).sum() + (predicted == 1).sum()))
