"""The contract of an objective: one term of the training loss."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from surefoot.errors import RecipeError, nearest
from surefoot.tune.step import Step

if TYPE_CHECKING:
    from surefoot.models.model import Model
    from surefoot.tune.answers import Answers
    from surefoot.tune.entities import Entities
    from surefoot.tune.pairs import Pairs

#: What an objective may ask for beyond the shared forward pass.
#: inputs: it changes the model's inputs or their embeddings, so nothing below may be cached;
#: attentions, hidden_states: the forward pass returns them; reference: the starting model's output per example,
#: which means something only where the head does not start at random; index: state per training example;
#: label_texts: the classes have names; answers: what should follow each text, or its class's name; entities: which
#: tokens are entities, from the data's column; pairs: what belongs to each text, from the data's column `positive`;
#: texts: the training texts themselves, for another model to read; group: the data has a group column;
#: tokens, pixels, layers, causal: a model that reads text, that reads images, that has transformer blocks, whose
#: tokens see only what is before them.
NEEDS = frozenset(
    {
        "inputs",
        "attentions",
        "hidden_states",
        "reference",
        "index",
        "label_texts",
        "answers",
        "entities",
        "pairs",
        "texts",
        "group",
        "tokens",
        "pixels",
        "layers",
        "causal",
    }
)


@dataclass(frozen=True)
class Space:
    """The range of one hyperparameter for the search; `log` for scales that span decades."""

    low: float
    high: float
    log: bool = False
    integer: bool = False


@dataclass(frozen=True)
class Context:
    """What is known before the first pass: read by `Objective.setup`, `Reducer.setup` and `Selection.apply`.

    `labels`: (N,) class indices of the training set. `start`: the trainable parameters as they were before
    training, by name. `trained`: the same parameters live. `label_inputs`: the tokenised class names. `answers`: the
    tokens that should follow each training text; `entities`: which of its own tokens are entities; `pairs`: the texts
    that belong to it; `texts`: the training texts themselves. `steps` and `epochs`: the length of the training in
    optimizer steps and in passes over the data; `batch_size`: examples of a step, at most.
    Where the data have no labels, `labels` are zeros and `classes` empty (see `Objective.reads_labels`).
    """

    model: Model
    labels: Tensor
    classes: Sequence[str]
    start: Mapping[str, Tensor]
    trained: Mapping[str, nn.Parameter]
    groups: Tensor | None = None
    group_names: Sequence[str] = ()
    label_inputs: Mapping[str, Tensor] | None = None
    answers: Answers | None = None
    entities: Entities | None = None
    pairs: Pairs | None = None
    texts: Sequence[str] | None = None
    steps: int = 1
    epochs: float = 1.0
    batch_size: int = 1
    head_names: frozenset[str] = field(default_factory=frozenset)

    @property
    def examples(self) -> int:
        return len(self.labels)

    @property
    def layer_names(self) -> list[str]:
        """Names of the transformer blocks, lowest first."""
        return self.model.layer_names


class Objective(nn.Module):
    """One term of the loss. A subclass writes `per_example`, or `forward` where the term is not a mean over examples.

    Constructor arguments are keyword-only hyperparameters, kept under their own names and validated there
    (`RecipeError`), so that a recipe fails when it is made. Buffers registered in `setup` are the state: they are
    saved and resumed. `forward` leaves them alone, `update` is the only place where they move.
    """

    #: What it asks for; an instance may narrow it where that depends on its arguments (FLYP, cached or not).
    needs: frozenset[str] = frozenset()
    #: "outputs": differentiated by autograd through the forward pass. "weights": see WeightObjective.
    acts_on: ClassVar[Literal["outputs", "weights"]] = "outputs"
    #: Whether it looks at labels, or at logits, which without labels mean nothing; data without labels refuse it then.
    #: An instance may narrow it, like `needs`.
    reads_labels: bool = True

    def setup(self, context: Context) -> None:
        """Allocate state and check that the data can serve. Called once, before the first pass."""

    def per_example(self, step: Step) -> Tensor:
        """The term for each example: (B,)."""
        raise TypeError(f"{type(self).__name__} is not a mean over examples")

    def forward(self, step: Step) -> Tensor:
        """The term: a scalar. By default the mean of `per_example`."""
        return self.per_example(step).mean()

    def update(self, step: Step) -> None:
        """Move the state: once an optimizer step, on the first pass, without gradient, before `forward`."""

    def finish(self, model: Model) -> None:
        """After the last step: what the objective learned that the model keeps (a head from label texts)."""

    @classmethod
    def space(cls, context: Context | None = None) -> dict[str, Space]:
        """Hyperparameters worth searching, beside the weight."""
        return {}

    @property
    def is_per_example(self) -> bool:
        """Whether a reducer can reweigh this term."""
        return type(self).per_example is not Objective.per_example and type(self).forward is Objective.forward


@dataclass(frozen=True)
class Norms:
    """Coefficients of l1 ||w||_1 + l2 ||w||_2^2 + l1_start ||w - w0||_1 + l2_start ||w - w0||_2^2."""

    l1: float = 0.0
    l2: float = 0.0
    l1_start: float = 0.0
    l2_start: float = 0.0

    def plus(self, other: Norms, weight: float = 1.0) -> Norms:
        """self + weight * other."""
        return Norms(
            self.l1 + weight * other.l1,
            self.l2 + weight * other.l2,
            self.l1_start + weight * other.l1_start,
            self.l2_start + weight * other.l2_start,
        )


class WeightObjective(Objective):
    """A term that depends on the weights alone, sum over parameters of value(w, w0), with its gradient in closed form.

    Autograd would build a graph over every parameter at every step; `weight_gradients.accumulate` adds the gradients
    of all weight objectives to `.grad` in one pass over the weights instead. A subclass writes `norms`, which is all
    that the fast path reads, or `value` and `gradient`. `forward` gives the value without gradient, for logs.
    `by_layer`: factors of the term from the head downwards, as AutoFT draws them for each layer; the last holds for all
    below, none is 1 everywhere.
    """

    acts_on: ClassVar[Literal["outputs", "weights"]] = "weights"
    reads_labels = False

    def __init__(self, *, by_layer: Sequence[float] = ()) -> None:
        super().__init__()
        from surefoot.tune.layerwise import check_factors

        self.by_layer = check_factors("by_layer", by_layer) if by_layer not in ((), []) else []

    def setup(self, context: Context) -> None:
        trained = {name: parameter for name, parameter in context.trained.items() if parameter.requires_grad}
        self.names_ = list(trained)
        self.parameters_ = list(trained.values())
        self.start_ = [context.start[name] for name in trained]
        self.count_ = sum(parameter.numel() for parameter in self.parameters_)
        from surefoot.tune.layerwise import factor_at

        factors = self.by_layer or [1.0]
        self.factors_ = {
            name: factor_at(factors, context.model.height(name) if self.by_layer else 0) for name in trained
        }

    def norms(self, name: str) -> Norms | None:
        """The term for the parameter called `name` where it is made of norms, else None."""
        return None

    def value(self, name: str, parameter: Tensor, start: Tensor) -> Tensor:
        """The term's contribution of one parameter tensor: a scalar."""
        norms = self._norms(name)
        total = parameter.new_zeros(())
        for l1, l2, weight in _lengths(norms, parameter, start):
            total = total + (l1 * weight.abs().sum() if l1 else 0) + (l2 * weight.square().sum() if l2 else 0)
        return total

    def gradient(self, name: str, parameter: Tensor, start: Tensor) -> Tensor:
        """d value / d parameter, in closed form, in the parameter's shape; 0 where |.| has no derivative."""
        norms = self._norms(name)
        total = torch.zeros_like(parameter)
        for l1, l2, weight in _lengths(norms, parameter, start):
            total = total + l1 * weight.sign() + 2 * l2 * weight
        return total

    def _norms(self, name: str) -> Norms:
        norms = self.norms(name)
        if norms is None:
            raise NotImplementedError(f"{type(self).__name__} gives neither `norms` nor `value` and `gradient`")
        return norms

    def forward(self, step: Step) -> Tensor:
        with torch.no_grad():
            parts = zip(self.names_, self.parameters_, self.start_, strict=True)
            return torch.stack([self.factors_[part[0]] * self.value(*part) for part in parts]).sum()


def _lengths(norms: Norms, parameter: Tensor, start: Tensor) -> Iterator[tuple[float, float, Tensor]]:
    """(coefficient of the l1 norm, of the squared l2 norm, vector) for w and w - w0, without what is not asked for."""
    if norms.l1 or norms.l2:
        yield norms.l1, norms.l2, parameter
    if norms.l1_start or norms.l2_start:
        yield norms.l1_start, norms.l2_start, parameter - start


def positive(name: str, value: float, *, zero: bool = False) -> float:
    """Validate a temperature, radius or weight: finite and above zero (or at least zero).

    >>> positive("temperature", -1.0)
    Traceback (most recent call last):
    surefoot.errors.RecipeError: `temperature` is -1.0: it must be a finite number above zero
    """
    finite = (
        isinstance(value, int | float) and not isinstance(value, bool) and value == value and abs(value) != float("inf")
    )
    if not finite or value < 0 or (value == 0 and not zero):
        raise RecipeError(f"`{name}` is {value}: it must be a finite number {'of at least' if zero else 'above'} zero")
    return float(value)


def fraction(name: str, value: float, *, one: bool = False) -> float:
    """Validate a probability or a momentum: in [0, 1), or [0, 1] with `one`."""
    positive(name, value, zero=True)
    if value > 1 or (value == 1 and not one):
        raise RecipeError(f"`{name}` is {value}: it must lie between 0 and 1{'' if one else ', 1 excluded'}")
    return float(value)


def one_of(name: str, value: str, options: Sequence[str]) -> str:
    """Validate a named choice.

    >>> one_of("violations", "mean", ["sum", "max"])
    Traceback (most recent call last):
    surefoot.errors.RecipeError: `violations` is `mean`: known: `max`, `sum`
    """
    if value not in options:
        raise RecipeError(f"`{name}` is `{value}`: {nearest(str(value), options)}")
    return value


def needs_of(objectives: Iterable[Objective]) -> frozenset[str]:
    """The union of what objectives need."""
    return frozenset[str]().union(*(objective.needs for objective in objectives))
