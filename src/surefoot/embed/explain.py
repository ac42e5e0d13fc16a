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


def explain_vectors(folder: str | Path, corpus: Corpus, *, seed: int = 0) -> tuple[Geometry, Path]:
    """The geometry of the vectors of a folder, and the page that was written there.

    At most 4,000 of the rows in the first shards that hold 20,000 are looked at, drawn with `seed`. Quantized vectors
    are refused with a RunError: their distances are not those of the model.
    """
    facts = json.loads((Path(folder) / MARK).read_text("utf8"))
    if facts.get("quantize"):
        raise RunError(
            f"{folder} holds {facts['quantize']} codes, whose geometry is not the model's: embed without --quantize"
        )
    _, vectors = read_vectors(folder, most=5 * MOST)
    rows = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:MOST])
    wanted, texts, first = set(rows.tolist()), [], 0
    for window in corpus.windows(facts["shard_rows"]):
        texts += [text for place, text in enumerate(window.texts, start=first) if place in wanted]
        first += len(window.texts)
        if first > rows[-1]:
            break
    found = describe_geometry(vectors[rows], seed=seed)
    # In random order, so that the page's first thousand are not the corpus's first.
    order = np.random.default_rng([seed, 1]).permutation(len(rows))
    path = write_vectors_report(folder, found, vectors[rows][order], [texts[i] for i in order], facts)
    return found, path
