"""`surefoot evaluate`: score a run on labelled data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from surefoot.cli.app import command
from surefoot.cli.options import Attack, Attacked, AttackOption, Device, Epsilon, Json, Threads


@command("evaluate")
def evaluate(
    run: Annotated[
        Path,
        typer.Argument(
            help="Folder of a run, or of a model that surefoot saved; with --sts or --mteb any model.", metavar="RUN"
        ),
    ],
    data: Annotated[
        list[str],
        typer.Option("--data", "--test", help="Labelled data as NAME=FILE; repeat for several.", metavar="NAME=FILE"),
    ] = [],  # noqa: B006 - typer reads it
    sts: Annotated[
        list[str],
        typer.Option(
            help="Judge the embedding: pairs with ratings (sentence1, sentence2, score) as NAME=FILE, or a folder with corpus, queries and qrels; repeat for several.",
            metavar="NAME=FILE",
        ),
    ] = [],  # noqa: B006
    mteb: Annotated[
        list[str],
        typer.Option(help="Judge the embedding on this task of the package mteb; repeat for several.", metavar="TASK"),
    ] = [],  # noqa: B006
    column: Annotated[list[str], typer.Option(help="Rename a column: intent=label.", metavar="COLUMN=ROLE")] = [],  # noqa: B006 - typer reads it
    attack: Attack = None,
    epsilon: Epsilon = None,
    attack_option: AttackOption = [],  # noqa: B006 - typer reads it
    attacked: Attacked = None,
    shifts: Annotated[
        str | None,
        typer.Option(
            help="Accuracy under this suite of shifts as well: text-standard, images-standard, ..., or a YAML list; `surefoot methods --kind shift` lists what it may hold.",
            metavar="SUITE",
        ),
    ] = None,
    calibrated: Annotated[
        bool, typer.Option("--calibrated/--uncalibrated", help="Use what `surefoot calibrate` left in RUN, if it did.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Of what the attack and the shifts draw.")] = 0,
    threads: Threads = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Accuracy with its 95% interval, balanced accuracy, AUC and accuracy at the true label prior, per data set.

    Under an attack the robust accuracy too; it is added to the run's report.html.

    Examples: surefoot evaluate runs/first --data tweets=tweets.parquet;
    surefoot evaluate runs/first --data photos=photos.parquet --attack pgd --epsilon 8/255;
    surefoot evaluate runs/first --data tweets.parquet --shifts text-standard

    With --sts, how well its vectors judge what is alike (Spearman against ratings, or nDCG@10 of a search), no labels
    needed: surefoot evaluate minilm --sts sts=sts.parquet.

    A run that `surefoot compress` made is shown beside the one that it was made of.

    What shifts cost is kept in the run's findings/shifts-SUITE.json and added to its report.html.
    """
    from surefoot.assess.evaluate import evaluate as score
    from surefoot.assess.robustness import build_attack
    from surefoot.assess.shifted import check_suite, evaluate_shifts
    from surefoot.cli.calibrate import kept_calibrator
    from surefoot.cli.compress import beside_dense, compression_table
    from surefoot.cli.inputs import named_data, use_threads
    from surefoot.cli.show import Bars, metrics_table, out, print_json, shifts_table
    from surefoot.models.load import load
    from surefoot.shifts.suite import read_suite
    from surefoot.tune.folder import check_run

    use_threads(threads)
    if sts or mteb:
        from surefoot.cli.similarity import evaluate_embedding

        evaluate_embedding(run, sts, mteb, data=data, columns=column, device=device, json=json)
        return
    if not data:
        from surefoot.errors import DataError

        raise DataError("nothing to evaluate on: give labelled data with --data, or --sts or --mteb for an embedding")
    suite = read_suite(shifts) if shifts else []
    spec = attack_spec(attack, epsilon, attack_option, attacked)
    check_run(run)
    model = load(run, device=device)
    if spec is not None:
        build_attack(spec, model)
    sets = named_data(data, option="--data", columns=column, classes=model.classes or None)
    calibrator = kept_calibrator(run, model) if calibrated else None
    options: dict[str, Any] = {"attack": spec, "attacked": attacked, "seed": seed, "calibrator": calibrator}
    for examples in sets.values():
        check_suite(suite, examples)
    with Bars() as bars:
        metrics = {
            name: score(model, examples, **options, progress=bars, label=name)[1] for name, examples in sets.items()
        }
        under = {
            name: evaluate_shifts(model, examples, suite, seed=seed, progress=bars, label=name).as_json()
            for name, examples in sets.items()
            if suite
        }
        beside = beside_dense(run, sets, bars, model=model)
    if shifts:
        from surefoot.report.findings import keep_finding
        from surefoot.report.shifts import shifts_finding

        keep_finding(run, shifts_finding(shifts, under, seed=seed))
    if spec is not None:
        from surefoot.report.attacks import attack_finding
        from surefoot.report.findings import keep_finding

        keep_finding(run, attack_finding(spec, metrics))
    if json:
        found: dict[str, Any] = {name: each.as_json() for name, each in metrics.items()}
        found = {name: {**each, "attack": spec} if spec else each for name, each in found.items()}
        if beside is not None:
            against = beside.as_json()["sets"]
            found = {name: {**each, "beside_dense": against[name]} for name, each in found.items()}
        print_json({name: {**each, "shifts": under[name]} if shifts else each for name, each in found.items()})
    else:
        out(metrics_table(metrics), *(shifts_table(name, each) for name, each in under.items()))
        if beside is not None:
            out("", compression_table(beside))


def attack_spec(
    name: str | None, epsilon: str | None, options: Sequence[str], attacked: int | None
) -> dict[str, Any] | None:
    """What the options say, as the spec of an attack; RecipeError for options without one."""
    import yaml

    from surefoot.assess.robustness import number
    from surefoot.errors import RecipeError

    if name is None:
        given = {"--epsilon": epsilon, "--attack-option": options, "--attacked": attacked}
        stray = [option for option, value in given.items() if value]
        if stray:
            raise RecipeError(f"{stray[0]} belongs to an attack: add --attack, such as --attack pgd")
        return None
    spec: dict[str, Any] = {"name": name}
    for each in options:
        key, sign, value = each.partition("=")
        if not (key and sign and value):
            raise RecipeError(f"--attack-option {each}: write it as NAME=VALUE, such as --attack-option steps=20")
        spec[key] = number(key, value) if "/" in value else yaml.safe_load(value)
    return spec | ({"epsilon": number("epsilon", epsilon)} if epsilon is not None else {})
