"""`surefoot words`: static vectors of words, trained on texts; what is near a word; texts as vectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surefoot.cli.app import command
from surefoot.cli.options import Json, Threads

if TYPE_CHECKING:
    from surefoot.data.examples import Examples

ACTIONS = ("train", "similar", "encode")


@command("words")
def words(
    action: Annotated[str, typer.Argument(help="train, similar or encode.", metavar="ACTION")],
    input: Annotated[
        str | None,
        typer.Option(help="train, encode: texts, a file with a column text (and label, for wespad).", metavar="FILE"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="train: folder to write. encode: parquet file to write.", metavar="PATH")
    ] = None,
    method: Annotated[
        str, typer.Option(help="train: which; `surefoot methods --kind word_vectors` lists them.")
    ] = "skipgram",
    option: Annotated[
        list[str], typer.Option(help="train: an option of the method: size=200.", metavar="NAME=VALUE")
    ] = [],  # noqa: B006 - typer reads it
    vectors: Annotated[
        Path | None, typer.Option(help="similar, encode: folder that `train` wrote.", metavar="FOLDER")
    ] = None,
    word: Annotated[list[str], typer.Option(help="similar: a word; repeat for several.")] = [],  # noqa: B006 - typer reads it
    k: Annotated[int, typer.Option(help="similar: how many words to show.", min=1)] = 10,
    column: Annotated[list[str], typer.Option(help="Rename a column: body=text.", metavar="COLUMN=ROLE")] = [],  # noqa: B006 - typer reads it
    seed: Annotated[int, typer.Option(help="train: of all that is drawn.", min=0)] = 0,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Train static vectors on your own texts, in seconds and without a model; look at them; use them.

    `train` writes a folder: safetensors, the vocabulary as JSON, and word2vec.bin, which gensim's KeyedVectors opens. The
    same texts, seed and threads give the same bytes. `similar` shows the words nearest to a word, `encode` writes one
    vector a text (columns id, embedding).

    Example: surefoot words train --method skipgram --input corpus.parquet --out vectors/
    then surefoot words similar --vectors vectors/ --word engine
    """
    from surefoot.cli.inputs import use_threads
    from surefoot.errors import SurefootError, nearest

    use_threads(threads)
    if action not in ACTIONS:
        raise SurefootError(f"unknown action `{action}` of `surefoot words`: {nearest(action, ACTIONS)}")
    if action == "train":
        _train(_given("input", input), _given("out", out), method, option, column, seed, json)
    elif action == "similar":
        _similar(_given("vectors", vectors), word, k, json)
    else:
        _encode(_given("vectors", vectors), _given("input", input), _given("out", out), column, json)


def _given(name: str, value: Any) -> Any:
    from surefoot.errors import SurefootError

    if value is None:
        raise SurefootError(f"--{name} is missing: `surefoot words --help` shows an example")
    return value


def _texts(source: str, column: list[str], *, labels: bool) -> Examples:
    from surefoot.cli.inputs import parse_columns
    from surefoot.data.load import load_data
    from surefoot.errors import DataError

    examples = load_data(source, columns=parse_columns(column), require_labels=labels)
    if examples.modality != "text":
        raise DataError(f"{examples.source}: words are learned from texts; give a column `text`")
    return examples


def _train(source: str, out: Path, method: str, option: list[str], column: list[str], seed: int, json: bool) -> None:
    from surefoot.cli.inputs import parse_options
    from surefoot.cli.show import Bars, print_json
    from surefoot.cli.show import out as show
    from surefoot.embed.word_vectors import METHOD, WORD2VEC, WordVectors
    from surefoot.errors import RunError
    from surefoot.tune.build import build

    found: WordVectors = build("word_vectors", {"name": method, **parse_options(option)})
    if out.is_dir() and any(out.iterdir()) and not (out / METHOD).is_file():
        raise RunError(f"{out}: holds something else than word vectors; choose another folder")
    examples = _texts(source, column, labels=found.supervised)
    with Bars() as bars:
        found.fit(examples.inputs, labels=examples.labels, seed=seed, progress=bars)
    found.save(out, name=method)
    size, count = found.vectors_.shape[1], len(found.vocabulary)
    if json:
        print_json({"method": method, "words": count, "size": size, "texts": len(examples), "out": str(out)})
        return
    show(f"{method}: {count:,} words of {len(examples):,} texts, {size} numbers each, in {out}")
    show(f"gensim opens {out / WORD2VEC}: KeyedVectors.load_word2vec_format(path, binary=True)")


def _similar(folder: Path, asked: list[str], k: int, json: bool) -> None:
    from rich.table import Table

    from surefoot.cli.show import out, print_json
    from surefoot.embed.word_vectors import open_words

    vectors = open_words(folder)
    found = {each: vectors.similar(each, k=k) for each in asked or vectors.vocabulary.words[:5]}
    if json:
        print_json({word: [{"word": near, "cosine": cosine} for near, cosine in each] for word, each in found.items()})
        return
    table = Table("word", "nearest, with their cosines")
    for word, each in found.items():
        table.add_row(word, ", ".join(f"{near} {cosine:.2f}" for near, cosine in each))
    out(table)


def _encode(folder: Path, source: str, out: Path, column: list[str], json: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from surefoot.cli.show import out as show
    from surefoot.cli.show import print_json
    from surefoot.embed.word_vectors import open_words
    from surefoot.files import atomic_write

    vectors = open_words(folder)
    examples = _texts(source, column, labels=False)
    encoded = vectors.encode(examples.inputs)
    names = [str(each) for each in (range(len(encoded)) if examples.ids is None else examples.ids)]
    with atomic_write(out) as partial:
        pq.write_table(pa.table({"id": names, "embedding": list(encoded)}), partial)
    empty = int((~encoded.any(1)).sum())
    if json:
        print_json({"texts": len(encoded), "size": encoded.shape[1], "unknown": empty, "out": str(out)})
        return
    show(f"{len(encoded):,} texts, {encoded.shape[1]} numbers each, in {out}; {empty:,} without a known word")
