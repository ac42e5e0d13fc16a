"""A whole search on a two-layer BERT in a second or two."""

from __future__ import annotations

import surefoot
from conftest import sentences
from surefoot.data.examples import Examples
from surefoot.models.load import load


def examples(count: int, seed: int, *, labelled: bool = True) -> Examples:
    texts, labels = sentences(count, seed)
    return Examples(texts, labels if labelled else None, ("bad", "good"), source=f"set {seed}")


def search(model: object, out: object = None, **changes: object):  # type: ignore[no-untyped-def]
    """Eight trials, of which two are drawn."""
    options = {"trials": 8, "epochs": 2, "batch_size": 16, "layers": (1, 2), "startup": 0, "seed": 3} | changes
    return surefoot.tune(
        load(model) if isinstance(model, str) else model,
        examples(90, 3),
        judge={"shop": examples(40, 4), "news": examples(40, 5)},
        unlabelled={"short": examples(60, 6, labelled=False)},
        tests={"short": examples(60, 6)},
        out=out,
        **options,
    )
