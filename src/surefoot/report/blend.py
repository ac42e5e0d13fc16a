"""The way from the start to the answer, and what the answer is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from surefoot.report.html import (
    Markup,
    Reading,
    Section,
    decimals,
    element,
    finite,
    joined,
    mapping,
    paragraph,
    percent,
    reading,
    several,
    signed,
    table,
)
from surefoot.report.names import called, set_name, trial_name
from surefoot.report.plot import SERIES, Axis, around, figure, legend, mark, path, place, plane, shape, ticks
from surefoot.report.rows import Dot, dots, score

#: Lines of the curve, and members of a soup that are drawn.
LINES, MEMBERS = SERIES, 16


def path_section(why: Mapping[str, Any]) -> Section:
    """Accuracy at alpha = 0 ... 1 on the straight line between the weights."""
    facts = mapping(why.get("path"))
    alphas = [finite(each) for each in _list(facts.get("alphas"))]
    sets = [mapping(each) for each in mapping(facts.get("sets")).values()]
    shown = (
        [each for each in sets if each.get("kind") != "judge"] if any(s.get("kind") == "test" for s in sets) else sets
    )
    lines = [(set_name(each), _points(alphas, each)) for each in shown[:LINES]]
    lines = [(name, points) for name, points in lines if len(points) > 1]
    heading = ("path", "Interpolation", "On the way from the start to the answer")
    if not lines:
        return Section(*heading, [])
    drawn = curves("Accuracy on the way from the start to the answer", lines, y_name="accuracy", unit="%")
    caption = _path_words(lines, str(facts.get("start", "")), shown)
    return Section(*heading, [paragraph(_verdict(shown, alphas)), figure(drawn, caption)])


def curves(
    title: str,
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    *,
    y_name: str,
    unit: str,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Markup:
    """A line for each set over the share of the way, with a legend that gives its ends; points (share, value).

    unit: what stands behind a hundred times a value. bounds: of values.
    """

    def say(value: float, digits: int = 1) -> str:
        return f"{100 * value:.{digits}f}{unit}"

    low, high = around([y for _, points in lines for _, y in points], least=0.08, bounds=bounds)
    across, up = Axis(0.0, 1.0, 3, 97), Axis(low, high, 4, 96)
    parts: list[object] = []
    for number, (name, points) in enumerate(lines):
        at = [(across.at(x), 100 - up.at(y)) for x, y in points]
        parts.append(element("g", joined(path(at, "thread")), class_=f"c{number}"))
        for (x, y), (left, top) in zip(points, at, strict=True):
            words = f"{name}: {say(y)} at {100 * x:.0f}% of the way"
            parts.append(mark(words, [place(left, top, shape(number))], f"c{number}", data_alpha=x, data_domain=name))
    drawn = plane(
        title,
        across,
        up,
        parts,
        x_ticks=[(0.0, "start"), (0.25, "25%"), (0.5, "50%"), (0.75, "75%"), (1.0, "answer")],
        y_ticks=[(tick, say(tick, 0)) for tick in ticks(low, high)],
        x_name="share of the way from the start's weights to the answer's",
        y_name=y_name,
    )
    series = [
        (joined([element("bdi", name), element("small", f" {say(points[0][1])} → {say(points[-1][1])}")]), f"c{n}", n)
        for n, (name, points) in enumerate(lines)
    ]
    return joined([legend(series), drawn])


def _points(alphas: Sequence[float | None], each: Mapping[str, Any]) -> list[tuple[float, float]]:
    pairs = zip(alphas, _list(each.get("accuracy")), strict=False)
    return [(x, y) for x, value in pairs if x is not None and (y := finite(value)) is not None]


def _verdict(shown: Sequence[Mapping[str, Any]], alphas: Sequence[float | None]) -> str:
    """Where a model in between is better than the answer by more than chance explains, or that none is."""
    better = []
    for each in shown:
        gains = [
            (found, alpha)
            for alpha, one in zip(alphas, _list(each.get("above the answer")), strict=False)
            if alpha is not None and (found := reading(one, bounds=None)) and found.low is not None and found.low > 0
        ]
        if gains:
            gain, alpha = max(gains)
            better.append(f"{set_name(each)} ({signed(gain, scale=100, digits=1)} points at {100 * alpha:.0f}%)")
    if not better:
        return "On none of these sets is a model in between better than the answer by more than chance explains."
    return (
        f"A model in between is better by more than chance explains on {several(better)}: for that domain the answer has "
        "gone too far. The best of several points flatters."
    )


def _path_words(lines: Sequence[Any], start: str, shown: Sequence[Mapping[str, Any]]) -> str:
    words = f"Each mark is a model whose weights lie between the start ({called(start)}) and the answer, as WiSE-FT mixes them, with the calibration it would be shipped with."
    if any(points[0][0] > 0 for _, points in lines):
        words += " At the start itself a head of zeros decides nothing, so there is no mark."
    sizes = [int(size) for each in shown if each.get("kind") == "test" and (size := finite(each.get("examples")))]
    return words + (f" Test sets by {min(sizes):,} of their examples each." if sizes else "")


def members_section(why: Mapping[str, Any], answer: Mapping[str, Any]) -> Section:
    """The members of the soup beside the soup."""
    heading = ("members", "Ingredients", "What it is made of")
    rows = [mapping(each) for each in _list(why.get("members"))]
    scored = [(each, value) for each in rows if (value := finite(each.get("score"))) is not None]
    if not scored:
        return Section(*heading, [])
    soup, share = len(scored) > 1, finite(answer.get("share"))
    whole, value = scored[-1]
    if not soup:
        words = f"The answer is {trial_name(whole.get('name'))} alone; no average of trials was chosen."
        return Section(*heading, [paragraph(words), _table(rows)])
    parts = scored[:-1]
    beaten = sum(value < other for _, other in parts)
    kept = f", {percent(share)} of the way from their start" if share is not None and share < 1 else ""
    words = (
        f"The answer averages the weights of {len(parts)} trials{kept}. By the score that chose it, it is better than "
        f"{beaten} of its {len(parts)} members{'' if beaten == len(parts) else '; an average is steadier than the one that happened to score best'}."
    )
    chart = [Dot(trial_name(each.get("name")), Reading(value), 1, "base") for each, value in parts[:MEMBERS]] + [
        Dot(f"the average: {whole.get('name')}", Reading(value), 0, "own")
    ]
    drawn = dots(
        "Scores of the members and their average",
        {"": chart},
        say=score,
        words=lambda v: f"{v:.2f}",
        bounds=None,
        least=0.02,
    )
    caption = "Score: log-loss on the judge and at home by the rule of the search; lower is better. The same examples chose the members, so all of these flatter."
    return Section(*heading, [paragraph(words), figure(drawn, caption), _table(rows)])


def _table(rows: Sequence[Mapping[str, Any]]) -> Markup:
    domains = list(dict.fromkeys(name for each in rows for name in mapping(each.get("judge"))))
    cells = [
        (
            trial_name(each.get("name")),
            decimals(each.get("score"), 4),
            percent(each.get("home")),
            *(percent(mapping(each.get("judge")).get(name)) for name in domains),
        )
        for each in rows
    ]
    columns = ("model", "score", "home, held out", *(f"{name} (judge)" for name in domains))
    return table("Accuracy of members and answer, each calibrated as it would be shipped", columns, cells)


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []
