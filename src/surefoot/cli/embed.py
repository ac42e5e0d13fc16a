"""`surefoot embed`: a file of texts to a folder of vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from surefoot.cli.app import command
from surefoot.cli.options import Device, Json, Threads


@command("embed")
def embed(
    model: Annotated[str, typer.Option(help="minilm, a run, a folder or a Hugging Face name.")],
    input: Annotated[
        Path,
        typer.Option(
            help="The texts: .parquet, .csv, .tsv or .jsonl with a column `text` and, if there, `id`; .txt, one a line.",
            metavar="FILE",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder of the vectors; goes on where it was.", metavar="FOLDER")],
    pooling: Annotated[
        str | None,
        typer.Option(help="How tokens become a vector: `surefoot methods --kind pooling`; by default the model's own."),
    ] = None,
    pooling_option: Annotated[
        list[str], typer.Option(help="An option of the pooling: tokens=last.", metavar="NAME=VALUE")
    ] = [],  # noqa: B006 - typer reads it
    column: Annotated[list[str], typer.Option(help="Rename a column: body=text, key=id.", metavar="COLUMN=ROLE")] = [],  # noqa: B006
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16, int8, or auto: bfloat16 where the processor has it.")
    ] = "float32",
    dim: Annotated[
        int | None,
        typer.Option(help="Keep the first so many numbers and scale them to length one: for Matryoshka models.", min=1),
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(help="Run the first so many layers alone: for models of matryoshka_2d or starbucks.", min=1),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(help="Store a byte (int8, uint8) or a bit (binary, ubinary) for each number."),
    ] = None,
    normalize: Annotated[
        bool | None,
        typer.Option(
            "--normalize/--no-normalize", help="Vectors of length one; by default what the model's folder says."
        ),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Most tokens read of a text; by default what the model reads.", min=1)
    ] = None,
    chunk: Annotated[
        bool, typer.Option("--chunk", help="Read longer texts in pieces and take the mean, instead of cutting them.")
    ] = False,
    backend: Annotated[str, typer.Option(help="What runs the network: torch, onnx or openvino.")] = "torch",
    format: Annotated[str, typer.Option(help="parquet (columns id, embedding) or npy (with ids beside).")] = "parquet",
    shard_rows: Annotated[int, typer.Option(help="Rows of a shard; memory grows with it.", min=1)] = 16384,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="What the cloud of vectors looks like: isotropy, hubness, rank, and a map in report.html."
        ),
    ] = False,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Leave out rows that cannot be embedded, and say how many.")
    ] = False,
    threads: Threads = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Vectors of texts, over files larger than memory.

    Every row is looked at before the first is embedded: empty texts, texts that are not UTF-8 and ids that stand twice
    are named by their rows. Within a shard each distinct text is embedded once, in batches of like length. A killed
    command goes on at the first missing shard when it is given again; a folder of another model is refused.

    --explain prints the geometry of the vectors and draws a map of them, with their texts, into the folder's report.html.

    Examples: surefoot embed --model minilm --input corpus.parquet --output vectors/;
    surefoot embed --model minilm --input notes.csv --column body=text --dtype auto --quantize int8 --output vectors/
    """
    import time

    from surefoot.cli.inputs import parse_columns, parse_options, use_threads
    from surefoot.cli.show import Bars, notes, out, print_json
    from surefoot.embed.corpus import open_corpus
    from surefoot.embed.embed import embed_corpus
    from surefoot.embed.encoder import Encoder
    from surefoot.embed.quantize import check_quantization
    from surefoot.models.load import load
    from surefoot.models.shallow import first_layers

    use_threads(threads)
    check_quantization(quantize)
    options = parse_options(pooling_option, option="--pooling-option")
    pool: Any = {"name": pooling, **options} if pooling and options else pooling
    opened = load(model, max_length=max_length, pool=pool, device=device)
    opened = first_layers(opened, layers) if layers else opened
    encoder = Encoder(
        opened,
        dtype=dtype,  # type: ignore[arg-type]
        dim=dim,
        normalize=normalize,
        max_length=max_length,
        chunk=chunk,
        backend=backend,
    )
    corpus = open_corpus(input, columns=parse_columns(column), skip_invalid=skip_invalid)
    if explain:
        from surefoot.embed.explain import check_explainable, explain_vectors

        check_explainable(corpus.rows, quantize, output)
    with Bars() as bars:
        begin = time.perf_counter()
        found = embed_corpus(
            encoder,
            corpus,
            output,
            quantization=quantize,  # type: ignore[arg-type]
            shard_rows=shard_rows,
            format=format,  # type: ignore[arg-type]
            progress=bars,
        )
        seconds = time.perf_counter() - begin
    geometry = None
    if explain:
        geometry, page = explain_vectors(output, corpus)
    new = found.rows - found.resumed
    rate = new / seconds if new else None
    if json:
        said: dict[str, Any] = {"seconds": round(seconds, 3), "rows_a_second": rate and round(rate, 1)}
        print_json(found.as_json() | said | ({"geometry": geometry.as_json()} if geometry else {}))
        return
    speed = f", {rate:,.0f} a second" if rate else ""
    out(f"{found.rows:,} vectors of {found.width} numbers in {found.folder}{speed}")
    if geometry is not None:
        out("", _geometry_table(geometry), f"map: {page}")
    notes(_said(found, encoder.max_length))


def _geometry_table(geometry: Any) -> Any:
    from rich.table import Table

    from surefoot.report.vectors import geometry_rows

    table = Table(title=f"geometry of {geometry.vectors:,} vectors", title_justify="left")
    for name in ("quantity", "value", "what it says"):
        table.add_column(name, justify="right" if name == "value" else "left", no_wrap=True)
    for row in geometry_rows(geometry):
        table.add_row(*row)
    return table


def _said(found: Any, length: int) -> list[str]:
    """What the user should know."""
    said = []
    if found.resumed:
        said.append(f"{found.resumed:,} of them were there already")
    if found.distinct < found.rows:
        said.append(f"{found.rows - found.distinct:,} rows repeat a text of their shard and were not embedded again")
    if found.truncated:
        said.append(
            f"{found.truncated:,} texts are longer than {length} tokens and were cut there; --chunk reads all of them"
        )
    if found.chunked:
        said.append(f"{found.chunked:,} texts are longer than {length} tokens: their vectors are means over pieces")
    if found.skipped:
        said.append(f"{found.skipped:,} rows could not be embedded and have no vector")
    return said
