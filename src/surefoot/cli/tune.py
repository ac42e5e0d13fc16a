"""`surefoot tune`: search with a judge from other domains, or fit one recipe; test it on others, keep the run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from surefoot.cli.app import command
from surefoot.cli.options import Device, Json, Threads

#: The recipe of those who have no judge: LP-FT with WiSE-FT.
WITHOUT_JUDGE = "wise_ft"
#: Options that only a search reads.
SEARCH_ONLY = (
    *("judge", "unlabelled", "validation", "bank", "starts", "layers", "trials", "time_limit", "batch"),
    *("per_layer", "pruner", "warm_start"),
)
#: What is said where pairs have no judge.
NO_JUDGE_OF_PAIRS = (
    "no judge, so no search: this is plain contrastive tuning, half of the way back (recipe wise_contrastive); "
    "pairs with ratings from elsewhere (--judge NAME=FILE) make a search possible"
)
#: Options of a search that say where it runs.
ENGINE = ("engine", "workers", "address")


@command("tune")
def tune(
    train: Annotated[
        str | None,
        typer.Option(
            help="Training data: parquet, CSV, JSONL with columns `text` or `image`, and `label`; or a task's part such as reviews/train.",
            metavar="FILE",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="classification, the default, or embedding: then --train holds pairs (columns anchor and positive, perhaps negative), and judges and tests are pairs with ratings (sentence1, sentence2, score) or folders with corpus, queries and qrels.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; the same command again resumes it.", metavar="RUN")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="minilm (the default), a Hugging Face name, or a folder.", show_default=False)
    ] = None,
    judge: Annotated[
        list[str],
        typer.Option(
            help="Labelled examples of a domain other than home, 100 or more, by which the search chooses; repeat for several.",
            metavar="NAME=FILE",
        ),
    ] = [],  # noqa: B006 - typer reads it
    unlabelled: Annotated[
        list[str],
        typer.Option(
            help="Examples of a domain to come, no labels needed: accuracy and label shares are forecast.",
            metavar="NAME=FILE",
        ),
    ] = [],  # noqa: B006
    test: Annotated[
        list[str], typer.Option(help="Test data as NAME=FILE; repeat for several.", metavar="NAME=FILE")
    ] = [],  # noqa: B006
    validation: Annotated[
        str | None, typer.Option(help="Held-out home data; by default split off --train.", metavar="FILE")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A search as YAML; paths in it are relative to it, options here win.", metavar="FILE"),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Trials of the search, 3 or more; 20 by default.")] = None,
    time_limit: Annotated[
        str | None, typer.Option(help="Give the answer after 90s, 5m, 1.5h; with --trials, whichever comes first.")
    ] = None,
    bank: Annotated[
        str | None,
        typer.Option(
            help="Methods to draw from, by name and of any kind: smart,l2_sp,focal,sam,lora; or a whole bank: autoft, the default, or wide."
        ),
    ] = None,
    per_layer: Annotated[
        bool | None,
        typer.Option("--per-layer", help="Draw learning rate, decay and norms for each layer.", show_default=False),
    ] = None,
    pruner: Annotated[
        str | None, typer.Option(help="How draws are given up early: median, the default, halving, or none.")
    ] = None,
    warm_start: Annotated[
        Path | None, typer.Option(help="An earlier search, whose four best draws come first.", metavar="RUN")
    ] = None,
    starts: Annotated[str | None, typer.Option(help="Recipes that draws start from: flyp,fine_tune.")] = None,
    layers: Annotated[str | None, typer.Option(help="Fewest and most top layers to train: 2-4.")] = None,
    batch: Annotated[
        int | None,
        typer.Option(help="Trials that are drawn together, so that as many can be trained at a time; 1 by default."),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="Where trials are trained: local, the default, or ray.", show_default=False)
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Trials trained at a time, up to --batch; 1 by default, and then in this process if local."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster, such as auto; without it ray begins one here.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="No search: one recipe, by name (see `surefoot methods --kind recipe`) or as a YAML file."),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="With --recipe and --judge: train it once while a strategy moves its hyperparameters, as the judge likes (`surefoot methods --kind strategy`)."
        ),
    ] = None,
    column: Annotated[list[str], typer.Option(help="Rename a column: intent=label.", metavar="COLUMN=ROLE")] = [],  # noqa: B006
    epochs: Annotated[float | None, typer.Option(help="Passes over the data, of every training.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate, instead of the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples a step, of every training.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens read of a text.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Same seed, machine and threads: same bytes; 0 by default.", show_default=False)
    ] = None,
    threads: Threads = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Search for the model that holds away from home, by a judge of other domains; or fit one recipe.

    Example: surefoot tune --train movies.parquet --judge amazon.parquet --judge nyt.parquet --unlabelled tweets.parquet --time-limit 5m --out runs/first

    Without a judge it is the recipe wise_ft, without a search. One recipe of your choice:

    Example: surefoot tune --train movies.parquet --test tweets=tweets.parquet --recipe wise_ft --out runs/second

    An embedding, trained on pairs and judged by what it must not forget:

    Example: surefoot tune --task embedding --train pairs.parquet --judge sts.parquet --test cranfield --out runs/third
    """
    from surefoot.cli import embedding
    from surefoot.cli.inputs import read_search, use_threads
    from surefoot.cli.training import fit
    from surefoot.errors import DataError, RecipeError, RunError

    use_threads(threads)
    given: dict[str, Any] = {
        "train": train,
        "out": out,
        "model": model,
        "judge": judge or None,
        "unlabelled": unlabelled or None,
    }
    given |= {"test": test or None, "validation": validation, "trials": trials, "time_limit": time_limit}
    given |= {"bank": bank, "starts": starts, "layers": layers, "epochs": epochs, "batch_size": batch_size}
    given |= {"max_length": max_length, "seed": seed, "batch": batch}
    given |= {"per_layer": per_layer, "pruner": pruner, "warm_start": warm_start}
    given |= {"engine": engine, "workers": workers, "address": address, "task": task}
    given = {name: value for name, value in given.items() if value is not None}
    if seed is not None and seed < 0:
        raise RecipeError(f"--seed is {seed}: it must be a whole number, zero or more")
    if strategy is not None and (recipe is None or not judge):
        raise RecipeError(
            "--strategy moves the hyperparameters of one training by a judge: give --recipe, such as fine_tune, and --judge NAME=FILE"
        )
    extra = [name for name in (*SEARCH_ONLY, *ENGINE) if name in given and not (name == "judge" and strategy)]
    extra += ["config"] * (config is not None)
    if recipe is not None and extra:
        option = "--" + extra[0].replace("_", "-")
        raise RecipeError(f"{option} is for a search and --recipe for one training without: leave one of them out")
    fields: dict[str, Any] = {**(read_search(config) if config is not None else {}), **given}
    if "train" not in fields:
        raise DataError("no training data: give --train FILE, or `train` in the file of --config")
    if "out" not in fields:
        raise RunError("no folder to keep the run in: give --out RUN, or `out` in the file of --config")
    check_task(fields, strategy=strategy)
    shared: dict[str, Any] = {"columns": column, "device": device, "json": json}
    if recipe is None and "judge" in fields:
        if lr is not None:
            raise RecipeError("--lr goes with one recipe, and a search draws its own: leave it out, or give --recipe")
        _search(fields, **shared)
    elif fields.get("task") == "embedding":
        embedding.fit(
            recipe or embedding.WITHOUT_JUDGE, fields, lr=lr, notes=[] if recipe else [NO_JUDGE_OF_PAIRS], **shared
        )
    else:
        notes = [] if recipe is not None else _without_judge(fields)
        fit(recipe or WITHOUT_JUDGE, fields, lr=lr, strategy=strategy, notes=notes, **shared)


def _search(fields: dict[str, Any], *, columns: list[str], device: str, json: bool) -> None:
    """`surefoot.search.search.tune` with what was asked for, and its answer on standard output."""
    from surefoot.cli import answer, embedding
    from surefoot.cli.leaderboard import Board
    from surefoot.cli.show import notes, print_json
    from surefoot.cli.show import out as show
    from surefoot.models.load import load
    from surefoot.report.run import report_run
    from surefoot.search.search import tune as search

    plan = _plan(fields)
    pairs = plan.task == "embedding"
    sets = embedding.read_sets(fields, columns=columns) if pairs else _read_sets(fields, columns=columns)
    start = load(fields.get("model", "minilm"), device=device)
    with Board(plan) as board:
        found = search(
            start,
            **sets,
            out=fields["out"],
            plan=plan,
            **{name: fields[name] for name in ENGINE if name in fields},
            progress=board,
            after=board.told,
        )
    page = report_run(fields["out"])
    notes(found.notes)
    if json:
        print_json(found.as_json() | {"report": str(page)})
        return
    for table in (embedding if pairs else answer).found_tables(found):
        show(table, "")
    show(f"{len(found.trials)} trials in {found.seconds:.0f} s; the model is in {fields['out'] / 'model'}")
    show(f"{page} shows why")


def _read_sets(fields: dict[str, Any], *, columns: list[str]) -> dict[str, Any]:
    """Labelled examples to train, judge and test on, and others without labels."""
    from surefoot.cli.inputs import named_data, parse_columns
    from surefoot.data import load_data
    from surefoot.errors import DataError

    renamed = parse_columns(columns)
    train = load_data(fields["train"], columns=renamed)
    if train.labels is None:
        raise DataError(f"{train.source} holds pairs without labels: give --task embedding, or add a column `label`")
    return {
        "train": train,
        "validation": load_data(fields["validation"], columns=renamed) if "validation" in fields else None,
        "judge": named_data(fields["judge"], option="--judge", columns=columns),
        "unlabelled": named_data(fields.get("unlabelled", ()), option="--unlabelled", columns=columns, labelled=False),
        # Labels that training does not know are said now, not after the search.
        "tests": named_data(fields.get("test", ()), columns=columns, classes=train.classes),
    }


def check_task(fields: dict[str, Any], *, strategy: str | None) -> None:
    """Raises RecipeError for a task that is none, and for what an embedding does not have."""
    from surefoot.errors import RecipeError
    from surefoot.search.task import task_of

    task = task_of(str(fields.get("task", "classification")))
    if task.name == "embedding" and strategy is not None:
        raise RecipeError("--strategy tunes a classifier by a judge's labels: leave it out with --task embedding")


def _plan(fields: dict[str, Any], *, without: tuple[str, ...] = ()) -> Any:
    """The plan among the fields; RecipeError for one that cannot work."""
    from surefoot.cli.inputs import parse_layers, parse_names
    from surefoot.search.plan import Plan
    from surefoot.search.warm import best_draws

    own = {name: value for name, value in fields.items() if name in Plan.model_fields and name not in without}
    for name, parse in {"bank": parse_names, "starts": parse_names, "layers": parse_layers}.items():
        if name in own:
            own[name] = parse(own[name])
    if isinstance(own.get("warm_start"), str | Path):
        own["warm_start"] = best_draws(own["warm_start"])
    return Plan(**own)


def _without_judge(fields: dict[str, Any]) -> list[str]:
    """What can and cannot be promised without a judge; mistakes in options of the search are errors all the same."""
    from surefoot.cli.training import IN_BOTH
    from surefoot.engine import check_engine

    _plan(fields, without=IN_BOTH)
    check_engine(fields.get("engine", "local"), workers=fields.get("workers", 1), address=fields.get("address"))
    idle = [f"`{name}`" for name in fields if name in (*SEARCH_ONLY, *ENGINE)]
    unused = f"; without one, {', '.join(idle)} had no use" if idle else ""
    return [
        f"no judge, so no search: this is LP-FT with WiSE-FT (recipe {WITHOUT_JUDGE}), chosen because it does well away from home in published comparisons",
        f"nothing here was measured away from home but the test sets, if any: how it does on your targets is not forecast, and another recipe may do better{unused}",
        "100 labelled examples of another domain or, better, of each of two (--judge NAME=FILE) make a search possible",
    ]
