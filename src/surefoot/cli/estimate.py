"""`surefoot estimate`: what accuracy and which label shares to expect on data without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from surefoot.cli.app import command
from surefoot.cli.options import Device, Json, Threads


@command("estimate")
def estimate(
    run: Annotated[Path, typer.Argument(help="Folder of a search: `surefoot tune` with a judge.", metavar="RUN")],
    data: Annotated[
        list[str],
        typer.Option(help="Data as NAME=FILE, no labels needed; repeat for several.", metavar="NAME=FILE"),
    ],
    column: Annotated[list[str], typer.Option(help="Rename a column: body=text.", metavar="COLUMN=ROLE")] = [],  # noqa: B006 - typer reads it
    threads: Threads = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Forecast the accuracy of a search's model on new data without labels, and estimate their label shares.

    Of an embedding (`surefoot tune --task embedding`) it forecasts the correlation with ratings that nobody gave: on pairs
    (sentence1, sentence2), on texts alone, or on a folder with corpus, queries and qrels.

    Example: surefoot estimate runs/first --data tweets=tweets.parquet
    """
    from surefoot.cli import embedding
    from surefoot.cli.answer import estimators_table, target_tables
    from surefoot.cli.inputs import named_data, parse_columns, use_threads
    from surefoot.cli.show import Bars, out, print_json
    from surefoot.models.card import read_card
    from surefoot.search.estimate import check_search, is_embedding
    from surefoot.search.estimate import estimate as look

    use_threads(threads)
    pairs = is_embedding(check_search(run))
    if pairs:
        sets = embedding.named_sets(data, option="--data", columns=parse_columns(column), ratings=False)
    else:
        sets = named_data(data, option="--data", columns=column, labelled=False)
    with Bars() as bars:
        targets = look(run, sets, device=device, progress=bars)
    if json:
        print_json({name: each.as_json() for name, each in targets.items()})
        return
    if pairs:
        out(embedding.forecasts_table(targets))
        return
    for table in target_tables(targets, read_card(run / "model")["classes"]):
        out(table, "")
    out(estimators_table(targets))
