"""Figures of an embedding's page: a metric in words, what to expect of it without ratings, and what tuning did to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from surefoot.report.blend import curves
from surefoot.report.html import Reading, Section, decimals, finite, mapping, paragraph, reading, table
from surefoot.report.names import called, set_name
from surefoot.report.plot import SERIES, figure
from surefoot.report.rows import Dot, dots

#: Bounds of a metric: a rank correlation can be negative.
BOUNDS = (-1.0, 1.0)
#: Quantities of a cloud in print, and what each says.
GEOMETRY = {
    "isotropy": ("isotropy (IsoScore*)", "0 to 1; 1 where every direction varies alike"),
    "effective_rank": ("effective rank", "directions that carry the variance"),
    "mean_cosine": ("mean cosine", "of two texts at random; near 1 where all lie in a narrow cone"),
    "uniformity": ("uniformity", "at most 0; the lower, the better they cover the sphere"),
    "hubness": ("hubness", "above 1 a few texts are neighbours of everything"),
}


def points(of: Reading | None) -> str:
    """A metric times a hundred: `62.0 [58.1, 65.7]`."""
    if of is None:
        return ""
    ends = "" if of.low is None or of.high is None else f" [{100 * of.low:.1f}, {100 * of.high:.1f}]"
    return f"{100 * of.value:.1f}{ends}"


def metric_of(of: Any, *, bounds: tuple[float, float] | None = BOUNDS) -> Reading | None:
    """The reading of a metric, its interval cut where no metric can be; None without a value."""
    return reading(of, bounds=bounds)


def metric_name(each: Mapping[str, Any]) -> str:
    """The metric of a set in print."""
    return {"spearman": "Spearman", "ndcg@10": "nDCG@10"}.get(str(each.get("metric")), str(each.get("metric", "")))


def forecasts_section(targets: Mapping[str, Any], metrics: Mapping[str, Any]) -> Section:
    heading = ("forecasts", "Forecast", "What to expect without ratings")
    chart: dict[str, list[Dot]] = {}
    said: list[object] = []
    for name, target in targets.items():
        seen = mapping(mapping(target).get("forecast"))
        tested = mapping(metrics.get(name))
        expected, truth = metric_of(seen), metric_of(tested) if tested.get("metric") == "spearman" else None
        if expected is None:
            said.append(paragraph(f"On {name}: {seen.get('note') or 'no forecast'}.", class_="verdict doubt"))
            continue
        chart[name] = [Dot("forecast", expected, 0, "own")]
        chart[name] += [Dot("truth", truth, 1, "base")] if truth is not None else []
        said.append(paragraph(f"On {name}, expect {points(expected)}, by {called(seen.get('method'))}."))
        said += [paragraph(str(seen["note"]), class_="verdict doubt")] if seen.get("note") else []
    if not chart:
        return Section(*heading, said)
    drawn = dots("Forecast correlation", chart, say=points, words=lambda v: f"{100 * v:.0f}", bounds=BOUNDS)
    words = "Spearman's correlation that the members' agreement in rank foretells, times 100."
    return Section(*heading, [figure(drawn, words), *said])


def way_section(why: Mapping[str, Any]) -> Section:
    heading = ("path", "Interpolation", "On the way from the start to the answer")
    facts = mapping(why.get("path"))
    alphas = [finite(each) for each in facts.get("alphas") or []]
    sets = [mapping(each) for each in mapping(facts.get("sets")).values()]
    if any(each.get("kind") == "test" for each in sets):
        sets = [each for each in sets if each.get("kind") != "judge"]
    lines = []
    for each in sets:
        values = zip(alphas, each.get("values") or [], strict=False)
        known = [(x, y) for x, value in values if x is not None and (y := finite(value)) is not None]
        if len(known) > 1:
            lines.append((f"{set_name(each)}, {metric_name(each)}", known))
    if not lines:
        return Section(*heading, [])
    drawn = curves(
        "The metric on the way from the start to the answer", lines[:SERIES], y_name="metric", unit="", bounds=BOUNDS
    )
    words = (
        "Each mark is a model whose weights lie between the start and the answer, as WiSE-FT mixes them: what is gained "
        "at home, and what is lost elsewhere, on the way. Test sets by a sample where they are large."
    )
    if len(lines) > SERIES:
        words += f" Drawn are {SERIES} of {len(lines)} sets."
    return Section(*heading, [figure(drawn, words)])


def geometry_section(models: Mapping[str, Any]) -> Section:
    heading = ("geometry", "Geometry", "What tuning did to the cloud of vectors")
    shown = {name: mapping(each) for name, each in models.items() if each}
    if not shown:
        return Section(*heading, [])
    rows = [
        (words, *(decimals(each.get(key)) for each in shown.values()), meaning)
        for key, (words, meaning) in GEOMETRY.items()
    ]
    count = max(int(finite(each.get("vectors")) or 0) for each in shown.values())
    columns = ("quantity", *(called(name) for name in shown), "what it says")
    return Section(*heading, [table(f"Geometry of the vectors of {count:,} texts", columns, rows)])
