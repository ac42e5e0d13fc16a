"""Arms of several models in one: members are trained, each by the track's recipe with changes of its own, and kept for
all arms of a seed; then an ensemble of them learns from the training set and answers.

    ensemble: {name: dverge, epochs: 2, members: [{}, {}, {}]}

fit: false leaves the learning out. The name `alone` stands for the first member as it is, which ensembles are compared
with. within: the radius of the attack on images, 8/255 if not given. `seconds` is what all the answers cost to compute,
`fit_seconds` what the ensemble learnt in; the members' training is in neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import log_softmax

from surefoot.assess.robustness import number
from surefoot.attacks.pgd import EPSILON, PGD
from surefoot.embed.geometry import effective_rank
from surefoot.ensembles.dverge import DVERGE
from surefoot.ensembles.ensemble import Ensemble
from surefoot.ensembles.word_sets import WordSets, word_sets
from surefoot.evidence.attacking import ATTACKED, STEPS, first, targets, under_attack
from surefoot.evidence.cost import Clock
from surefoot.evidence.entry import Arm
from surefoot.evidence.shifting import trained_model
from surefoot.evidence.trained import predictions
from surefoot.models.model import Model
from surefoot.models.predict import Prediction, encode_inputs
from surefoot.models.processor import EncodedText
from surefoot.tune.build import build
from surefoot.tune.step import Batch

if TYPE_CHECKING:
    from surefoot.data.examples import Examples
    from surefoot.evidence.classification import Classification, World

ALONE = "alone"
#: The seed, far from all others, of a model whose adversarial images are shown to an ensemble that it is no member of.
STRANGER = 500
#: Texts that are reworded, how often, and the share of words with synonyms that each rewording replaces.
REWORDED, REWORDINGS, SHARE = 100, 10, 0.5
#: Synonyms are those that `certified_ranking` smooths over: a cosine of the model's own word vectors.
SIMILARITY, MOST = 0.5, 100


def run_ensemble(track: Classification, arm: Arm, *, seed: int, store: Path) -> dict[str, float]:
    """The scores of the ensemble on every test, what an attack leaves of them, and how its members differ."""
    from surefoot.evidence.classification import scores

    spec = dict(arm.ensemble or {})
    recipes, learns = spec.pop("members"), spec.pop("fit", True)
    within = number("within", spec.pop("within", EPSILON))
    world, fitted, answered = track.world(seed), Clock(), Clock()
    members = [
        trained_model(track, world, Arm(recipe=recipe), seed=seed, member=place, store=store)
        for place, recipe in enumerate(recipes)
    ]
    model = members[0]
    if spec["name"] != ALONE:
        ensemble: Ensemble = build("ensemble", spec)
        with fitted.running():
            if learns:
                ensemble.fit(members, world.train, seed=seed)
            model = ensemble.combine(members)
    with answered.running():
        predicted = predictions(model, world.tests)
    found = scores(world, predicted) | {"loss_away": _loss_away(world, predicted)}
    home = world.tests[world.home]
    if home.modality == "text":
        found |= _under_rewording(model, members[0], world, seed=seed)
    else:
        found |= under_attack(model, home, PGD(epsilon=within, steps=STEPS))
        stranger = trained_model(track, world, Arm(recipe=recipes[0]), seed=seed, member=STRANGER, store=store)
        found |= {"transfer_accuracy": _transferred(model, stranger, home, within)}
        held = first(world.validation, ATTACKED)
        found |= {"members_rank": effective_rank(_side_by_side(members, held))}
        if len(members) > 1:
            found |= {"members_diversity": DVERGE().diversity(members, held, seed=seed)}
    return found | {"seconds": answered.seconds, "fit_seconds": fitted.seconds}


def _loss_away(world: World, predicted: dict[str, Prediction]) -> float:
    """Cross-entropy away from home (nats): the mean over domains."""
    losses = []
    for name in world.away:
        labels = np.asarray(world.tests[name].labels)
        log_p = log_softmax(predicted[name].logits.astype(np.float64), axis=1)
        losses.append(-log_p[np.arange(len(labels)), labels].mean())
    return float(np.mean(losses))


def _side_by_side(members: Sequence[Model], examples: Examples) -> np.ndarray:
    """(N, D_1 + ... + D_n): all members' features."""
    return np.concatenate([predictions(each, {"": examples})[""].features for each in members], axis=1)


def _transferred(model: Model, stranger: Model, examples: Examples, within: float) -> float:
    """Accuracy of the model on what PGD makes of the examples against the stranger."""
    attack, right = PGD(epsilon=within, steps=STEPS), []
    shown = targets(model, examples, "values")
    for own, other in zip(shown, targets(stranger, examples, "values"), strict=True):
        moved = attack.perturb(other)
        with torch.no_grad():
            right.append(own.logits(moved).argmax(1) == own.labels)
    return float(torch.cat(right).double().mean())


def _under_rewording(model: Model, reader: Model, world: World, *, seed: int) -> dict[str, float]:
    """`reworded_accuracy`: share of home's texts that are right, and right in each of their rewordings; `reworded_shift`:
    how far a rewording moves the probabilities, in total variation. `reader`: whose words and word vectors count."""
    test = first(world.tests[world.home], REWORDED)
    known, encoded = (encode_inputs(reader, each.inputs, "text") for each in (world.train, test))
    assert isinstance(known, EncodedText)
    sets, rng = word_sets(reader, known, similarity=SIMILARITY, most=MOST), np.random.default_rng(seed)
    right, moved = [], []
    for place, label in enumerate(np.asarray(test.labels)):
        inputs = encoded.collate(np.array([place]))
        ids = inputs["input_ids"][0].numpy()
        every = torch.from_numpy(np.stack([ids, *(_reworded(reader, sets, ids, rng) for _ in range(REWORDINGS))]))
        index = torch.zeros(len(every), dtype=torch.long)
        with torch.no_grad():
            batch = Batch({"input_ids": every, "attention_mask": torch.ones_like(every)}, index, index)
            p = model(batch).logits.double().softmax(1).numpy()
        right.append((p.argmax(1) == label).all())
        moved.append(np.abs(p[1:] - p[0]).sum(1).mean() / 2)
    return {"reworded_accuracy": float(np.mean(right)), "reworded_shift": float(np.mean(moved))}


def _reworded(reader: Model, sets: WordSets, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The text (T,) with a synonym in place of `SHARE` of the words that have one."""
    drawn: np.ndarray = ids.copy()
    for place in sets.words(reader, ids):
        synonyms = sets.synonyms.get(int(ids[place]))
        if synonyms is not None and rng.random() < SHARE:
            drawn[place] = rng.choice(synonyms)
    return drawn
