"""What an embedding says of many sets, and what the judge's rules see of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from surefoot.assess.similarity import Rated, SimilaritySet, spearman
from surefoot.embed.geometry import unit_length
from surefoot.models.model import Model
from surefoot.models.precision import autocast, resolve
from surefoot.models.predict import encode_inputs, predict
from surefoot.models.prefix import cached_prefix
from surefoot.search.judge import Judge, Rule


class SimilaritySets:
    """Named sets. Every distinct text is run once; what frozen layers make of it, once for all models of a family."""

    def __init__(self, sets: Mapping[str, SimilaritySet], *, max_length: int | None) -> None:
        self.named = dict(sets)
        self.max_length = max_length
        #: What makes outputs of a set the same.
        self.prints = {name: each.fingerprint()[:16] for name, each in sets.items()}
        place: dict[str, int] = {}
        self._rows = {
            name: [np.array([place.setdefault(text, len(place)) for text in texts]) for texts in each.texts]
            for name, each in sets.items()
        }
        self._texts = list(place)

    def __len__(self) -> int:
        return sum(len(each) for each in self.named.values())

    def logits(
        self, model: Model, *, depth: int = 0, advance: Callable[[int], None] = lambda count: None
    ) -> dict[str, np.ndarray]:
        """Outputs (N,) of every set, float32. The lowest `depth` layers of `model` must be the pretrained ones."""
        encoded = encode_inputs(model, self._texts, "text", max_length=self.max_length)
        prefix = None
        model.freeze(depth)
        if depth:
            dtype = resolve(model.precision, model.device)
            prefix = cached_prefix(model, encoded, depth=depth, dtype=dtype, autocast=autocast(dtype, model.device))
        try:
            features = unit_length(predict(model, encoded, prefix=prefix, advance=advance).features)
        finally:
            model.freeze(0)
        return {
            name: each.outputs(*(features[rows] for rows in self._rows[name])).astype(np.float32)
            for name, each in self.named.items()
        }


@dataclass(frozen=True, eq=False)
class Similarities:
    """What a rule sees of one embedding: outputs on the judge's sets by domain, and the metric at home."""

    sets: Mapping[str, SimilaritySet]
    outputs: Mapping[str, np.ndarray]
    home: float

    def by_domain(self, judge: Judge, mask: np.ndarray) -> np.ndarray:
        """The metric of each domain that the mask leaves; ranks are among those that are left."""
        found = []
        for number in np.unique(judge.domain[mask]):
            name = judge.domains[number]
            rows, judged = mask[judge.domain == number], self.sets[name]
            outputs = self.outputs[name][rows]
            if isinstance(judged, Rated):
                assert judged.ratings is not None
                found.append(spearman(outputs, judged.ratings[rows]))
            else:
                found.append(float(outputs.mean()))
        return np.array(found)

    def contributions(self, judge: Judge) -> np.ndarray:
        """(J,): what each example of the judge contributes to its domain's metric."""
        return np.concatenate([self.sets[name].contributions(self.outputs[name]) for name in judge.domains])

    def held_out(self, judge: Judge, own: np.ndarray) -> np.ndarray:
        """The contributions of the judge's examples `own`."""
        return np.asarray(self.contributions(judge)[own])


def mean_metric(view: Similarities, judge: Judge, mask: np.ndarray) -> float:
    """Minus the mean over domains of the metric."""
    return -float(view.by_domain(judge, mask).mean())


def worst_domain(view: Similarities, judge: Judge, mask: np.ndarray) -> float:
    """Minus the metric of the worst domain."""
    return -float(view.by_domain(judge, mask).min())


def with_home(view: Similarities, judge: Judge, mask: np.ndarray) -> float:
    """Minus the sum of the mean metric away and the metric at home: a point lost away has to be won at home."""
    return mean_metric(view, judge, mask) - view.home


RULES: dict[str, Rule] = {each.__name__: each for each in (mean_metric, worst_domain, with_home)}
