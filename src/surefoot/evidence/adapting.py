"""Arms that train nothing of their own: the track's model, trained once for each seed, adapts to streams away from home.

Each domain away is a stream by itself, in batches of `SIZE`, with the adapter as at the start; nothing takes it back where
it does harm. `frozen` is what adapters are compared with. Streams: `drawn`, in the order in which the track has drawn
them; `label_shift`, where classes are kept with shares that fall tenfold from the first to the last of a drawn order;
`runs`, one class after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.special import log_softmax
from torch.nn import functional as F

from surefoot.adapt.adapter import Diverged, Home, TestTimeAdapter, batch_of, consecutive
from surefoot.data.examples import Examples
from surefoot.evidence.cost import Clock, nothing_cached
from surefoot.evidence.entry import Arm
from surefoot.evidence.shifting import trained_model
from surefoot.models.model import Model
from surefoot.models.predict import encode_inputs
from surefoot.tune.build import build
from surefoot.tune.fit import Fit
from surefoot.tune.recipe import Recipe
from surefoot.tune.recipes import read
from surefoot.tune.step import Output

if TYPE_CHECKING:
    from surefoot.evidence.classification import Classification, World

FROZEN, SIZE = "frozen", 50
#: How much rarer the rarest class of a label shift is than the commonest, and what seeds it.
RATIO, DRAW = 10.0, 11
STREAMS = ("drawn", "label_shift")
NEIGHBOURS = 5


def run_adapter(track: Classification, arm: Arm, *, seed: int, store: Path) -> dict[str, float]:
    """`accuracy_STREAM`, the mean over domains away, for each of the arm's `streams`, and what became of the answers.

    The adapter learns from home's held-out examples, or with `home: train` from those that the model was trained on.
    shots: so many labelled examples of each class, the first of the domain, are taken out of its stream; `recipe` trains
    the model on them before it meets the rest, which says what labels are worth beside adapting without any.
    """
    spec = dict(arm.adapt or {})
    streams, learned = tuple(spec.pop("streams", STREAMS)), spec.pop("home", "validation")
    shots, named = spec.pop("shots", 0), spec.pop("recipe", None)
    world = track.world(seed)
    model, clock = trained_model(track, world, seed=seed, store=store), Clock()
    home = Home.of(model, world.train if learned == "train" else world.validation)
    adapter: TestTimeAdapter | None = None
    if spec["name"] != FROZEN:
        adapter = build("test_time_adapter", spec)
        with clock.running():
            adapter.begin(model, home=home if adapter.home != "unused" else None, seed=seed)
    features, _ = home.outputs(model)
    mean, deviation = features.mean(0), features.std(0) + 1e-6
    found: dict[str, list[float]] = {}
    for stream in streams:
        for examples in _away(world, stream, seed):
            tuned = model
            if shots:
                few, examples = _shots(examples, shots)
                if named:
                    with clock.running(), nothing_cached():
                        tuned = Fit(Recipe(**{**read(named), **arm.recipe}), model, few, seed=seed).run().eval()
            with clock.running():
                answered, frozen = _over(tuned, adapter, examples)
            labels = np.asarray(examples.labels)
            seen = _figures(answered, frozen, labels, (mean, deviation), stream)
            for name, value in seen.items():
                found.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()} | {"seconds": clock.seconds}


def _away(world: World, stream: str, seed: int) -> Iterator[Examples]:
    """Every domain away as a stream of that kind."""
    for number, name in enumerate(world.away):
        examples = world.tests[name]
        labels = np.asarray(examples.labels)
        if stream == "label_shift":
            rng = np.random.default_rng([seed, DRAW, number])
            classes = rng.permutation(len(examples.classes))
            shares = np.empty(len(classes))
            shares[classes] = RATIO ** -np.linspace(0, 1, len(classes))
            examples = examples.take(np.flatnonzero(rng.random(len(labels)) < shares[labels]))
        elif stream == "runs":
            examples = examples.take(np.argsort(labels, kind="stable"))
        yield examples


def _shots(examples: Examples, count: int) -> tuple[Examples, Examples]:
    """The first `count` of each class, and the rest."""
    labels = np.asarray(examples.labels)
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        chosen[np.flatnonzero(labels == label)[:count]] = True
    return examples.take(chosen), examples.take(~chosen)


def _over(model: Model, adapter: TestTimeAdapter | None, examples: Examples) -> tuple[Output, list[Output]]:
    """What the adapter (or, without one, the model) answers, and the model's own outputs batch by batch."""
    encoded = encode_inputs(model, examples.inputs, examples.modality, source=examples.source)
    answered, frozen = [], []
    if adapter is not None:
        adapter.reset()
    for index in consecutive(len(examples), SIZE):
        batch = batch_of(model, encoded, index)
        with torch.no_grad():
            frozen.append(model(batch))
        own = frozen[-1] if adapter is not None and adapter.frozen is model else None
        try:
            answered.append(adapter.answer(batch, frozen=own) if adapter is not None else frozen[-1])
        except Diverged:
            answered.append(frozen[-1])
    features = torch.cat([each.features for each in answered])
    return Output(features, torch.cat([each.logits for each in answered])), frozen


def _figures(answered: Output, frozen: list[Output], labels: np.ndarray, home: Any, stream: str) -> dict[str, float]:
    log_p = log_softmax(answered.logits.double().cpu().numpy(), axis=1)
    predicted = log_p.argmax(1)
    found = {f"accuracy_{stream}": float((predicted == labels).mean())}
    if stream == "label_shift":
        truth = np.bincount(labels, minlength=log_p.shape[1]) / len(labels)
        found["stream_prior_error"] = float(np.abs(np.exp(log_p).mean(0) - truth).sum() / 2)
    else:
        mean, deviation = home
        found[f"entropy_{stream}"] = float(-(np.exp(log_p) * log_p).sum(1).mean())
        found[f"neighbours_{stream}"] = _agreement(torch.from_numpy(predicted), frozen)
        found[f"drift_{stream}"] = float(((answered.features.mean(0) - mean) / deviation).abs().mean())
    return found


def _agreement(predicted: torch.Tensor, frozen: list[Output]) -> float:
    """Share of the nearest neighbours within a batch, by the frozen model's features, that have the same answer."""
    shares, start = [], 0
    for output in frozen:
        own = predicted[start : start + len(output.features)]
        start += len(own)
        if len(own) < 2:
            continue
        unit = F.normalize(output.features, dim=1)
        alike = (unit @ unit.T).fill_diagonal_(-2.0)
        nearest = alike.topk(min(NEIGHBOURS, len(own) - 1), dim=1).indices
        shares.append(float((own[nearest] == own[:, None]).double().mean()))
    return float(np.mean(shares))
