"""One encoder of many sizes: quality against speed of every depth and width, by four ways to train it and a sparse code.

    python benchmarks/matryoshka.py --store FOLDER [--seeds 3]     # SUREFOOT_DATA names the folder with sts.parquet; resumes

MiniLM with its sentence training undone learns from 4,096 unlabelled sentences, each its own positive, by InfoNCE alone,
by Matryoshka, by 2D Matryoshka and by Starbucks, at the settings of the track `sts` and each method's own defaults. Every
model is cut to each of its six layers and to 384, 192, 96, 48 and 24 numbers, and scored by Spearman's rho on at most 200
pairs of every subset of SemEval's STS, mean over years. CSR learns 24 active units on the vectors of the plain model's
whole depth. Speed is sentences a processor second of each depth, one thread, relative to the whole. Products
in bfloat16 where the processor has it. Writes benchmarks/results/matryoshka.json and docs/assets/matryoshka.svg.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from surefoot import Recipe, load
from surefoot.data.examples import Examples
from surefoot.embed import Encoder
from surefoot.embed.codes.csr import CSR
from surefoot.embed.geometry import unit_length
from surefoot.environment import environment
from surefoot.evidence.sentences import drawn
from surefoot.evidence.tracks.sts import RECIPE, TRACK, rho
from surefoot.evidence.undone import undone
from surefoot.files import atomic_write, write_json
from surefoot.models.model import Model
from surefoot.models.shallow import first_layers

RESULTS = Path(__file__).parent / "results" / "matryoshka.json"
CHART = Path(__file__).parents[1] / "docs" / "assets" / "matryoshka.svg"
METHODS = ("infonce", "matryoshka", "matryoshka_2d", "starbucks")
WIDTHS = (384, 192, 96, 48, 24)
SENTENCES, ACTIVE = 4096, 24
#: Of every subset.
PAIRS = 200
#: Okabe and Ito's colours, that the colour-blind tell apart.
COLOURS = {"infonce": "#767676", "matryoshka": "#c04f00", "matryoshka_2d": "#0068a8", "starbucks": "#00695c"}


def measure(seed: int, store: Path) -> dict[str, Any]:
    """rho by method, depth and width, and of the sparse code."""
    found: dict[str, Any] = {}
    texts = drawn(SENTENCES, seed=seed)
    for name in METHODS:
        model = trained(name, texts, seed, store)
        found[name] = {
            str(depth): {str(width): score for width, score in scores(model, depth).items()}
            for depth in range(1, len(model.layers) + 1)
        }
        if name == "infonce":
            found["csr"] = coded(model, texts, seed)
    return found


def trained(name: str, texts: list[str], seed: int, store: Path) -> Model:
    """The undone MiniLM after one pass over the sentences."""
    train = Examples(texts, None, (), positive=np.array(texts, dtype=object), source="sentences")
    recipe = Recipe(**{**RECIPE, "objectives": {name: 1.0}})
    return recipe.fit(load(undone(store), max_length=64), train, seed=seed).model


def scores(model: Model, depth: int) -> dict[int, float]:
    """rho at every width, from one pass of the first `depth` layers."""
    vectors = Encoder(first_layers(model, depth), dtype="auto").encode(_texts())
    return {width: _rho(vectors[:, :width]) for width in WIDTHS}


def coded(model: Model, texts: list[str], seed: int) -> float:
    """rho of the plain model's vectors as 24 active units."""
    encoder = Encoder(model, dtype="auto")
    code = CSR(k=ACTIVE).fit(encoder.encode(texts), seed=seed)
    return _rho(np.asarray(code.encode(encoder.encode(_texts())).todense()))


def speeds(store: Path, rounds: int = 5) -> dict[str, float]:
    """Sentences a processor second of each depth over the whole's, median over rounds taken in turn."""
    model, texts = load(undone(store), max_length=64), _texts()[:1000]
    encoders = {depth: Encoder(first_layers(model, depth), dtype="auto") for depth in range(1, len(model.layers) + 1)}
    seconds: dict[int, list[float]] = {depth: [] for depth in encoders}
    for _ in range(rounds):
        for depth, encoder in encoders.items():
            begin = time.process_time()
            encoder.encode(texts)
            seconds[depth].append(time.process_time() - begin)
    whole = seconds[len(model.layers)]
    return {
        str(depth): float(np.median([all_ / each for all_, each in zip(whole, taken, strict=True)]))
        for depth, taken in seconds.items()
    }


@cache
def _pairs() -> pd.DataFrame:
    """At most 200 pairs of every subset that is a test."""
    rated = TRACK.rated[TRACK.rated["subset"].str.endswith(".test")]
    return rated.sample(frac=1, random_state=0).groupby(["year", "subset"]).head(PAIRS).reset_index(drop=True)


def _texts() -> list[str]:
    return list(dict.fromkeys([*_pairs()["sentence1"], *_pairs()["sentence2"]]))


def _rho(vectors: np.ndarray) -> float:
    """Mean over years of Spearman's rho over the tests of each."""
    unit, pairs = unit_length(vectors), _pairs()
    place = {text: row for row, text in enumerate(_texts())}
    first, second = (unit[[place[text] for text in pairs[name]]] for name in ("sentence1", "sentence2"))
    cosine, ratings = (first * second).sum(1), pairs["score"].astype(float).to_numpy()
    years = pairs["year"].to_numpy()
    return 100 * float(np.mean([rho(cosine[years == year], ratings[years == year]) for year in sorted(set(years))]))


def chart(found: dict[str, Any]) -> str:
    """Quality against speed: a line a method and width, its points the depths; wide vectors thick, narrow ones thin."""
    left, right, top, bottom = 60, 520, 40, 330
    rows = {
        (name, width): [
            (found["speed"][depth], float(np.mean([seed[name][depth][str(width)] for seed in found["seeds"].values()])))
            for depth in found["speed"]
        ]
        for name in METHODS
        for width in WIDTHS
    }
    every = [y for points in rows.values() for _, y in points]
    low, high = 5 * np.floor(min(every) / 5), 5 * np.ceil(max(every) / 5)
    fastest = max(found["speed"].values())

    def at(x: float, y: float) -> str:
        return f"{left + (x - 1) / (fastest - 1) * (right - left):.1f},{bottom - (y - low) / (high - low) * (bottom - top):.1f}"

    parts = [f'<text x="{left}" y="24" font-weight="650">STS by speed: every depth and width of one encoder</text>']
    for y in np.arange(low, high + 1, 5):
        x1, y1 = at(1, y).split(",")
        parts.append(
            f'<line x1="{x1}" x2="{right}" y1="{y1}" y2="{y1}" stroke="#d9dee0"/><text x="52" y="{y1}" text-anchor="end" dominant-baseline="central" font-size="12">{y:.0f}</text>'
        )
    for x in range(1, int(fastest) + 1):
        px = at(x, low).split(",")[0]
        parts.append(f'<text x="{px}" y="{bottom + 18}" text-anchor="middle" font-size="12">{x}x</text>')
    for (name, width), points in rows.items():
        stroke = 0.6 + 2.4 * WIDTHS[::-1].index(width) / (len(WIDTHS) - 1)
        title = escape(f"{name}, {width} numbers: " + "; ".join(f"{y:.1f} at {x:.1f}x" for x, y in points))
        drawn_points = " ".join(at(x, y) for x, y in points)
        parts.append(
            f'<polyline points="{drawn_points}" fill="none" stroke="{COLOURS[name]}" stroke-width="{stroke:.1f}"><title>{title}</title></polyline>'
        )
    x, y = at(1, float(np.mean([seed["csr"] for seed in found["seeds"].values()]))).split(",")
    title = f"<title>CSR: {ACTIVE} active units of the whole plain model</title>"
    parts.append(f'<circle cx="{x}" cy="{y}" r="5" fill="#222">{title}</circle>')
    parts.append(f'<text x="{left + 430}" y="{bottom + 44}" font-size="13" fill="#222">● CSR, {ACTIVE}</text>')
    for number, (name, colour) in enumerate(COLOURS.items()):
        parts.append(f'<text x="{left + 108 * number}" y="{bottom + 44}" font-size="13" fill="{colour}">{name}</text>')
    parts.append(
        f'<text x="{left}" y="{bottom + 64}" font-size="12">thick lines: 384 numbers, thin ones 24; points from right to left: 1 to 6 layers</text>'
    )
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 560 410" font-family="system-ui, sans-serif"><rect width="560" height="410" fill="#fff" rx="10"/>{"".join(parts)}</svg>\n'


def show(found: dict[str, Any]) -> None:
    table = Table("method", "layers", *map(str, WIDTHS))
    for name in METHODS:
        for depth in found["speed"]:
            means = [np.mean([seed[name][depth][str(width)] for seed in found["seeds"].values()]) for width in WIDTHS]
            table.add_row(name, depth, *(f"{mean:.1f}" for mean in means))
    Console().print(table)
    Console().print(f"CSR, {ACTIVE} active units: {np.mean([seed['csr'] for seed in found['seeds'].values()]):.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = json.loads(RESULTS.read_text("utf8")) if RESULTS.exists() else {"seeds": {}}
    for seed in range(arguments.seeds):
        if str(seed) not in found["seeds"]:
            found["seeds"][str(seed)] = measure(seed, arguments.store)
            write_json(RESULTS, found)
    found |= {"speed": found.get("speed") or speeds(arguments.store), "environment": environment()}
    write_json(RESULTS, found)
    with atomic_write(CHART) as temporary:
        Path(temporary).write_text(chart(found), "utf8")
    show(found)


if __name__ == "__main__":
    main()
