"""The contract of an optimizer: torch's convention, with a closure that may be called more than once, so that they nest.

    SAM(AdamW(parameters, lr=5e-5), rho=0.05).step(closure)

`closure(first)` clears the gradients, runs forward and backward at the present weights and returns the loss. `first`
is True exactly once a step: only that pass moves the state of objectives. Every pass of a step restores the same
random state, so the second pass of SAM sees the dropout masks of the first. `closure.step` is the minibatch as the
latest pass saw it, for optimizers that look at the model's outputs (TRAM, EGN).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from surefoot.tune.objective import Context, Space
from surefoot.tune.step import Output, Step


class Closure(Protocol):
    """What an optimizer's step is given; see the module."""

    @property
    def step(self) -> Step:
        """The minibatch of the latest pass: its `output` (without its graph), and `again` for further passes."""

    def __call__(self, first: bool, /) -> Tensor:
        """Clear the gradients, run forward and backward, return the loss."""


class Passes:
    """A closure around a function that runs one pass and returns its loss and its `Step`."""

    step: Step

    def __init__(self, run: Callable[[bool], tuple[Tensor, Step]]) -> None:
        self._run = run

    def __call__(self, first: bool, /) -> Tensor:
        loss, self.step = self._run(first)
        return loss


def repeat(step: Step) -> Output:
    """Another forward pass over the batch from the random state that the step's passes begin with: the same dropout."""
    torch.manual_seed(step.generator.initial_seed())
    return step.again()


class Optimizer:
    """An optimizer over the parameters that train. `param_groups` is torch's, so learning-rate schedules work on it."""

    #: forward-backward passes a step: the theoretical cost beside plain training. An instance may set its own.
    passes: float = 1
    #: forward passes of the optimizer's own beside them, without the closure: about a third of a pass each.
    forwards: float = 0
    param_groups: list[dict[str, Any]]

    def setup(self, context: Context) -> None:
        """What is known before the first step, as objectives see it: names, the start, the number of steps.

        Called once by the training loop, and again on a resume, before `load_state_dict`.
        """

    def step(self, closure: Closure) -> Tensor:
        """One update; returns the loss of the first pass."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise NotImplementedError

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Every parameter, in the order of the groups."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    @classmethod
    def space(cls) -> dict[str, Space]:
        """Hyperparameters worth searching, beside the learning rate."""
        return {}


class TorchOptimizer(Optimizer):
    """Brings a `torch.optim.Optimizer` under the contract."""

    torch_class: ClassVar[type[torch.optim.Optimizer]]

    def __init__(self, parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]], **options: Any) -> None:
        self.inner = self.torch_class(parameters, **options)
        self.param_groups = self.inner.param_groups

    def step(self, closure: Closure) -> Tensor:
        loss = closure(True)
        self.inner.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state)
        self.param_groups = self.inner.param_groups


class Wrapper(Optimizer):
    """An optimizer around another: it changes the gradient that the inner one sees.

    A subclass writes `around(closure)`, which returns the loss of the first pass and leaves in `.grad` what the inner
    optimizer shall step on. Wrappers nest because the inner optimizer's closure is the outer's `around`.
    """

    def __init__(self, inner: Optimizer) -> None:
        self.inner = inner

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return self.inner.param_groups

    def setup(self, context: Context) -> None:
        self.inner.setup(context)

    def around(self, closure: Closure, first: bool) -> Tensor:
        """Run `closure` once or more; `first` is passed to the first call, False to the others."""
        raise NotImplementedError

    def step(self, closure: Closure) -> Tensor:
        return self.inner.step(_Around(self, closure))

    def own_state(self) -> dict[str, Any]:
        """What the wrapper itself must remember."""
        return {}

    def load_own_state(self, state: dict[str, Any]) -> None:
        """Restore what `own_state` gave."""

    def state_dict(self) -> dict[str, Any]:
        return {"inner": self.inner.state_dict(), "own": self.own_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state["inner"])
        self.load_own_state(state["own"])


class _Around:
    """The closure that a wrapper hands inwards."""

    def __init__(self, wrapper: Wrapper, closure: Closure) -> None:
        self._wrapper, self._closure = wrapper, closure

    @property
    def step(self) -> Step:
        return self._closure.step

    def __call__(self, first: bool, /) -> Tensor:
        return self._wrapper.around(self._closure, first)
