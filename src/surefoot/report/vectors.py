"""The page of a folder of vectors: what its cloud looks like, in numbers and on a map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from surefoot.embed.geometry import Geometry, principal_map
from surefoot.files import write_text
from surefoot.report.html import Section, element, joined, page, paragraph, table
from surefoot.report.plot import Axis, figure, mark, place, plane, shape, ticks
from surefoot.report.style import STYLE

#: Points on the map: more hide each other, and each brings its text to the page.
POINTS = 1000


def geometry_rows(found: Geometry) -> list[tuple[str, str, str]]:
    """(quantity, value, what to make of it)."""
    rows = [
        ("isotropy (IsoScore*)", f"{found.isotropy:.3f}", "0 to 1; 1 where every direction varies alike"),
        (
            "effective rank",
            f"{found.effective_rank:.1f}",
            f"directions that carry the variance, of {min(found.dim, found.vectors - 1)}",
        ),
        ("mean cosine", f"{found.mean_cosine:.3f}", "of two texts at random; near 1 where all lie in a narrow cone"),
        ("uniformity", f"{found.uniformity:.2f}", "at most 0; the lower, the better they cover the sphere"),
        ("hubness", f"{found.hubness:.2f}", f"skewness of who is among the {found.k} nearest; above 1 there are hubs"),
    ]
    if found.alignment is not None:
        rows.insert(4, ("alignment", f"{found.alignment:.3f}", "mean squared distance of pairs; the lower the better"))
    return rows


def write_vectors_report(
    folder: str | Path, found: Geometry, vectors: np.ndarray, texts: Sequence[str], facts: Mapping[str, Any]
) -> Path:
    """Write report.html into the folder: the numbers, and the first 1,000 of the vectors (N, D) on two principal
    directions, each with its text where the page is pointed at."""
    places, share = principal_map(vectors)
    caption = f"The two directions of most variance, which hold {share:.0%} of it: {min(len(places), POINTS):,} texts."
    chart = figure(_map(places[:POINTS], texts), caption)
    numbers = table("Geometry", ("quantity", "value", "what it says"), geometry_rows(found))
    words = f"{found.vectors:,} vectors of {found.dim} numbers, drawn from {int(facts.get('rows', found.vectors)):,}."
    sections = [
        Section("geometry", "Geometry", "What the cloud looks like", [paragraph(words), numbers]),
        Section("map", "Map", "A map of it", [chart]),
    ]
    model, pooling = facts.get("model", "a model"), facts.get("pooling", "")
    header = element(
        "header",
        joined(
            [
                paragraph("surefoot", class_="brand"),
                element("h1", f"Vectors of {model}"),
                paragraph(f"pooling {pooling}, {facts.get('dtype', 'float32')}", class_="facts"),
            ]
        ),
    )
    path = Path(folder) / "report.html"
    write_text(path, page(f"Vectors of {model}", header, sections, style=STYLE))
    return path


def _map(places: np.ndarray, texts: Sequence[str]) -> Any:
    axes = []
    for column in places.T:
        low, high = float(column.min()), float(column.max())
        room = 0.03 * (high - low) or 1.0
        axes.append(Axis(low - room, high + room))
    across, up = axes
    marks = [
        place(across.at(x), 100 - up.at(y), mark(text, [shape(0)], "c0"))
        for (x, y), text in zip(places, texts, strict=False)
    ]
    return plane(
        "Texts on the two principal directions",
        across,
        up,
        marks,
        x_ticks=[(each, f"{each:g}") for each in ticks(across.low, across.high)],
        y_ticks=[(each, f"{each:g}") for each in ticks(up.low, up.high)],
        x_name="first direction",
        y_name="second direction",
    )
