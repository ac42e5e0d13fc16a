"""`merge`: checkpoints in, a checkpoint out, on disk; whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from surefoot.errors import RecipeError, RunError, nearest
from surefoot.files import atomic_folder, write_json
from surefoot.merge.checkpoint import CARD, HEAD, WEIGHTS, Checkpoint, open_checkpoint
from surefoot.merge.combine import Combine
from surefoot.merge.plan import Plan, plan_merge
from surefoot.merge.stream import write_tensors
from surefoot.progress import Progress, Silent

#: What was merged, and how.
FACTS = "merge.json"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


@contextmanager
def opened(
    sources: Sequence[str | Path], base: str | Path | None
) -> Iterator[tuple[list[Checkpoint], Checkpoint | None]]:
    """The checkpoints and their base, open as long as the block runs."""
    checkpoints = [open_checkpoint(each) for each in sources]
    start = open_checkpoint(base) if base is not None else None
    try:
        yield checkpoints, start
    finally:
        for each in (*checkpoints, *([start] if start else [])):
            each.close()


def read_dtype(name: str | None) -> torch.dtype | None:
    """A dtype by name. Raises RecipeError if it is none that weights are written in."""
    if name is None:
        return None
    if name not in DTYPES:
        raise RecipeError(f"unknown dtype `{name}`: {nearest(name, DTYPES)}")
    return DTYPES[name]


def check_output(out: Path) -> None:
    """Raises RunError where there is something already."""
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise RunError(f"{out}: exists already: choose another folder, or delete it")


def write_merged(
    plan: Plan,
    checkpoints: Sequence[Checkpoint],
    out: str | Path,
    *,
    facts: Mapping[str, Any],
    like: Checkpoint | None = None,
    changes: Mapping[str, Any] | None = None,
    shard: int = 5_000_000_000,
    progress: Progress | None = None,
) -> Path:
    """Carry out the plan: `out` becomes a model folder with the files of `like`, the first checkpoint, around the new
    weights, and `changes` in its config.json.

    It opens as the checkpoints do: in transformers, sentence-transformers and surefoot. `merge.json` holds the facts.
    """
    out = Path(out)
    check_output(out)
    advance = (progress or Silent()).start("merge", plan.bytes_out)
    first = like or checkpoints[0]
    with atomic_folder(out) as partial:
        if not first.single:
            copy_others(first.folder, partial, card=plan.heads != "kept" and bool(plan.head or not first.classes))
        if changes:
            write_json(partial / "config.json", {**first.config, **changes})
        write_tensors(plan.tensors, partial, shard=shard, advance=advance)
        if plan.head:
            own = [_renamed(each) for each in plan.head]
            write_tensors(own, partial, stem=Path(HEAD).stem, advance=advance)
        if plan.heads == "kept":
            keep_heads(checkpoints, partial)
        if (partial / CARD).is_file():
            write_json(partial / CARD, {**first.card, "name": out.name})
        write_json(partial / FACTS, dict(facts))
    return out


def _renamed(planned: Any) -> Any:
    from dataclasses import replace

    return replace(planned, name=planned.name.removeprefix("head."))


def copy_others(folder: Path, partial: Path, *, card: bool) -> None:
    """Everything of a model folder but weights and what belongs to them."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix in (".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf"):
            continue
        if path.name.endswith((".safetensors", ".safetensors.index.json")) or path.name in (FACTS, "run.json"):
            continue
        if path.name == CARD and not card:
            continue
        if path.is_dir():
            # sentence-transformers keeps the settings of its modules in folders of their own: 1_Pooling.
            if path.name[:1].isdigit():
                shutil.copytree(path, partial / path.name)
        else:
            shutil.copyfile(path, partial / path.name)


def keep_heads(checkpoints: Sequence[Checkpoint], partial: Path) -> None:
    """heads/NAME: a card and a head, which `load` opens with the weights two folders above."""
    for each, name in zip(checkpoints, head_names(checkpoints), strict=True):
        if each.classes:
            place = partial / "heads" / name
            place.mkdir(parents=True)
            shutil.copyfile(each.folder / HEAD, place / HEAD)
            write_json(place / CARD, {**each.card, "name": name})


def head_names(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """What the models are called, each by a name of its own."""
    names = [each.name for each in checkpoints]
    return [name if names.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(names, start=1)]


def merge_config(
    path: str | Path,
    *,
    out: str | Path | None,
    shard: int = 5_000_000_000,
    progress: Progress | None = None,
    plan: Callable[[Plan], None] = lambda plan: None,
) -> Plan:
    """Merge what a YAML of mergekit's says into `out`; with None, only plan it. Raises as `merge` does."""
    from surefoot.merge.layers import locate, plan_config
    from surefoot.merge.mergekit_yaml import read_config

    path = Path(path)
    config = read_config(path)
    known: dict[str, Checkpoint] = {}
    places = locate(config, path)

    def open_one(name: str) -> Checkpoint:
        if name not in known:
            known[name] = open_checkpoint(places[name])
        return known[name]

    try:
        found = plan_config(config, open_one)
        plan(found.plan)
        if out is not None:
            facts = {"config": config.model_dump(mode="json", exclude_defaults=True), "notes": list(found.plan.notes)}
            settings: dict[str, Any] = {"like": found.like, "changes": found.changes}
            write_merged(found.plan, [found.like], out, facts=facts, shard=shard, progress=progress, **settings)
        return found.plan
    finally:
        for each in known.values():
            each.close()


def merge(
    models: Sequence[str | Path],
    method: str | Combine,
    *,
    out: str | Path,
    base: str | Path | None = None,
    dtype: str | None = None,
    shard: int = 5_000_000_000,
    progress: Progress | None = None,
    plan: Callable[[Plan], None] = lambda plan: None,
    **options: Any,
) -> Path:
    """Merge model folders or files into `out`, tensor by tensor. The weights of no model are held in memory.

    models: surefoot runs, folders of transformers, `.safetensors` files, indices of shards, names on the hub. method: a registered merge
    by name with its `options`, or one that was made. base: what all were tuned from. dtype: of the output, float32,
    bfloat16 or float16; that of the models by default, in float32 is computed anyway. shard: bytes of a file at most.
    plan: is shown the plan before anything is written. Raises ModelError for models that do not fit together.

    >>> merge(["./one"], "linear", out="merged")
    Traceback (most recent call last):
    surefoot.errors.ModelError: ./one: no such folder or file: check the path
    """
    from surefoot.tune.build import build

    combine: Combine = build("merge", {"name": method, **options}) if isinstance(method, str) else method
    kind = read_dtype(dtype)
    with opened(models, base) as (checkpoints, start):
        planned = plan_merge(checkpoints, start, lambda name: combine, dtype=kind)
        plan(planned)
        facts = {
            "method": method if isinstance(method, str) else type(method).__name__,
            "options": options,
            "models": [str(each) for each in models],
            "base": None if base is None else str(base),
            "dtype": dtype,
            "notes": list(planned.notes),
        }
        return write_merged(planned, checkpoints, out, facts=facts, shard=shard, progress=progress)


__all__ = ["WEIGHTS", "merge", "merge_config", "opened", "plan_merge", "write_merged"]
