"""The geometry of vectors that were written, beside the texts that they are of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from surefoot.embed.corpus import Corpus
from surefoot.embed.geometry import MOST, Geometry, describe_geometry
from surefoot.embed.shards import MARK, read_vectors
from surefoot.errors import RunError
from surefoot.report.vectors import write_vectors_report

#: Neighbours by which hubness is counted, and so one less than the fewest vectors that are a cloud.
NEIGHBOURS = 10


def check_explainable(rows: int, quantization: str | None, place: str | Path) -> None:
    """Refuse, with a RunError, what `explain_vectors` could say nothing of: better before a long job than after it."""
    if quantization:
        raise RunError(
            f"{place}: {quantization} codes, whose geometry is not that of the model: leave out --quantize or --explain"
        )
    if rows <= NEIGHBOURS:
        raise RunError(
            f"{place}: {rows} vectors, and what a cloud of them looks like is told of {NEIGHBOURS + 1} or more; leave --explain out"
        )


def explain_vectors(folder: str | Path, corpus: Corpus, *, seed: int = 0) -> tuple[Geometry, Path]:
    """The geometry of the vectors of a folder, and the page that was written there.

    At most 4,000 of the rows in the first shards that hold 20,000 are looked at, drawn with `seed`. Raises RunError
    for quantized vectors, whose distances are not those of the model, and for fewer than eleven.
    """
    facts = json.loads((Path(folder) / MARK).read_text("utf8"))
    check_explainable(corpus.rows, facts.get("quantize"), folder)
    _, vectors = read_vectors(folder, most=5 * MOST)
    rows = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:MOST])
    wanted, texts, first = set(rows.tolist()), [], 0
    for window in corpus.windows(facts["shard_rows"]):
        texts += [text for place, text in enumerate(window.texts, start=first) if place in wanted]
        first += len(window.texts)
        if first > rows[-1]:
            break
    found = describe_geometry(vectors[rows], k=NEIGHBOURS, seed=seed)
    # In random order, so that the page's first thousand are not the corpus's first.
    order = np.random.default_rng([seed, 1]).permutation(len(rows))
    path = write_vectors_report(folder, found, vectors[rows][order], [texts[i] for i in order], facts)
    return found, path
