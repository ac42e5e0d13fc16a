"""`surefoot merge`: several models to one, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surefoot.cli.app import command
from surefoot.cli.options import Json, Threads

if TYPE_CHECKING:
    from surefoot.merge.fit import Fit
    from surefoot.merge.plan import Plan


@command("merge")
def merge(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Runs, model folders, .safetensors files, indices of shards or names on the hub.", metavar="[MODEL]..."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the merged model; must not exist.", metavar="FOLDER")
    ] = None,
    method: Annotated[str | None, typer.Option(help="How: `surefoot methods --kind merge` lists them.")] = None,
    base: Annotated[
        str | None, typer.Option(help="What all were tuned from: a folder, a file, or minilm.", metavar="MODEL")
    ] = None,
    option: Annotated[
        list[str], typer.Option(help="An option of the method: scaling=0.4, weights=[0.7,0.3].", metavar="NAME=VALUE")
    ] = [],  # noqa: B006 - typer reads it
    judge: Annotated[
        list[str],
        typer.Option(
            help="Labelled, held-out examples of the task that all models share, for greedy_soup and learned_soup.",
            metavar="NAME=FILE",
        ),
    ] = [],  # noqa: B006
    data: Annotated[
        list[str],
        typer.Option(
            help="For methods that learn from each model's task: one set for each model, in their order.",
            metavar="FILE",
        ),
    ] = [],  # noqa: B006
    column: Annotated[list[str], typer.Option(help="Rename a column: intent=label.", metavar="COLUMN=ROLE")] = [],  # noqa: B006
    max_length: Annotated[int | None, typer.Option(help="Tokens read of a text while learning.", min=4)] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn while learning.", min=0)] = 0,
    config: Annotated[
        Path | None, typer.Option(help="A merge as mergekit's YAML, in place of MODEL and --method.", metavar="FILE")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Write float32, bfloat16 or float16; by default what the models have.")
    ] = None,
    shard_size: Annotated[float, typer.Option(help="GB of a file at most.", min=0.001)] = 5.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the plan and the memory it takes.")] = False,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Merge models that were tuned from one start into one, of any size: what is merged is read, and written, as it comes.

    Examples: surefoot merge runs/a runs/b runs/c --method uniform_soup --out runs/soup;
    surefoot merge runs/intents runs/banking --base minilm --method task_arithmetic --option scaling=0.4 --out runs/both
    """
    import torch

    from surefoot.errors import RecipeError, RunError
    from surefoot.merge.adapters import is_adapter, merge_adapters
    from surefoot.merge.fit import Fit
    from surefoot.merge.merging import check_output, opened, plan_merge, read_dtype, write_merged
    from surefoot.tune.build import build

    if threads is not None:
        torch.set_num_threads(threads)
    shard = round(shard_size * 1e9)
    if config is not None:
        stray = {"MODEL": models, "--method": method, "--base": base, "--option": option, "--dtype": dtype}
        for name, value in stray.items():
            if value:
                raise RecipeError(f"{name} does not go with --config, whose file says all: leave one of them out")
        _configured(config, out, dry=dry_run, shard=shard, json=json)
        return
    if not models:
        raise RecipeError(
            "no models: name two or more, such as surefoot merge runs/a runs/b --method linear --out runs/ab"
        )
    if method is None:
        raise RecipeError("no method: give --method, such as --method linear")
    if out is None and not dry_run:
        raise RunError("no folder for the merged model: give --out FOLDER, or --dry-run to see the plan")
    options = parse_options(option)
    combine = build("merge", {"name": method, **options})
    kind = read_dtype(dtype)
    if out is not None:
        check_output(out)
    if all(is_adapter(each) for each in models):
        if base is None or out is None:
            raise RecipeError(
                "adapters are merged for the model that they were made for: give it with --base, and --out"
            )
        merge_adapters(models, method, options, base=base, out=out)
        typer.echo(f"{len(models)} adapters merged; the adapter is in {out}")
        return
    facts = {"method": method, "options": options, "models": models, "base": base, "dtype": dtype}
    if isinstance(combine, Fit):
        given: dict[str, Any] = {
            "judge": judge,
            "data": data,
            "columns": column,
            "max_length": max_length,
            "seed": seed,
        }
        _fitted(combine, models, base, out, facts | {"seed": seed}, dry=dry_run, json=json, dtype=dtype, **given)
        return
    if judge or data:
        raise RecipeError(
            f"{'--judge' if judge else '--data'} is for methods that learn, and {method} does not: leave it out, or choose one such as greedy_soup"
        )
    with opened(models, base) as (checkpoints, start):
        if len(checkpoints) == 1 and start is None:
            raise RecipeError(f"one model, {models[0]}, and nothing to merge it with: name more, or give --base")
        plan = plan_merge(checkpoints, start, lambda name: combine, dtype=kind)
        for note in plan.notes:
            typer.echo(f"note: {note}", err=True)
        if not dry_run:
            with Bytes() as bars:
                write_merged(plan, checkpoints, out or "", facts=facts, shard=shard, progress=bars)
    if json:
        typer.echo(dumps(described(plan) | {"out": None if dry_run else str(out)}, indent=2))
        return
    typer.echo(plan_text(plan, len(models), dry=dry_run))
    if not dry_run:
        typer.echo(f"the merged model is in {out}")


def _configured(config: Path, out: Path | None, *, dry: bool, shard: int, json: bool) -> None:
    """The merge that a YAML describes."""
    from surefoot.errors import RunError
    from surefoot.merge.merging import check_output, merge_config

    if out is None and not dry:
        raise RunError("no folder for the merged model: give --out FOLDER, or --dry-run to see the plan")
    if out is not None:
        check_output(out)
    with Bytes() as bars:
        plan = merge_config(config, out=None if dry else out, shard=shard, progress=bars)
    for note in plan.notes:
        typer.echo(f"note: {note}", err=True)
    if json:
        typer.echo(dumps(described(plan) | {"out": None if dry else str(out)}, indent=2))
        return
    count = max(len(each.tuned) + (each.base is not None) for each in plan.tensors)
    typer.echo(plan_text(plan, count, dry=dry))
    if not dry:
        typer.echo(f"the merged model is in {out}")


def _fitted(
    fit: Fit,
    models: Sequence[str],
    base: str | None,
    out: Path | None,
    facts: dict[str, Any],
    *,
    judge: Sequence[str],
    data: Sequence[str],
    columns: Sequence[str],
    max_length: int | None,
    seed: int,
    dtype: str | None,
    dry: bool,
    json: bool,
) -> None:
    """A merge that learns from data."""
    from surefoot.cli.inputs import named_data, parse_columns
    from surefoot.cli.show import Bars
    from surefoot.data.load import load_data
    from surefoot.errors import RecipeError
    from surefoot.merge.fitting import merge_fit
    from surefoot.registry import name_of

    if dry or dtype is not None or out is None:
        raise RecipeError("--dry-run and --dtype are for merges that stream, and this one learns: leave them out")
    sees, other = ("judge", data) if fit.sees == "judge" else ("data", judge)
    if other:
        raise RecipeError(f"`{name_of(fit)}` looks at --{sees}: give that one")
    if sees == "judge":
        sets = list(named_data(judge, option="--judge", columns=columns).values())
    else:
        renamed = parse_columns(columns)
        sets = [load_data(each, columns=renamed, require_labels=fit.labelled) for each in data]
    with Bars() as bars:
        settings: dict[str, Any] = {"seed": seed, "max_length": max_length, "progress": bars}
        found = merge_fit(models, fit, sets, out=out, base=base, facts=facts, **settings)
    if json:
        typer.echo(dumps({"out": str(out), **found}, indent=2))
        return
    typer.echo(f"{facts['method']}: {_short(found)}")
    typer.echo(f"the merged model is in {out}; merge.json there says what was learned")


def _short(found: dict[str, Any]) -> str:
    """What was learned, in a line: of coefficients by tensor the mean of each model."""
    rows = found.get("coefficients")
    if rows:
        means = [sum(column) / len(rows) for column in zip(*rows.values(), strict=True)]
        return f"mean coefficients {', '.join(f'{each:.3f}' for each in means)} over {len(rows)} tensors"
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found.items() if name != "layers")


class Bytes:
    """Progress in bytes, on a terminal; a merge has few things to say elsewhere, and holds little memory to say them."""

    def __enter__(self) -> Bytes:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._bars = Progress(
            *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
        )
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def start(self, label: str, total: int) -> Callable[[int], None]:
        number = self._bars.add_task(label, total=total)
        return lambda count: self._bars.update(number, advance=count)


def parse_options(values: Sequence[str]) -> dict[str, Any]:
    """`scaling=0.4` to numbers, lists and words. Raises RecipeError for what is not NAME=VALUE."""
    import yaml

    from surefoot.errors import RecipeError

    found = {}
    for each in values:
        key, sign, value = each.partition("=")
        if not (key and sign and value):
            raise RecipeError(f"--option {each}: write it as NAME=VALUE, such as --option scaling=0.4")
        found[key] = yaml.safe_load(value)
    return found


def described(plan: Plan) -> dict[str, Any]:
    """The plan for programs; sizes in bytes."""
    return {
        "tensors": len(plan.tensors) + len(plan.head),
        "bytes_read": plan.bytes_in,
        "bytes_written": plan.bytes_out,
        "peak_memory": plan.peak,
        "heads": plan.heads,
        "notes": list(plan.notes),
    }


def plan_text(plan: Plan, count: int, *, dry: bool) -> str:
    """One line: what is read, what is written, what it takes."""
    tensors = len(plan.tensors) + len(plan.head)
    return (
        f"{tensors} tensors of {count} model{'s' if count > 1 else ''}: {size(plan.bytes_in)} {'to be read' if dry else 'read'}, "
        f"{size(plan.bytes_out)} {'to be written' if dry else 'written'}, at most {size(plan.peak)} of memory"
    )


def size(count: int) -> str:
    """Bytes for people.

    >>> size(90_000_000), size(512)
    ('90.0 MB', '512 B')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"
