"""The losses of sentence-transformers, on the passes that all objectives of a step share."""

from __future__ import annotations

import importlib
import inspect
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from surefoot.errors import RecipeError, nearest, require
from surefoot.models.predict import predict
from surefoot.registry import Paper, register
from surefoot.tune.objective import Context, Objective
from surefoot.tune.step import Step

ANCHOR, PAIR, TRIPLET = ("anchor",), ("anchor", "positive"), ("anchor", "positive", "negative")


@dataclass(frozen=True)
class Reads:
    """What a loss reads: columns (a negative is left out where the data have none, unless `negative`), and beside them
    scores of pairs, 0 or 1 for each pair, classes, or vectors of the starting model."""

    columns: tuple[str, ...]
    target: str | None = None
    negative: bool = False
    options: Mapping[str, Any] | None = None


#: What can work on shared passes, and what it reads.
LOSSES = {
    "MultipleNegativesRankingLoss": Reads(TRIPLET),
    "MultipleNegativesSymmetricRankingLoss": Reads(TRIPLET),
    "GISTEmbedLoss": Reads(TRIPLET, "guide"),
    "GlobalOrthogonalRegularizationLoss": Reads(TRIPLET),
    "TripletLoss": Reads(TRIPLET, negative=True),
    "MarginMSELoss": Reads(TRIPLET, "score", negative=True),
    "MegaBatchMarginLoss": Reads(PAIR, options={"use_mini_batched_version": False}),
    "CosineSimilarityLoss": Reads(PAIR, "score"),
    "CoSENTLoss": Reads(PAIR, "score"),
    "AnglELoss": Reads(PAIR, "score"),
    "ContrastiveLoss": Reads(PAIR, "binary"),
    "OnlineContrastiveLoss": Reads(PAIR, "binary"),
    "SoftmaxLoss": Reads(PAIR, "classes"),
    "BatchAllTripletLoss": Reads(ANCHOR, "classes"),
    "BatchHardTripletLoss": Reads(ANCHOR, "classes"),
    "BatchHardSoftMarginTripletLoss": Reads(ANCHOR, "classes"),
    "BatchSemiHardTripletLoss": Reads(ANCHOR, "classes"),
    "MSELoss": Reads(TRIPLET, "start"),
    "EmbedDistillLoss": Reads(TRIPLET, "start"),
}
#: What cannot, and why.
CACHED = "runs a batch in pieces and again to differentiate them, and here one pass is shared by all objectives: {} has the same value, in a `batch_size` that memory holds"
REFUSED = {
    "CachedMultipleNegativesRankingLoss": CACHED.format("MultipleNegativesRankingLoss"),
    "CachedMultipleNegativesSymmetricRankingLoss": CACHED.format("MultipleNegativesSymmetricRankingLoss"),
    "CachedGISTEmbedLoss": CACHED.format("GISTEmbedLoss"),
    "AdaptiveLayerLoss": "cuts off layers, and here they have run before it is asked",
    "Matryoshka2dLoss": "cuts off layers, and here they have run before it is asked: MatryoshkaLoss cuts the width",
    "ContrastiveTensionLoss": "trains a second model: use the objective `simcse`",
    "ContrastiveTensionLossInBatchNegatives": "trains a second model: use the objective `simcse`",
    "DenoisingAutoEncoderLoss": "trains a decoder on texts of its own",
    "DistillKLDivLoss": "reads a teacher's score for every candidate, and pairs hold one: MarginMSELoss reads that",
}
#: Losses that wrap another.
MODIFIERS = ("MatryoshkaLoss",)
#: Where distances are found by name.
DISTANCES = {
    "TripletLoss": "TripletDistanceMetric",
    "ContrastiveLoss": "SiameseDistanceMetric",
    "OnlineContrastiveLoss": "SiameseDistanceMetric",
    **dict.fromkeys((each for each in LOSSES if each.startswith("Batch")), "BatchHardTripletLossDistanceFunction"),
}


@register(
    "sentence_transformers",
    kind="objective",
    family="contrastive",
    papers=[
        Paper(
            "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
            "Reimers and Gurevych",
            2019,
            arxiv="1908.10084",
        )
    ],
)
class SentenceTransformersLoss(Objective):
    """A loss of the library, by its name there: L(f(anchor), f(positive), f(negative); target).

    f: features (B, D), of the passes that all objectives share, in place of the library's own passes; so it joins L2-SP,
    SAM, LoRA and the search. Value and gradient are the library's. Gives a scalar, in the loss's own units.

    loss: the class's name in `sentence_transformers.losses` ("MultipleNegativesRankingLoss", the default), or
    "MatryoshkaLoss" around another. options: its arguments by name; `similarity_fct` and `distance_metric` by the names of
    the library's functions (cos_sim, dot_score; COSINE, EUCLIDEAN, cosine_distance), the `loss` that MatryoshkaLoss
    wraps as a name or a mapping with `name` and options.

    Losses of rated pairs (CoSENTLoss, AnglELoss; CosineSimilarityLoss between -1 and 1; MarginMSELoss the teacher's
    margin) read the column `score`, ContrastiveLoss and OnlineContrastiveLoss read it as 0 or 1; SoftmaxLoss and the
    Batch...TripletLosses read `label`. The guide of GISTEmbedLoss and the teacher of MSELoss and EmbedDistillLoss is the
    model as it started. What draws (the widths of MatryoshkaLoss) is drawn with the step's seed.

    Parameters: the loss's own. Raises RecipeError for a name that is none, an option that is none or out of range, data
    without what the loss reads, and for losses that need passes of their own (the cached ones, those that cut layers,
    contrastive tension, auto-encoders), with what to take instead; MissingExtra without the extra `embed`.
    Reference: Reimers and Gurevych 2019; each class of the library names its own.

    >>> SentenceTransformersLoss(loss="CoSENTLoss", options={"scale": 10.0}).needs
    frozenset({'pairs'})
    """

    def __init__(self, *, loss: str = "MultipleNegativesRankingLoss", options: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.options = options
        self._spec = _read(loss, options or {})
        reads = _innermost(self._spec)[1]
        needs = {"pairs"} if reads.columns != ANCHOR else set()
        self.needs = frozenset(needs | ({"reference"} if reads.target in ("guide", "start") else set()))
        self.reads_labels = reads.target == "classes"

    def setup(self, context: Context) -> None:
        name, reads = _innermost(self._spec)
        self.columns_ = [each for each in reads.columns if each == "anchor" or self._has(context, each)]
        if reads.negative and "negative" not in self.columns_:
            raise RecipeError(f"{name} reads a `negative` of each pair: add the column, or choose another loss")
        _check_scores(context, name, reads.target)
        self.start_: dict[str, Tensor] = {}
        if reads.target in ("guide", "start") and context.pairs is not None:
            for each in self.columns_[1:]:
                self.start_[each] = torch.from_numpy(predict(context.model, context.pairs.encoded[each]).features)
        self.module = _build(self._spec, context, Shared("shared", context))

    def forward(self, step: Step) -> Tensor:
        name, reads = _innermost(self._spec)
        columns = [self._column(step, each) for each in self.columns_]
        with _seeded(step):
            found = self.module(columns, self._target(step, name, reads.target))
        return torch.stack(list(found.values())).sum() if isinstance(found, dict) else found

    def _has(self, context: Context, column: str) -> bool:
        return context.pairs is not None and column in context.pairs.encoded

    def _column(self, step: Step, name: str) -> dict[str, Tensor]:
        """What the library takes for a batch of one column: here, its vectors."""
        found = {"shared": (step.output if name == "anchor" else step.pair(name)).features}
        if self.start_ or "reference" in self.needs:
            found["start"] = self._start(step, name)
        return found

    def _start(self, step: Step, name: str) -> Tensor:
        if name == "anchor":
            return step.reference.features
        index = step.batch.index
        return self.start_[name][index.cpu()].to(index.device)

    def _target(self, step: Step, name: str, target: str | None) -> Tensor | None:
        if target in ("score", "binary"):
            return step.pair_scores
        if target == "classes":
            return step.labels
        if target == "start":
            return torch.stack([self._start(step, each) for each in self.columns_], 1)
        return None


class Shared(nn.Module):
    """Stands for the library's model: gives the vectors that a column holds already."""

    def __init__(self, key: str, context: Context) -> None:
        super().__init__()
        self.key, self.dim, self.device = key, context.model.dim, context.model.device
        processor: Any = context.model.processor
        self.tokenizer = getattr(processor, "tokenizer", None)
        self.max_seq_length = getattr(processor, "max_length", 0)

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features[self.key]}

    def get_embedding_dimension(self) -> int:
        return self.dim


def _library() -> ModuleType:
    require("sentence_transformers", extra="embed", why="the objective `sentence_transformers`")
    for name in ("sentence_transformers.sentence_transformer.losses", "sentence_transformers.losses"):
        try:  # the losses moved in version 6
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise RecipeError(
        "this sentence-transformers has no losses where they are looked for: pip install 'surefoot[embed]'"
    )


Spec = tuple[str, dict[str, Any]]


def _read(name: str, options: Mapping[str, Any]) -> Spec:
    """The class's name and its options, those of a wrapped loss read likewise; RecipeError for what cannot work."""
    library = _library()
    if name in REFUSED:
        raise RecipeError(f"{name} {REFUSED[name]}")
    if name not in LOSSES and name not in MODIFIERS:
        raise RecipeError(
            f"sentence-transformers has no loss `{name}` that works here: {nearest(name, [*LOSSES, *MODIFIERS])}"
        )
    if not isinstance(options, Mapping):
        raise RecipeError(f"`options` of {name} is {options!r}: write a mapping such as {{scale: 20}}")
    known = [each for each in inspect.signature(getattr(library, name)).parameters if each not in ("model", "guide")]
    for each in options:
        if each not in known:
            raise RecipeError(f"unknown option `{each}` of {name}: {nearest(each, known)}")
    found = dict(options)
    if name in MODIFIERS:
        inner = found.get("loss")
        spec = {"name": inner} if isinstance(inner, str) else inner
        if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
            raise RecipeError(f"{name} wraps another loss: give options {{loss: MultipleNegativesRankingLoss, ...}}")
        found["loss"] = _read(spec["name"], {key: value for key, value in spec.items() if key != "name"})
    for key, names in (("similarity_fct", _similarities), ("distance_metric", _distances)):
        if isinstance(found.get(key), str) and (where := names(library, name)):
            if found[key] not in where:
                raise RecipeError(f"`{key}` of {name} is `{found[key]}`: {nearest(found[key], where)}")
            found[key] = where[found[key]]
    return name, found


def _similarities(library: ModuleType, name: str) -> dict[str, Any]:
    util = importlib.import_module("sentence_transformers.util")
    return {each: getattr(util, each) for each in dir(util) if each.endswith(("_sim", "_score"))}


def _distances(library: ModuleType, name: str) -> dict[str, Any]:
    """Distances by the library's names; none for a loss that takes a word (EmbedDistillLoss)."""
    if name not in DISTANCES:
        return {}
    holder = getattr(library, DISTANCES[name])
    # Not `dir`: an Enum of functions has no members, and hides them.
    return {each: getattr(holder, each) for each in vars(holder) if not each.startswith("_")}


def _innermost(spec: Spec) -> tuple[str, Reads]:
    name, options = spec
    return _innermost(options["loss"]) if name in MODIFIERS else (name, LOSSES[name])


def _build(spec: Spec, context: Context, model: Shared) -> nn.Module:
    name, options = spec
    options = {**(LOSSES[name].options or {} if name in LOSSES else {}), **options}
    if name in MODIFIERS:
        options["loss"] = _build(options["loss"], context, model)
    if name == "GISTEmbedLoss":
        options["guide"] = Shared("start", context)
    if name == "SoftmaxLoss":
        options = {"embedding_dimension": context.model.dim, "num_labels": len(context.classes), **options}
    try:
        built: nn.Module = getattr(_library(), name)(model, **options)
    except (TypeError, ValueError, AssertionError) as error:
        raise RecipeError(f"{name}: {' '.join(str(error).split())}") from error
    return built


def _check_scores(context: Context, name: str, target: str | None) -> None:
    if target not in ("score", "binary"):
        return
    scores = context.pairs.scores if context.pairs is not None else None
    if scores is None:
        raise RecipeError(
            f"{name} reads how alike the texts of each pair are: add a column `score`, or choose another loss"
        )
    if target == "binary" and not bool(((scores == 0) | (scores == 1)).all()):
        raise RecipeError(
            f"{name} reads scores of 0 and 1, and these go from {scores.min():g} to {scores.max():g}: CoSENTLoss reads any"
        )
    if name == "CosineSimilarityLoss" and float(scores.abs().max()) > 1:
        raise RecipeError(
            f"{name} compares scores with cosines, and these go from {scores.min():g} to {scores.max():g}: scale them to [0, 1], or use CoSENTLoss, which reads their order"
        )


@contextmanager
def _seeded(step: Step) -> Iterator[None]:
    """Python's own random numbers, which the library draws from, seeded by the step and left as they were."""
    state = random.getstate()
    random.seed(step.generator.initial_seed())
    try:
        yield
    finally:
        random.setstate(state)
