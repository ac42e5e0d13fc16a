"""What undoing its sentence training does to MiniLM, on all pairs of `sts` (SemEval 2012 to 2014).

    python benchmarks/undone.py [--store FOLDER]     # SUREFOOT_DATA names the folder with sts.parquet

Spearman's rho of cosines with people's ratings by year, over the pairs of all its subsets together, and the mean over
years; and what the embeddings are like (`surefoot/evidence/geometry.py`). For the model as it is, and for the start of the
arms of the track `sts`, which is made if the store has none. Writes benchmarks/results/undone.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from surefoot import load
from surefoot.assets import cache_folder
from surefoot.data.tasks.stored import stored
from surefoot.environment import environment
from surefoot.evidence.geometry import geometry
from surefoot.evidence.reading import embed
from surefoot.evidence.tracks.sts import rho
from surefoot.evidence.undone import undone
from surefoot.files import write_json
from surefoot.models.model import Model

RESULTS = Path(__file__).parent / "results" / "undone.json"
#: Pairs that the geometry is taken of: it compares all sentences with each other.
PAIRS = 1000


def measured(model: Model, pairs: pd.DataFrame) -> dict[str, Any]:
    """rho by year, their mean, and the geometry."""
    place = {text: row for row, text in enumerate(dict.fromkeys([*pairs["sentence1"], *pairs["sentence2"]]))}
    vectors = embed(model, list(place))
    first, second = (vectors[[place[text] for text in pairs[name]]] for name in ("sentence1", "sentence2"))
    cosines, rated = (first * second).sum(1), pairs["score"].astype(float).to_numpy()
    years = {
        str(year): rho(cosines[where], rated[where])
        for year in sorted(set(pairs["year"]))
        for where in [(pairs["year"] == year).to_numpy()]
    }
    drawn = np.random.default_rng(0).permutation(len(pairs))[:PAIRS]
    found = geometry(first[drawn], second[drawn], rated[drawn])
    return {"years": years, "spearman": float(np.mean(list(years.values()))), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=cache_folder() / "bench" / "shared")
    store = parser.parse_args().store
    pairs = pd.read_parquet(stored("sts"))
    pairs = pairs[pairs["subset"].str.endswith(".test")].reset_index(drop=True)
    folders = {"minilm": "minilm", "undone": undone(store)}
    found = {name: measured(load(folder, max_length=64), pairs) for name, folder in folders.items()}
    write_json(RESULTS, {"pairs": len(pairs), **found, "environment": environment()})
    table = Table("figure", *found)
    for name in ("spearman", "pair_alignment", "sentence_uniformity", "sentence_isotropy", "effective_rank"):
        table.add_row(name, *(f"{each[name]:.3f}" for each in found.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
