"""Quantities under attack: the loss, the accuracy, and how far from linear the loss is within the ball."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from surefoot.assess.robustness import survivors
from surefoot.attacks.attack import Attack, Moves, Target
from surefoot.attacks.ball import Ball
from surefoot.attacks.embedding_pgd import EmbeddingPGD
from surefoot.attacks.pgd import EPSILON, PGD, ascend
from surefoot.data.examples import Examples
from surefoot.errors import SurefootError
from surefoot.evidence.quantities import quantity
from surefoot.evidence.trained import Trained
from surefoot.models.model import Model
from surefoot.models.modes import evaluating
from surefoot.models.predict import encode_inputs
from surefoot.tune.objectives.attention_at import moved_scores
from surefoot.tune.step import Batch

#: Examples of the home test that are attacked, in batches of so many; the attack is PGD-10 within 8/255, of pixels or
#: of the mean norm of a word embedding.
ATTACKED, SIZE, STEPS, SEED = 200, 50, 10, 0


@quantity
def robust_accuracy(trained: Trained) -> float:
    """accuracy under PGD-10 at 8/255, home test."""
    test = trained.world.tests[trained.world.home]
    test = first(test, ATTACKED)
    attack = EmbeddingPGD() if test.modality == "text" else PGD()
    encoded = encode_inputs(trained.model, test.inputs, test.modality)
    return float(survivors(trained.model, encoded, np.asarray(test.labels), attack, seed=SEED).mean())


@quantity
def loss_under_attack(trained: Trained) -> float:
    """cross-entropy under PGD-10 at 8/255, home test (nats)."""
    losses = []
    for target, ball in _targets(trained):
        start = ball.draw(target.x, target.generator)
        moved = ascend(lambda x: _loss(target, x), target.x, start, ball, steps=STEPS, step_size=ball.epsilon / 4)  # noqa: B023
        losses.append(_loss(target, moved).detach())
    return float(torch.cat(losses).mean())


@quantity
def nonlinearity(trained: Trained) -> float:
    """departure of the loss from linear between two points of the ball of 8/255, home test (squared nats)."""
    errors = []
    for target, ball in _targets(trained):
        free = Ball(ball.norm, ball.epsilon)
        first, second = (free.draw(target.x, target.generator) for _ in range(2))
        share = torch.rand(len(target.x), generator=target.generator)
        wide = share.view(-1, *[1] * (target.x.ndim - 1))
        with torch.no_grad():
            between = _loss(target, (1 - wide) * first + wide * second)
            errors.append((between - (1 - share) * _loss(target, first) - share * _loss(target, second)).square())
    return float(torch.cat(errors).mean())


@quantity
def attention_slope(trained: Trained) -> float:
    """length of the loss's gradient by the attention scores of the last block, home test."""
    model = deepcopy(trained.model)
    model.backbone.set_attn_implementation("eager")  # type: ignore[operator]
    test = trained.world.tests[trained.world.home]
    test = first(test, SIZE)
    index = np.arange(len(test))
    batch = Batch(
        inputs=encode_inputs(model, test.inputs, test.modality).collate(index),
        labels=torch.from_numpy(np.asarray(test.labels)),
        index=torch.from_numpy(index),
    )
    with evaluating(model):
        maps = model(batch, attentions=True).attentions
        assert maps is not None
        offset = torch.zeros_like(maps[-1], dtype=torch.float32, requires_grad=True)
        with moved_scores(model.layers[-1], offset):
            loss = F.cross_entropy(model(batch, attentions=True).logits, batch.labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, offset)
    return float(gradient.flatten(1).norm(dim=1).mean())


@quantity
def head_slope(trained: Trained) -> float:
    """how fast the lead of the top class over the next can change with the features, at its fastest, home test."""
    features = torch.from_numpy(trained.home.features).requires_grad_()
    with evaluating(trained.model):
        top = trained.model.head(features).topk(2, dim=1).values
    (gradient,) = torch.autograd.grad((top[:, 0] - top[:, 1]).sum(), features)
    return float(gradient.norm(dim=1).max())


def first(examples: Examples, count: int) -> Examples:
    """The first `count` of them."""
    return examples.take(np.arange(min(count, len(examples))))


def targets(model: Model, examples: Examples, moves: Moves) -> list[Target]:
    """The first `ATTACKED` examples, batch by batch."""
    examples, found = first(examples, ATTACKED), []
    encoded = encode_inputs(model, examples.inputs, examples.modality)
    for index in np.array_split(np.arange(len(examples)), -(-len(examples) // SIZE)):
        labels = torch.from_numpy(np.asarray(examples.labels)[index])
        batch = Batch(inputs=encoded.collate(index), labels=labels, index=torch.from_numpy(index))
        found.append(Target(model, batch, moves, torch.Generator().manual_seed(SEED + int(index[0]))))
    return found


def under_attack(model: Model, examples: Examples, attack: Attack) -> dict[str, float]:
    """What the attack leaves of the accuracy, by how much it raises the loss (nats), and how far it moves what is not
    words, the largest change of an example, its mean. Only examples that are right are moved: the others are lost."""
    right, kept, gained, moved_by = [], [], [], []
    with evaluating(model):
        for target in targets(model, examples, attack.moves):
            with torch.no_grad():
                before, correct = _loss(target, target.x), target.logits(target.x).argmax(1) == target.labels
            right.append(correct)
            if not correct.any():
                continue
            attacked = target.take(correct.nonzero()[:, 0])
            moved = attack.perturb(attacked)
            with torch.no_grad():
                kept.append(attacked.logits(moved).argmax(1) == attacked.labels)
                gained.append(_loss(attacked, moved) - before[correct])
            moved_by.append((moved - attacked.x).abs().double().flatten(1).amax(1))
    if not kept:
        raise SurefootError(f"{examples.source}: the model gets none of the examples right: there is nothing to attack")
    count = sum(map(len, right))
    accuracy = float(sum(each.sum() for each in right)) / count
    robust = float(sum(each.sum() for each in kept)) / count
    found = {
        "clean_accuracy": accuracy,
        "accuracy_under_attack": robust,
        "accuracy_lost": accuracy - robust,
        "attack_gain": float(torch.cat(gained).mean()),
    }
    return found if attack.moves == "words" else found | {"attack_distance": float(torch.cat(moved_by).mean())}


def _targets(trained: Trained) -> list[tuple[Target, Ball]]:
    """The home test, batch by batch, with the ball around it."""
    test = trained.world.tests[trained.world.home]
    text = test.modality == "text"
    every = targets(trained.model, test, "embeddings" if text else "values")
    return [(target, target.ball("token_l2" if text else "linf", EPSILON)) for target in every]


def _loss(target: Target, x: Tensor) -> Tensor:
    """(N,), in eval mode."""
    with evaluating(target.model):
        return F.cross_entropy(target.logits(x), target.labels, reduction="none")
