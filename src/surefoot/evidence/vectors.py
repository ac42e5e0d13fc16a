"""Quantities of the vectors that an encoder makes of texts: what words they hold, how near they lie to a teacher's."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import torch

from surefoot.data.examples import Examples
from surefoot.embed.geometry import effective_rank
from surefoot.evidence.quantities import quantity
from surefoot.evidence.trained import Trained
from surefoot.models.predict import encode_inputs
from surefoot.tune.objectives.distil import narrowed, taught
from surefoot.tune.step import Batch

#: Words asked for: the commonest of the training texts that stand in a tenth of them at most, since nearly every text has
#: the others.
WORDS, MOST = 100, 0.1


def words_of(texts: list[str]) -> list[set[str]]:
    """The words of each text, in lower case.

    >>> sorted(words_of(["It's late, it is."])[0])
    ['is', 'it', "it's", 'late']
    """
    return [set(re.findall(r"[a-z']+", text.lower())) for text in texts]


@quantity
def words_in_vector(trained: Trained) -> float:
    """AUROC of a linear probe of a text's vector for which of 100 words stand in it, mean over words, home test."""
    from sklearn.linear_model import Ridge
    from sklearn.metrics import roc_auc_score

    train, test = trained.world.train, trained.world.tests[trained.world.home]
    seen, asked = words_of([str(each) for each in train.inputs]), words_of([str(each) for each in test.inputs])
    counts = Counter(word for words in seen for word in words)
    told = {word for words in asked for word in words if not all(word in each for each in asked)}
    common = sorted(told & set(counts), key=lambda word: (-counts[word], word))
    chosen = [word for word in common if counts[word] <= MOST * len(seen)][:WORDS] or common[:WORDS]
    there = np.array([[word in words for word in chosen] for words in seen], dtype=float)
    features = {name: trained.predicted[name].features.astype(np.float64) for name in ("train", trained.world.home)}
    mean, deviation = features["train"].mean(0), features["train"].std(0) + 1e-9
    # One strength for every model: features are standardised, so that it weighs the same.
    probe = Ridge(alpha=100.0).fit((features["train"] - mean) / deviation, there)
    found = probe.predict((features[trained.world.home] - mean) / deviation)
    truth = np.array([[word in words for word in chosen] for words in asked])
    return float(np.mean([roc_auc_score(truth[:, i], found[:, i]) for i in range(len(chosen))]))


@quantity
def word_rank(trained: Trained) -> float:
    """effective rank of the last states at words, home test."""
    test = trained.world.tests[trained.world.home]
    encoded = encode_inputs(trained.model, test.inputs, test.modality)
    inputs = encoded.collate(np.arange(len(test)))
    index = torch.arange(len(test))
    with torch.no_grad():
        states = trained.model(Batch(inputs=inputs, labels=index * 0, index=index), hidden_states=True).hidden_states
    assert states is not None
    special = torch.tensor(trained.model.processor.tokenizer.all_special_ids)  # type: ignore[attr-defined]
    words = inputs["attention_mask"].bool() & ~torch.isin(inputs["input_ids"], special)
    return effective_rank(states[-1][words].double().numpy(), centred=False)


@quantity
def teacher_cosine(trained: Trained) -> float:
    """cosine of texts' vectors with those of MiniLM, the teacher, home test."""
    test: Examples = trained.world.tests[trained.world.home]
    own = trained.predicted[trained.world.home].features
    theirs = narrowed(taught("minilm", tuple(str(each) for each in test.inputs)), own.shape[1]).numpy()
    lengths = np.linalg.norm(own, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((own * theirs).sum(1) / lengths).mean())
