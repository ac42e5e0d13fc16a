"""Arms that attack: the home test, moved against the model that the track's recipe trains, with changes or without.

    attack: {name: pgd, epsilon: 2/255}

The name `noise` stands for what attacks are compared with: a draw from the same ball, or, with `moves: words`, random
near words in place of as many. `accuracy_lost` is what an attack claims to cost; see `under_attack`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from surefoot.assess.robustness import build_attack, number
from surefoot.attacks.attack import Attack, Moves, Target
from surefoot.attacks.pgd import EPSILON
from surefoot.attacks.word_substitution import WordSubstitution, words_of
from surefoot.evidence.attacking import first, under_attack
from surefoot.evidence.cost import Clock
from surefoot.evidence.entry import Arm
from surefoot.evidence.shifting import trained_model

if TYPE_CHECKING:
    from surefoot.evidence.classification import Classification

NOISE = "noise"


def run_attack(track: Classification, arm: Arm, *, seed: int, store: Path) -> dict[str, float]:
    """What the attack that the arm names does to the home test; `examples`: so many of it, all that are ever attacked
    if not given."""
    spec = dict(arm.attack or {})
    world = track.world(seed)
    model, clock = trained_model(track, world, Arm(recipe=arm.recipe), seed=seed, store=store), Clock()
    test = world.tests[world.home]
    test = first(test, spec.pop("examples", len(test)))
    if "epsilon" in spec:
        spec["epsilon"] = number("epsilon", spec["epsilon"])
    name = spec.pop("name")
    attack = Noise(**spec) if name == NOISE else build_attack({"name": name, **spec}, model)
    with clock.running():
        found = under_attack(model, test, attack)
    return found | {"seconds": clock.seconds}


class Noise(Attack):
    """What no attack has looked for: a draw from the ball, or near words at random."""

    def __init__(self, *, moves: Moves = "values", epsilon: float = EPSILON) -> None:
        self.moves = moves  # type: ignore[misc]
        self.epsilon = epsilon

    def perturb(self, target: Target) -> Tensor:
        if self.moves == "words":
            return self._reworded(target)
        ball = target.ball("linf" if self.moves == "values" else "token_l2", self.epsilon)
        return ball.draw(target.x, target.generator)

    def _reworded(self, target: Target) -> Tensor:
        """As many words as `word_substitution` may change, each one of the near words that it may take."""
        found, words, attack = target.x.clone(), words_of(target.model), WordSubstitution()
        for ids, mask in zip(found, target.batch.inputs["attention_mask"], strict=True):
            places = torch.tensor(words.places(ids, mask))
            drawn = places[torch.randperm(len(places), generator=target.generator)]
            for place in drawn[: int(self.epsilon * len(places))].tolist():
                near = words.near(int(ids[place]), attack.neighbours, attack.similarity)
                if len(near):
                    ids[place] = near[int(torch.randint(len(near), (), generator=target.generator))]
        return found
