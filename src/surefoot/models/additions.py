"""Parts that stay in a model beside its own modules: adapters and the like, which no weight could absorb.

A part is registered under the module that it changes and acts through hooks, so that every parameter of the pretrained
model keeps its name. Saved models hold the parts in a file of their own; without it they are the pretrained model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from surefoot.errors import ModelError
from surefoot.files import atomic_folder, write_json

if TYPE_CHECKING:
    from surefoot.models.model import Model

#: What a model's attention implementation is called while it has prefixes.
PREFIX_ATTENTION = "surefoot_prefix"
ADDITIONS = "additions.safetensors"
SPECS = "additions.json"


class Addition(nn.Module):
    """A part beside a module: a subclass puts bound methods of its own on modules as hooks, so that copies copy them."""

    #: whether it carries something from layer to layer: then a layer's output is not all that the next one sees, and
    #: frozen layers below one that trains cannot be cached.
    spans: ClassVar[bool] = False
    #: whether the blocks see more tokens than the text has, so that places and attention maps are not the text's.
    lengthens: ClassVar[bool] = False
    #: for one that lengthens: whether it does so just now, see `text_alone`.
    silent = False


def parts(model: nn.Module) -> dict[str, Addition]:
    """Every part of the model by its name; parts within parts are not listed."""
    found: dict[str, Addition] = {}
    for name, module in model.named_modules():
        if isinstance(module, Addition) and not name.startswith(tuple(f"{outer}." for outer in found)):
            found[name] = module
    return found


@contextmanager
def text_alone(model: nn.Module) -> Iterator[None]:
    """Within, parts that put tokens before a text do not: for decoders that stand on the encoder's blocks."""
    lengthening = [part for part in parts(model).values() if part.lengthens]
    for part in lengthening:
        part.silent = True
    try:
        yield
    finally:
        for part in lengthening:
            part.silent = False


def inside(model: nn.Module, names: Iterable[str]) -> set[str]:
    """Those of the names (of parameters, buffers or modules) that belong to a part."""
    prefixes = tuple(f"{name}." for name in parts(model))
    return {name for name in names if prefixes and name.startswith(prefixes)}


def weights(model: Model) -> dict[str, Tensor]:
    """The tensors of all parts by name: what a domain or a task adds to the pretrained model."""
    state = model.state_dict()
    return {name: state[name] for name in state if name in inside(model, state)}


def remove(model: Model) -> None:
    """Take every part out: the model answers as it did before any was put in. The head stays as it is."""
    for name in parts(model):
        owner, _, attribute = name.rpartition(".")
        delattr(model.get_submodule(owner), attribute)
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if isinstance(getattr(hook, "__self__", None), Addition)]:
                del hooks[key]
                module._forward_pre_hooks_with_kwargs.pop(key, None)
                module._forward_hooks_with_kwargs.pop(key, None)
    model.additions = []
    if model.has_prefixes:
        model.backbone.set_attn_implementation("sdpa")  # type: ignore[operator]


def attach(model: Model, specs: Iterable[Mapping[str, Any]], tensors: Mapping[str, Tensor], *, source: object) -> None:
    """Put in the parts that selections of those specs put in, with their weights. Raises ModelError if they do not fit."""
    from surefoot.tune.build import build

    for spec in specs:
        selection = build("selection", spec)
        selection.attach(model)
        selection.collapse(model)
        model.additions.append(dict(spec))
    wanted = weights(model)
    if set(wanted) != set(tensors) or any(tensors[name].shape != wanted[name].shape for name in wanted):
        remove(model)
        raise ModelError(
            f"{source}: its additions were made for another model than `{model.name}`: load them into the model they were trained on"
        )
    model.load_state_dict({**model.state_dict(), **tensors})


def save_additions(model: Model, folder: str | Path) -> None:
    """Write the model's parts alone: a folder of some megabytes that makes the pretrained model this one again.

    Raises ModelError where the model has none.
    """
    if not model.additions:
        raise ModelError(f"`{model.name}` has no additions: train one with a selection such as `adapter`")
    with atomic_folder(Path(folder)) as partial:
        write_weights(model, partial)
        write_json(partial / SPECS, {"additions": model.additions})


def load_additions(model: Model, folder: str | Path) -> None:
    """Put the parts of that folder into `model`, in place of those it has: one base model, a domain at a time.

    Raises ModelError where the folder holds none or they were made for another model.
    """
    from surefoot.models.card import read_json

    folder = Path(folder)
    specs, tensors = read_json(folder / SPECS).get("additions", []), read_weights(folder)
    remove(model)
    attach(model, specs, tensors, source=folder)


def write_weights(model: Model, folder: Path) -> None:
    save_file({name: value.contiguous() for name, value in weights(model).items()}, folder / ADDITIONS)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder's parts."""
    try:
        return load_file(folder / ADDITIONS)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{folder / ADDITIONS}: the additions are missing or damaged ({reason}): take the folder from where it came from again"
        ) from error
