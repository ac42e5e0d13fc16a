"""From what a recipe says to instances: `{"name": "sam", "rho": 0.05, "inner": {"name": "adamw"}}`, or just `"adamw"`.

Options are checked against the constructor's keyword-only parameters, so that a slip of the pen is named.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from surefoot.errors import RecipeError, nearest
from surefoot.registry import Method, get
from surefoot.tune.optimizer import Optimizer, Wrapper
from surefoot.tune.optimizers import Parameters

#: A name, or a mapping with a `name` and the options.
Spec = str | Mapping[str, Any]


def check_options(cls: Any, options: Mapping[str, Any], what: str, *, also: Iterable[str] = ()) -> None:
    """Check the names of `options` against the constructor of `cls`; `also` are names that the caller itself reads.

    >>> from surefoot.tune.optimizers.sam import SAM
    >>> check_options(SAM, {"rh": 0.1}, "optimizer `sam`")
    Traceback (most recent call last):
    surefoot.errors.RecipeError: unknown option `rh` of optimizer `sam`: did you mean `rho`?
    """
    parameters = inspect.signature(cls).parameters.values()
    known = {each.name: each for each in parameters if each.kind is each.KEYWORD_ONLY}
    free = any(each.kind is each.VAR_KEYWORD for each in parameters)
    names = {*known, *also}
    for name in options:
        if name not in names and not free:
            hint = nearest(str(name), names) if names else "it takes none"
            raise RecipeError(f"unknown option `{name}` of {what}: {hint}")
    missing = [name for name, each in known.items() if each.default is each.empty and name not in options]
    if missing:
        raise RecipeError(f"{what} needs " + ", ".join(f"`{name}`" for name in missing))


def build(kind: str, spec: Spec) -> Any:
    """An instance of the method of that kind that `spec` names, made with the options it gives.

    >>> build("selection", "head")
    Head()
    >>> build("selection", {"k": 2})
    Traceback (most recent call last):
    surefoot.errors.RecipeError: a selection has no `name`: {'k': 2}
    """
    method, options = _read(kind, spec)
    check_options(method.make, options, f"{kind} `{method.name}`")
    return method.make(**options)


def build_optimizer(spec: Spec, parameters: Parameters | None) -> Optimizer:
    """The optimizer of `spec` over parameters or groups of them; a wrapper's `inner` is a spec too, "adamw" if absent.

    parameters: None stands for one parameter that nobody sees, where only the spec is to be checked.

    >>> weight = nn.Parameter(torch.ones(2))
    >>> optimizer = build_optimizer({"name": "sam", "rho": 0.1, "inner": {"name": "adamw", "lr": 3e-5}}, [weight])
    >>> optimizer.param_groups[0]["lr"]
    3e-05
    """
    if parameters is None:
        parameters = [nn.Parameter(torch.zeros(1))]
    method, options = _read("optimizer", spec)
    what = f"optimizer `{method.name}`"
    if not issubclass(method.make, Wrapper):
        check_options(method.make, options, what)
        plain: Optimizer = method.make(parameters, **options)
        return plain
    check_options(method.make, options, what, also=["inner"])
    inner = build_optimizer(options.pop("inner", "adamw"), parameters)
    wrapper: Wrapper = method.make(inner, **options)
    return wrapper


def _read(kind: str, spec: Spec) -> tuple[Method, dict[str, Any]]:
    if isinstance(spec, str):
        return get(kind, spec), {}
    article = "an" if kind[0] in "aeiou" else "a"
    if not isinstance(spec, Mapping):
        raise RecipeError(f"{article} {kind} is a name or a mapping with a `name`, not {spec!r}")
    options = dict(spec)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise RecipeError(f"{article} {kind} has no `name`: {dict(spec)}")
    return get(kind, name), options
