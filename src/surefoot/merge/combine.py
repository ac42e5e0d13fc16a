"""The contract of a merge that is arithmetic: checkpoints in, a checkpoint out, one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from surefoot.errors import RecipeError

if TYPE_CHECKING:
    from surefoot.models.model import Model
    from surefoot.tune.selection import Training

Weights = Mapping[str, Tensor]
#: The same elements of a tensor: of every checkpoint, and of the base.
Piece = tuple[Sequence[Tensor], Tensor | None]
#: A pass over the pieces of a tensor, in order; it may be made more than once.
Pieces = Callable[[], Iterator[Piece]]


class Combine:
    """Arithmetic on weights, tensor by tensor. Constructor arguments are validated there (`RecipeError`).

    A subclass writes `piece`: what becomes of some elements of a tensor, given the same elements of every checkpoint and
    of the base. What it has to know of the whole tensor first (a norm, a threshold) it finds in `measure`, by passes
    over the pieces, so that the largest tensors are merged part by part and written as they come. One whose arithmetic
    does not come apart like that overrides `tensor`; one that looks at several tensors at once overrides `__call__` and
    sets `streams` to False.
    """

    #: whether the base that checkpoints were tuned from takes part; without it `base` is None.
    needs_base: ClassVar[bool] = True
    #: how many checkpoints it takes beside the base.
    least: ClassVar[int] = 1
    most: ClassVar[int | None] = None
    #: options that hold a number for each checkpoint.
    each: ClassVar[tuple[str, ...]] = ()
    #: whether one tensor is enough to go on.
    streams: ClassVar[bool] = True

    def setup(self, model: Model, training: Training, base: Weights) -> None:
        """Look at the data before merging, for merges that learn something from it: under `after`, called before each merge.

        `model` holds what was tuned from `base` and must be left as it is. Without it a merge knows weights alone.
        """

    def check(self, count: int) -> None:
        """Raise RecipeError unless it can merge so many checkpoints."""
        name = type(self).__name__
        if count < self.least:
            raise RecipeError(
                f"{name} merges {self.least} checkpoints or more beside the base, and {count} {'was' if count == 1 else 'were'} given: name more"
            )
        if self.most is not None and count > self.most:
            raise RecipeError(
                f"{name} merges {self.most} checkpoint{'s' if self.most > 1 else ''} beside the base, and {count} were given: name fewer, or choose another method"
            )
        for option in self.each:
            values = getattr(self, option)
            if values is not None and len(values) not in ((1, count) if option != "weights" else (count,)):
                raise RecipeError(f"{len(values)} values of `{option}` for {count} checkpoints: give one for each")

    def measure(self, pieces: Pieces, *, name: str = "") -> Any:
        """What `piece` has to know of the whole tensor called `name`; each call of `pieces` is a pass over it."""
        return None

    def piece(self, tuned: Sequence[Tensor], base: Tensor | None, measured: Any) -> Tensor:
        """The merged elements, from the same elements of each checkpoint and of the base.

        All are float32 or float64 and of one shape, and must be left as they are; pieces come in the elements' order.
        """
        raise NotImplementedError

    def tensor(self, tuned: Sequence[Tensor], base: Tensor | None, *, name: str = "") -> Tensor:
        """The merged tensor, from the same tensor of each checkpoint and of the base they started from."""
        if tuned[0].numel() == 0:
            return tuned[0].clone()
        whole: Piece = ([computed(each) for each in tuned], None if base is None else computed(base))
        return self.piece(*whole, self.measure(lambda: iter([whole]), name=name)).to(tuned[0].dtype)

    @property
    def by_pieces(self) -> bool:
        """Whether a large tensor may come part by part."""
        return type(self).tensor is Combine.tensor

    def __call__(self, checkpoints: Sequence[Weights], base: Weights | None) -> dict[str, Tensor]:
        """Merge whole checkpoints; tensors that are not floating point are taken from the first."""
        self.check(len(checkpoints))
        first = checkpoints[0]
        return {
            name: self.tensor(
                [each[name] for each in checkpoints],
                base[name] if base is not None else None,
                name=name,
            )
            if first[name].is_floating_point()
            else first[name]
            for name in first
        }


def computed(tensor: Tensor) -> Tensor:
    """Half precision is for storing: sums of it are computed in float32."""
    return tensor if tensor.element_size() >= 4 else tensor.float()


def weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """sum_k w_k x_k, added up one by one: a stack of them would take memory, and time to fill it."""
    total = tensors[0] * weights[0]
    for each, weight in zip(tensors[1:], weights[1:], strict=True):
        total.add_(each, alpha=weight)
    return total


def mean(tensors: Sequence[Tensor]) -> Tensor:
    """The mean; of one tensor itself, to the bit."""
    return weighted_sum(tensors, [1.0] * len(tensors)).div_(len(tensors))


def checked_weights(weights: Sequence[float] | None) -> list[float] | None:
    """One finite number for each checkpoint, or None; RecipeError for anything else.

    >>> checked_weights([0.5, float("nan")])
    Traceback (most recent call last):
    surefoot.errors.RecipeError: `weights` holds nan: give one finite number for each checkpoint
    """
    if weights is None:
        return None
    if isinstance(weights, str) or not isinstance(weights, Sequence) or not weights:
        raise RecipeError(f"`weights` is {weights!r}: give a list with one number for each checkpoint")
    for each in weights:
        if isinstance(each, bool) or not isinstance(each, int | float) or abs(each) == float("inf") or each != each:
            raise RecipeError(f"`weights` holds {each!r}: give one finite number for each checkpoint")
    return [float(each) for each in weights]
