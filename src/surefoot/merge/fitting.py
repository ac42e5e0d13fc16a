"""`merge` with a method that learns: models in memory, data beside them, the merged model on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from surefoot.data.examples import Examples
from surefoot.errors import DataError, ModelError, RecipeError
from surefoot.files import atomic_folder, write_json
from surefoot.merge.checkpoint import CARD, HEAD, WEIGHTS
from surefoot.merge.fit import Fit, Seen
from surefoot.merge.linearised import is_linearised, merge_linearised
from surefoot.merge.merging import FACTS, check_output, copy_others, head_names, keep_heads, opened
from surefoot.merge.plan import check_together
from surefoot.models.load import load
from surefoot.models.model import Model
from surefoot.progress import Progress
from surefoot.registry import name_of


def merge_fit(
    models: Sequence[str | Path],
    fit: Fit,
    data: Sequence[Examples],
    *,
    out: str | Path,
    base: str | Path | None = None,
    facts: Mapping[str, Any] | None = None,
    seed: int = 0,
    max_length: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Learn from data how to merge the models, and write the merged one to `out`; gives what was learned.

    data: for a fit that sees a judge, any number of labelled sets of the task that the models share; for one that sees
    tasks, one set for each model, in their order. Raises ModelError for models that do not fit together, DataError for
    data that are not the task's, RecipeError where the method needs a base and none is given.
    """
    out = Path(out)
    check_output(out)
    fit.check(len(models))
    if fit.needs_base and base is None:
        raise RecipeError(f"`{name_of(fit)}` starts from the model that all were tuned from: give it with --base")
    if fit.sees == "tasks" and len(data) != len(models):
        raise DataError(
            f"`{name_of(fit)}` looks at one data set for each model: {len(data)} for {len(models)}; give --data as often as models, in their order"
        )
    if fit.sees == "judge" and not data:
        raise DataError(f"`{name_of(fit)}` chooses by held-out labels: give --judge NAME=FILE")
    if any(is_linearised(each) for each in models) and base is not None:
        settings: dict[str, Any] = {"seed": seed, "max_length": max_length, "progress": progress}
        return merge_linearised(models, fit, data, out=out, base=base, facts=facts or {}, **settings)
    with opened(models, base) as (checkpoints, start):
        check_together([*checkpoints, *([start] if start else [])], None)
        tuned = [load(each) for each in models]
        seen = _seen(fit, tuned, data, head_names(checkpoints), max_length)
        states = [_own(each, heads=fit.sees == "judge") for each in tuned]
        first = None if base is None else _own(load(base), heads=False)
        fit.fit(tuned[0], states, first, seen, seed=seed, progress=progress)
        merged = fit(states, first)
        found = fit.facts()
        with atomic_folder(out) as partial:
            copy_others(checkpoints[0].folder, partial, card=fit.sees == "judge")
            _write(merged, partial)
            if fit.sees == "judge":
                write_json(partial / CARD, {**checkpoints[0].card, "name": out.name})
            else:
                keep_heads(checkpoints, partial)
            write_json(partial / FACTS, {**(facts or {}), "found": found})
    return found


def _own(model: Model, *, heads: bool) -> dict[str, Tensor]:
    return {n: v.detach() for n, v in model.state_dict().items() if heads or not n.startswith("head.")}


def _write(merged: Mapping[str, Tensor], folder: Path) -> None:
    """The backbone under the names that transformers gives it, the head apart."""
    for stem, file in (("backbone.", WEIGHTS), ("head.", HEAD)):
        part = {n.removeprefix(stem): v.contiguous().clone() for n, v in merged.items() if n.startswith(stem)}
        if part:
            save_file(part, folder / file, metadata={"format": "pt"})


def _seen(
    fit: Fit, models: Sequence[Model], data: Sequence[Examples], names: Sequence[str], max_length: int | None
) -> list[Seen]:
    if any(not each.classes for each in models):
        name = next(name for name, each in zip(names, models, strict=True) if not each.classes)
        raise ModelError(f"{name}: has no head of surefoot's, and `{name_of(fit)}` looks at answers: tune it first")
    if fit.sees == "judge":
        first = models[0]
        for other, name in zip(models[1:], names[1:], strict=True):
            if other.classes != first.classes:
                raise ModelError(
                    f"{names[0]} and {name} know other classes ({list(first.classes)[:3]}... and {list(other.classes)[:3]}...): `{name_of(fit)}` merges models of one task"
                )
        return [Seen(each.source, each.with_classes(first.classes), first, max_length=max_length) for each in data]
    found = []
    for name, model, each in zip(names, models, data, strict=True):
        if fit.labelled and each.labels is None:
            raise DataError(f"{each.source}: no labels, and `{name_of(fit)}` learns from them: add a column `label`")
        examples = (
            each.with_classes(model.classes)
            if fit.labelled
            else replace(each, labels=None, classes=(), label_texts=None)
        )
        head = {key: value for key, value in _own(model, heads=True).items() if key.startswith("head.")}
        found.append(Seen(name, examples, model, head=head, max_length=max_length))
    return found
