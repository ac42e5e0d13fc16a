"""`surefoot compass`: which embedding to take for one's own documents, and from which cosine on to trust it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from surefoot.cli.app import command
from surefoot.cli.options import Device, Json, Threads

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

    from surefoot.assess.analyses.compass import Bearing


@command("compass")
def compass(
    model: Annotated[
        list[str],
        typer.Option(
            help="minilm, a folder, a name on the hub, or a folder of `surefoot words train`; repeat for several."
        ),
    ],
    data: Annotated[
        str, typer.Option(help="Retrieval set: a folder with corpus, queries and qrels (parquet, CSV, JSONL).")
    ],
    k: Annotated[int, typer.Option(help="A query is right where one of so many nearest documents is.", min=1)] = 5,
    draws: Annotated[int, typer.Option(help="Bootstrap draws of queries, 100 or more.", min=100)] = 1000,
    seed: Annotated[int, typer.Option(help="Of the draws.", min=0)] = 0,
    threads: Threads = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Compare embeddings on your own queries: accuracy with its interval, a threshold for cosines, overlaps, isotropy.

    The threshold is the cosine that tells right documents from random ones best: below it, say that nothing was found. Where
    the cosines of right and of random documents overlap much, no threshold helps. With three models or more, their accuracy
    is correlated with overlaps and isotropy.

    right/random and top/right are the shares that two distributions of cosines have in common.

    Example: surefoot compass --model minilm --model runs/tuned --data cranfield/
    """
    from surefoot.assess.analyses.compass import Compass, related
    from surefoot.assess.similarity import Retrieval, load_similarity
    from surefoot.cli.inputs import use_threads
    from surefoot.cli.show import out, print_json
    from surefoot.errors import DataError

    use_threads(threads)
    held = load_similarity(data)
    if not isinstance(held, Retrieval):
        raise DataError(f"{data}: pairs with ratings; the compass takes a folder with corpus, queries and qrels")
    if len(set(model)) < len(model):
        raise DataError("one model is named twice: name each once")
    keep = [row for row, text in enumerate(held.documents) if text.strip()]
    place = {row: number for number, row in enumerate(keep)}
    wanted = [[place[row] for row in each if row in place] for each in held.relevant]
    asked = [row for row, each in enumerate(wanted) if each]
    queries, documents = [held.queries[row] for row in asked], [held.documents[row] for row in keep]
    analysis, found = Compass(k=k, draws=draws, seed=seed), {}
    for name in model:
        vectors = _encode(name, [queries, documents], device)
        found[name] = analysis(queries=vectors[0], documents=vectors[1], relevant=[wanted[row] for row in asked])
    links = related(found) if len(found) > 2 else None
    if json:
        print_json({"models": {name: asdict(each) for name, each in found.items()}, "correlations": links})
        return
    out(_table(found, k, len(queries), len(documents)))
    for outcome, each in (links or {}).items():
        said = ", ".join(f"{name} {value:+.2f}" for name, value in each.items() if value is not None)
        out(f"rank correlation of {outcome} over {len(found)} models: {said}")


def _encode(name: str, sets: list[list[str]], device: str) -> list[np.ndarray]:
    from pathlib import Path

    from surefoot.embed import Encoder
    from surefoot.embed.word_vectors import METHOD, open_words
    from surefoot.models.load import load

    if (Path(name) / METHOD).is_file():
        words = open_words(name)
        return [words.encode(texts) for texts in sets]
    encoder = Encoder(load(name, device=device))
    return [encoder.encode(texts) for texts in sets]


def _table(found: dict[str, Bearing], k: int, queries: int, documents: int) -> Table:
    from rich.table import Table

    table = Table(
        title=f"{queries:,} queries, {documents:,} documents; kept: right ones at the threshold; passing: random ones",
        title_justify="left",
    )
    table.add_column("model", overflow="fold")
    heads = (
        f"right at {k} [95%]",
        "threshold",
        "kept",
        "passing",
        "right/random",
        "top/right",
        "isotropy",
        "IsoScore*",
    )
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for name, each in found.items():
        table.add_row(
            name,
            f"{100 * each.accuracy:.1f} [{100 * each.low:.1f}, {100 * each.high:.1f}]",
            f"{each.threshold:.3f}",
            f"{100 * each.kept:.0f}%",
            f"{100 * each.passing:.0f}%",
            f"{each.overlap_correct_random:.2f}",
            f"{each.overlap_top_correct:.2f}",
            f"{each.partition_isotropy:.2f}",
            f"{each.isoscore:.2f}",
        )
    return table
