"""Each method of word vectors against something outside: gensim, sklearn, scipy, finite differences, planted texts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.metrics import adjusted_rand_score, mutual_info_score

from command_line import one_thread
from surefoot.embed.partition import partition_isotropy, partition_spread, second_moment_ratio
from surefoot.embed.sentence_content import sentence_content
from surefoot.embed.vocabulary import NOTHING, Vocabulary, cooccurrences, tokens, windows
from surefoot.embed.words.binary_paragraph import BinaryParagraph, code, cross_entropies, hamming
from surefoot.embed.words.disambiguated_skipgram import DisambiguatedSkipGram, sense_loss
from surefoot.embed.words.scope import Convolution, SCoPE
from surefoot.embed.words.skipgram import SkipGram, merged
from surefoot.embed.words.squared_norm import SquaredNorm, squared_norm
from surefoot.embed.words.wespad import WESPAD, information_gain
from surefoot.errors import DataError
from surefoot.evidence.tracks.search import documented
from surefoot.progress import Silent

gensim = pytest.importorskip("gensim")
TEXTS = [f"{head} {body}" for head, body in documented("numpy")][:60]
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with one_thread():
        yield


# --- skip-gram


def test_skipgram_is_gensims() -> None:
    """Reference: gensim's Word2Vec on the same words, to the bit; and without subsampling it is another model."""
    from gensim.models import Word2Vec

    ours = SkipGram(size=16, epochs=2).fit(TEXTS, seed=3)
    documents = [tokens(text) for text in TEXTS]
    options = {"vector_size": 16, "sg": 1, "negative": 5, "min_count": 5, "window": 5, "epochs": 2, "sample": 1e-3}
    theirs = Word2Vec(documents, **options, seed=4, workers=1)
    assert set(theirs.wv.index_to_key) == set(ours.vocabulary.words)
    for word in ours.vocabulary.words[::20]:
        assert (theirs.wv[word] == ours.vectors_[ours.vocabulary.place[word]]).all()
    assert (SkipGram(size=16, epochs=2, sample=0).fit(TEXTS, seed=3).vectors_ != ours.vectors_).any()


def test_phrases_are_gensims() -> None:
    """Reference: gensim's Phrases, two passes with thresholds 10 and 5, applied to each document by its own code."""
    from gensim.models.phrases import Phrases

    ours = SkipGram(size=4, epochs=1, phrases=2).fit(TEXTS)
    first = Phrases([tokens(text) for text in TEXTS], min_count=5, threshold=10.0)
    once = [first[tokens(text)] for text in TEXTS]
    second = Phrases(once, min_count=5, threshold=5.0)
    assert [ours.words(text) for text in TEXTS] == [list(second[each]) for each in once]
    assert any("_" in word for word in ours.vocabulary.words)
    assert merged(["a", "b"], []) == ["a", "b"]


def test_one_word_is_too_few() -> None:
    with pytest.raises(DataError, match="only the word `same`"):
        SkipGram(min_count=2).fit(["same same same"])


# --- squared norm


def test_cooccurrences_count_pairs() -> None:
    """Reference: a loop over pairs of places."""
    documents = [RNG.integers(6, size=length) for length in (9, 1, 14)]
    counted = np.zeros((6, 6))
    for each in documents:
        for i, j in itertools.permutations(range(len(each)), 2):
            if abs(i - j) <= 4:
                counted[each[i], each[j]] += 1 / abs(i - j)
    np.testing.assert_allclose(cooccurrences(documents, size=6, window=4).toarray(), counted, atol=1e-12)


def test_squared_norm_slopes() -> None:
    """Reference: the objective in float64 by its formula, and its finite differences."""
    vectors, constant = torch.randn(5, 3, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    first, second = torch.tensor([0, 1, 2, 2, 4]), torch.tensor([1, 3, 2, 4, 0])
    logs, weights = torch.randn(5, dtype=torch.float64), torch.rand(5, dtype=torch.float64)

    def value(v: torch.Tensor, c: torch.Tensor) -> float:
        return sum(float(weights[p] * (logs[p] - ((v[first[p]] + v[second[p]]) ** 2).sum() - c) ** 2) for p in range(5))

    loss, slope, down = squared_norm(vectors, constant, first, second, logs, weights)
    assert float(loss) == pytest.approx(value(vectors, constant))
    assert float(down) == pytest.approx((value(vectors, constant + 1e-6) - value(vectors, constant - 1e-6)) / 2e-6)
    for row, column in itertools.product(range(5), range(3)):
        step = torch.zeros_like(vectors)
        step[row, column] = 1e-6
        numeric = (value(vectors + step, constant) - value(vectors - step, constant)) / 2e-6
        assert float(slope[row, column]) == pytest.approx(numeric, abs=1e-6)


def test_squared_norm_finds_vectors_that_fit() -> None:
    """Counts that follow the law exactly are fitted: the loss falls to a hundredth."""
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(20, 4, generator=generator)
    first, second = torch.triu_indices(20, 20)
    logs = (true[first] + true[second]).square().sum(1) - 1.5
    vectors, constant = (torch.rand(20, 4, generator=generator) - 0.5) / 4, torch.zeros(())
    pairs = (first, second, logs, torch.ones(len(first)))
    history = SquaredNorm(size=4, epochs=1500, lr=0.1)._descend(vectors, constant, pairs, generator, Silent())
    assert history[-1] < 1e-2 * history[0]
    found = SquaredNorm(size=8, epochs=3).fit(TEXTS)
    assert found.loss_[-1] < found.loss_[0]
    assert set(found.diagnose()) == {"partition_spread", "second_moment_ratio", "correlation"}
    with pytest.raises(DataError, match="no two words meet"):
        SquaredNorm(min_count=1).fit(["alone", "apart"])


def test_partition_functions() -> None:
    """Closed forms: axes both ways are isotropic; Gaussian vectors have nearly one Z; one direction has two values."""
    axes = np.concatenate([np.eye(4), -np.eye(4)])
    assert partition_isotropy(axes) == pytest.approx(1.0)
    assert second_moment_ratio(axes) == pytest.approx(1.0)
    line = np.array([[2.0, 0.0], [2.0, 0.0]])
    assert second_moment_ratio(line) == 0.0
    assert partition_isotropy(line) == pytest.approx(math.exp(-4))  # of exp(2), exp(-2), 1 and 1
    cloud = np.random.default_rng(1).normal(size=(4000, 20))
    assert partition_spread(cloud) < 0.03 < partition_spread(cloud + 3.0)
    assert partition_spread(cloud, seed=1) == partition_spread(cloud, seed=1)
    with pytest.raises(DataError, match="not all zero"):
        partition_isotropy(np.zeros((3, 2)))


# --- binary paragraph vectors


def test_codes_and_their_gradient() -> None:
    """References: cross-entropy in float64 by its formula; the straight-through gradient dL/db sigmoid'(d) by differences."""
    inner, vectors, bias = RNG.normal(size=(2, 3)), RNG.normal(size=(5, 3)), RNG.normal(size=5)
    shares = RNG.dirichlet(np.ones(5), size=2)

    def loss(codes: np.ndarray) -> np.ndarray:
        logits = codes @ vectors.T + bias
        return np.asarray(-(shares * (logits - np.log(np.exp(logits).sum(1, keepdims=True)))).sum(1))

    bits = (inner > 0).astype(float)
    d = torch.tensor(inner, requires_grad=True)
    held = [torch.tensor(each) for each in (vectors, bias, shares)]
    found = cross_entropies(code(d), *held)
    np.testing.assert_allclose(found.detach().numpy(), loss(bits))
    found.sum().backward()
    soft = 1 / (1 + np.exp(-inner))
    for place in np.ndindex(2, 3):
        step = np.zeros((2, 3))
        step[place] = 1e-6
        numeric = (loss(bits + step) - loss(bits - step)).sum() / 2e-6
        assert d.grad is not None
        assert float(d.grad[place]) == pytest.approx(numeric * soft[place] * (1 - soft[place]), abs=1e-6)


def test_near_codes_are_like_documents() -> None:
    """scipy's Hamming distance; documents of two planted kinds get codes nearer to their own kind, new ones too."""
    first, second = (RNG.integers(2, size=(n, 40)).astype(np.float32) for n in (4, 6))
    np.testing.assert_allclose(hamming(first, second), 40 * cdist(first, second, "hamming"), atol=1e-4)
    with pytest.raises(DataError, match="40 and 39 bits"):
        hamming(first, second[:, 1:])
    texts = [" ".join(f"{kind}{word}" for word in RNG.integers(15, size=12)) for kind in "ab" * 30]
    for options in ({"bits": 16}, {"bits": 16, "real": 8}, {"bits": 16, "rounded": False}):
        vectors = BinaryParagraph(epochs=40, **options).fit(texts[:50])
        codes = vectors.encode(texts[50:])
        assert set(np.unique(codes)) <= {0.0, 1.0}
        apart = hamming(codes, codes)
        same = np.equal.outer(np.arange(10) % 2, np.arange(10) % 2)
        assert apart[same].mean() < 0.7 * apart[~same].mean(), options
        assert vectors.loss_[-1] < vectors.loss_[0]
    assert BinaryParagraph(real=8, bits=4, epochs=2).fit(texts).encode_real(texts[:3]).shape == (3, 8)


# --- disambiguated skip-gram


def test_one_sense_is_skipgram_with_sampled_softmax() -> None:
    """Reference: the sampled softmax of one vector a word, in float64 by its formula; the choice of senses has no say."""
    words, size = 6, 3
    senses, outputs, bias = RNG.normal(size=(words, 1, size)), RNG.normal(size=(words, size)), RNG.normal(size=words)
    drawn = RNG.dirichlet(np.ones(words))
    centre, context = np.array([0, 4]), np.array([[1, 2], [3, NOTHING]])
    negatives = np.array([2, 5, 5])
    expected = np.log(3 * drawn)
    losses = []
    for w, around in zip(centre, context, strict=True):
        for c in around[around != NOTHING]:
            rivals = [n for n in negatives if n != c]
            logits = [outputs[n] @ senses[w, 0] + bias[n] - expected[n] for n in [c, *rivals]]
            losses.append(np.log(np.exp(logits).sum()) - logits[0])
    for noise, weights in (
        (None, np.zeros((1, size, 1))),
        (RNG.normal(size=(2, 1)), RNG.normal(size=(words, size, 1))),
    ):
        state = [senses, outputs, bias, weights, np.zeros((len(weights), 1))]
        found = sense_loss(
            [torch.tensor(each) for each in state],
            *map(torch.tensor, (centre, context, negatives, drawn)),
            noise=None if noise is None else torch.tensor(noise),
        )
        assert float(found) == pytest.approx(np.mean(losses))


def test_planted_senses_are_found() -> None:
    """A word that stands among one of two vocabularies: which one is what its senses tell, and pruning leaves what is used."""
    texts, truth = [], []
    for _ in range(1200):
        kind = int(RNG.integers(2))
        words = [f"{'xy'[kind]}{number}" for number in RNG.integers(20, size=7)]
        words[3] = "bank"
        truth.append(kind)
        texts.append(" ".join(words))
    vectors = DisambiguatedSkipGram(size=20, senses=2).fit(texts)
    rows = [vectors.vocabulary.rows(tokens(text)) for text in texts]
    centres, contexts = windows(rows, window=5)
    at = np.flatnonzero(centres == vectors.vocabulary.place["bank"])
    chances = vectors.disambiguate(centres[at], contexts[at])
    np.testing.assert_allclose(chances.sum(1), 1, atol=1e-5)
    assert adjusted_rand_score(truth, chances.argmax(1)) > 0.9
    np.testing.assert_allclose(vectors.priors_.sum(1), 1, atol=1e-5)
    senses = {text.split()[0][0]: {w: k for w, k, _ in vectors.sense_of(text)}["bank"] for text in texts[:20]}
    assert len(set(senses.values())) == 2


def test_windows_stop_at_documents() -> None:
    centres, contexts = windows([np.array([0, 1, 2]), np.array([3])], window=2)
    assert centres.tolist() == [0, 1, 2, 3]
    assert contexts.tolist() == [[-1, -1, 1, 2], [-1, 0, 2, -1], [0, 1, -1, -1], [-1, -1, -1, -1]]
    assert Vocabulary.of([["b", "a", "b"]]).words == ["b", "a"]


# --- WESPAD


def test_information_gain_is_mutual_information() -> None:
    """Reference: sklearn's mutual information of word and label, in bits."""
    present, labels = RNG.random((50, 8)) < 0.3, RNG.integers(2, size=50)
    expected = [mutual_info_score(column, labels) / math.log(2) for column in present.T]
    np.testing.assert_allclose(information_gain(present, labels), expected, atol=1e-12)


def test_distortion_follows_the_labels() -> None:
    """A word that tells the classes weighs the most, in texts and through its nearest neighbour; without, it is the mean."""
    labels = np.array([int("matrix" in text.lower()) for text in TEXTS])
    vectors = WESPAD().fit(TEXTS, labels=labels)
    words = vectors.vocabulary
    assert int(vectors.gains_.argmax()) == words.place["matrix"]
    assert (vectors.gains_ > 0).all()
    found = vectors.encode(TEXTS)
    kinds = 2 * (len(vectors.centres_) + len(vectors.plain_centres_))
    assert found[:, kinds:].shape[1] == len(vectors.grams_)
    assert set(np.unique(found)) == {0.0, 1.0}
    assert (found[:, : 2 * len(vectors.centres_)].sum(1) <= 1).all(), "one cluster, one opinion or none"
    plain = WESPAD(distort=False).fit(TEXTS, labels=labels)
    mean = SkipGram(min_count=2).fit(TEXTS).encode(TEXTS)
    np.testing.assert_allclose(plain.distorted(TEXTS), mean, atol=1e-5)
    assert np.abs(vectors.distorted(TEXTS) - mean).max() > 1e-3
    sure = WESPAD(margin=0.49).fit(TEXTS, labels=labels).encode(TEXTS)[:, :kinds]
    assert sure.sum() <= found[:, :kinds].sum()


# --- SCoPE


def test_sentences_are_drawn_from_other_paragraphs() -> None:
    pairs = sentence_content(TEXTS, seed=1)
    assert pairs.present.mean() == 0.5
    for row, said, present in zip(pairs.paragraph, pairs.sentence, pairs.present, strict=True):
        assert (pairs.sentences[said] in TEXTS[row]) == bool(present)
    assert len(sentence_content(TEXTS, every=False)) < len(pairs)
    with pytest.raises(DataError, match="two sentences"):
        sentence_content(["One sentence only.", "Another one."])


def test_convolution_by_hand() -> None:
    """Reference: padding, strides and layers as loops over numpy arrays in float64."""
    torch.manual_seed(0)
    layers = Convolution(7, 4, 3, 2, 9).double()
    rows = torch.tensor([[1, 5, 7, 0, 0, 0, 0, 0, 0]])
    words = layers.words.weight.detach().numpy()[rows[0]]
    x = words / np.maximum(np.linalg.norm(words, axis=1, keepdims=True), 1e-12)
    x = np.concatenate([np.zeros((4, 4)), x, np.zeros((4, 4))])
    for layer in (layers.first, layers.second):
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        x = np.maximum(
            0,
            [
                [(x[2 * t : 2 * t + 5].T * weight[f]).sum() + bias[f] for f in range(3)]
                for t in range((len(x) - 5) // 2 + 1)
            ],
        )
    expected = np.tanh(
        [
            (x.T * w).sum() + b
            for w, b in zip(*(p.detach().numpy() for p in (layers.last.weight, layers.last.bias)), strict=True)
        ]
    )
    np.testing.assert_allclose(layers(rows)[0].detach().numpy(), expected)


def test_without_passes_nothing_is_learned() -> None:
    start = SCoPE(size=8, filters=8, output=4, most=20, epochs=0).fit(TEXTS, seed=2)
    assert start.loss_ == []
    trained = SCoPE(size=8, filters=8, output=4, most=20, epochs=1).fit(TEXTS, seed=2)
    assert trained.loss_[0] == pytest.approx(math.log(2), abs=0.1)
    assert (start.first_ != trained.first_).any()
    assert start.encode(TEXTS[:2]).shape == (2, 4)
