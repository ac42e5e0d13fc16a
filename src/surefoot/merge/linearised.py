"""Linearised models on disk: merged in memory by their tangents, and written as one that is run like them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from surefoot.data.examples import Examples
from surefoot.errors import ModelError, RecipeError
from surefoot.files import atomic_folder, write_json
from surefoot.merge.checkpoint import CARD, HEAD
from surefoot.merge.fit import Fit
from surefoot.merge.merging import FACTS, check_output
from surefoot.models.card import read_json
from surefoot.models.load import load
from surefoot.models.model import Model
from surefoot.models.save import save
from surefoot.progress import Progress
from surefoot.registry import name_of


def is_linearised(source: str | Path) -> bool:
    """Whether a folder holds a model that was tuned with the selection `tangent`."""
    folder = Path(source).expanduser()
    for card in (folder / "model" / CARD, folder / CARD):
        if card.is_file():
            return [each.get("name") for each in read_json(card).get("additions", [])] == ["tangent"]
    return False


def merge_linearised(
    models: Sequence[str | Path],
    fit: Fit,
    data: Sequence[Examples],
    *,
    out: Path,
    base: str | Path,
    facts: Mapping[str, Any],
    seed: int = 0,
    max_length: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """As `merge_fit`: `out` opens with the first model's head, `out/model/heads/NAME` with those of each.

    Raises RecipeError for a method that knows nothing of tangents, ModelError where some models are not linearised or
    not alike.
    """
    from surefoot.merge.fitting import _own, _seen
    from surefoot.merge.tangent_task_arithmetic import TangentTaskArithmetic

    check_output(out)
    if not isinstance(fit, TangentTaskArithmetic):
        raise RecipeError(
            f"`{name_of(fit)}` merges weights, and these models are moved along tangents: choose tangent_task_arithmetic"
        )
    plain = [str(each) for each in models if not is_linearised(each)]
    if plain:
        raise ModelError(f"{plain[0]}: is not linearised and others are: tune all with the selection `tangent`")
    tuned = [load(each) for each in models]
    _check_alike(tuned, models)
    names = _names(models)
    seen = _seen(fit, tuned, data, names, max_length)
    states, start = [_own(each, heads=False) for each in tuned], _own(load(base), heads=False)
    fit.fit(tuned[0], states, start, seen, seed=seed, progress=progress)
    merged: Model = tuned[0]
    heads = [(each.classes, each.head.state_dict()) for each in tuned]
    merged.load_state_dict({**merged.state_dict(), **fit(states, start)})
    found = fit.facts()
    with atomic_folder(out) as partial:
        save(merged, partial / "model")
        card = read_json(partial / "model" / CARD)
        for name, (classes, head) in zip(names, heads, strict=True):
            place = partial / "model" / "heads" / name
            place.mkdir(parents=True)
            save_file({key: value.contiguous() for key, value in head.items()}, place / HEAD)
            write_json(place / CARD, {**card, "name": name, "classes": list(classes)})
        write_json(partial / FACTS, {**facts, "found": found})
    return found


def _check_alike(tuned: Sequence[Model], models: Sequence[str | Path]) -> None:
    shapes = [{n: v.shape for n, v in each.state_dict().items() if not n.startswith("head.")} for each in tuned]
    for other, source in zip(shapes[1:], models[1:], strict=True):
        if other != shapes[0]:
            raise ModelError(
                f"{models[0]} and {source} have other tensors: merge models of one kind, tuned with the same selection"
            )


def _names(models: Sequence[str | Path]) -> list[str]:
    """What the models are called, each by a name of its own."""
    names = [Path(each).name for each in models]
    return [name if names.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(names, start=1)]
