"""`surefoot pairs`: training data for an embedding model, made from documents or labelled examples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from surefoot.cli.app import command
from surefoot.cli.options import Json, Threads

if TYPE_CHECKING:
    from rich.table import Table

    from surefoot.cli.show import Bars
    from surefoot.data.pairs.maker import Pair
    from surefoot.data.records import Record, Records


@command("pairs")
def pairs(
    method: Annotated[str, typer.Argument(help="How: `surefoot methods --kind pairs` lists all.", metavar="NAME")],
    input: Annotated[
        str, typer.Option(help="Documents or labelled examples: .parquet, .jsonl, .csv, .tsv or .txt.", metavar="FILE")
    ],
    output: Annotated[Path, typer.Option(help="Where the pairs go: .parquet, .jsonl or .csv.", metavar="FILE")],
    option: Annotated[list[str], typer.Option(help="An option of the method: words=100.", metavar="NAME=VALUE")] = [],  # noqa: B006 - typer reads it
    column: Annotated[list[str], typer.Option(help="Rename a column: abstract=text.", metavar="COLUMN=ROLE")] = [],  # noqa: B006
    most: Annotated[int | None, typer.Option(help="Stop after so many pairs.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.", min=0)] = 0,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Make pairs of texts that an embedding model learns from, where nobody has labelled any.

    **Documents** (a column `text`; some methods read `title`, `sections`, `links` or `cites` too, and say what is
    missing): `ict` takes a sentence out of its passage, `bfs` and `wlp` begin with a document's first section, `co_citation`
    pairs what is cited together, `enterprise` writes questions. **Records** of two columns: `co_occurrence`. **Labelled
    examples** (`text`, `label`): `setfit`, `label_description`. **Sentences**: `cannot` adds what they do not say.

    The file is read row by row and never held; the same file and seed give the same pairs. `surefoot tune --task embedding
    --train pairs.parquet --judge sts.parquet --out runs/manual` learns from them.

    Example: surefoot pairs ict --input manual.parquet --output pairs.parquet
    """
    from surefoot.cli.inputs import parse_columns, parse_options, use_threads
    from surefoot.cli.show import Bars, print_json
    from surefoot.cli.show import out as show
    from surefoot.data.pairs.maker import PairMaker
    from surefoot.data.pairs.writing import write_pairs
    from surefoot.data.records import Records
    from surefoot.tune.build import build

    use_threads(threads)
    maker: PairMaker = build("pairs", {"name": method, **parse_options(option)})
    with Bars() as bars:
        records = Watched(Records(input, columns=parse_columns(column)), bars)
        count, shown = write_pairs(maker, records, output, seed=seed, most=most)
    if json:
        print_json({"pairs": count, "rows": records.count, "file": str(output), "columns": maker.gives})
        return
    show(_table(shown, maker.gives))
    show(f"{count:,} pairs of {records.count:,} rows in {output}")


class Watched:
    """Records with a bar for each time that they are gone through. `count`: how many were read the last time."""

    def __init__(self, records: Records, bars: Bars) -> None:
        self.records, self.bars, self.count = records, bars, 0

    def __iter__(self) -> Iterator[Record]:
        advance = self.bars.start(Path(self.records.source).name, len(self.records))
        self.count = 0
        for record in self.records:
            self.count += 1
            yield record
            advance(1)


def _table(shown: list[Pair], columns: tuple[str, ...]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="the first pairs", title_justify="left", title_style="bold", show_lines=True)
    for name in columns:
        table.add_column(name, overflow="fold", ratio=1 if name == "score" else 4)
    for pair in shown:
        values = [getattr(pair, name) for name in columns]
        table.add_row(*[escape(_short(each)) if isinstance(each, str) else f"{each:g}" for each in values])
    return table


def _short(text: str) -> str:
    return text if len(text) <= 160 else f"{text[:157]}..."
