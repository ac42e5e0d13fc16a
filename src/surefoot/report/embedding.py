"""The page of an embedding's search or training: what it is worth on every set, beside the baselines, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from surefoot.files import write_text
from surefoot.report.accuracy import verdict
from surefoot.report.findings import finding_sections
from surefoot.report.history import trials_section
from surefoot.report.html import (
    Markup,
    Section,
    counted,
    details,
    element,
    finite,
    joined,
    listed,
    mapping,
    page,
    paragraph,
    short,
    signed,
    table,
)
from surefoot.report.names import called, set_name, trial_name
from surefoot.report.plot import figure
from surefoot.report.recipe import recipe_section
from surefoot.report.rows import Dot, dots
from surefoot.report.similarity import (
    BOUNDS,
    forecasts_section,
    geometry_section,
    metric_name,
    metric_of,
    points,
    way_section,
)
from surefoot.report.style import STYLE
from surefoot.report.summary import beyond_chance, header, made, tile

#: What the answer is called among the models of a set.
ANSWER = "answer"
HELD = " (helped to choose)"


def is_embedding(found: Mapping[str, Any]) -> bool:
    """Whether what a folder holds is of an embedding: its judge or its test sets have a metric that is not accuracy."""
    if "metric" in mapping(mapping(found.get("answer")).get("judge domains")):
        return True
    return any("metric" in mapping(each) for each in mapping(found.get("metrics")).values())


def write_embedding_report(
    path: str | Path,
    found: Mapping[str, Any],
    *,
    title: str,
    files: Mapping[str, str],
    environment: Mapping[str, Any],
) -> Path:
    """Write the page; returns its path. found: `search.json`, with `why.json` as `why` and what was found since as
    `findings`; of a training alone, its `metrics`. What there is not, the page leaves out."""
    answer, why = mapping(found.get("answer")), mapping(found.get("why"))
    sets = [mapping(each) for each in mapping(why.get("sets")).values()]
    notes = [short(str(each), 600) for each in found.get("notes") or []][:40]
    board = [each for each in found.get("leaderboard") or [] if isinstance(each, Mapping)]
    sections = [
        _answer(found, sets, board, notes),
        _metrics(found, sets),
        forecasts_section(mapping(answer.get("targets")), mapping(found.get("metrics"))),
        way_section(why),
        geometry_section(mapping(why.get("geometry"))),
        trials_section(board, answer, why),
        *finding_sections([each for each in found.get("findings") or [] if isinstance(each, Mapping)]),
        Section("notes", "Notes", "Notes", [listed(notes)] if notes else []),
        _limits(answer, sets),
        recipe_section(files, environment),
    ]
    foot = "This page is one file: it loads nothing and runs nothing."
    write_text(path, page(title, header(title, found), [each for each in sections if each], style=STYLE, foot=foot))
    return Path(path)


def _answer(
    found: Mapping[str, Any], sets: Sequence[Mapping[str, Any]], board: Sequence[Any], notes: Sequence[str]
) -> Section:
    answer, metrics = mapping(found.get("answer")), mapping(found.get("metrics"))
    nested = mapping(answer.get("judge domains"))
    tiles = []
    if home := next((each for each in sets if each.get("kind") == "home"), None):
        own = metric_of(mapping(home.get("models")).get(ANSWER))
        if own is not None:
            what = f"{metric_name(home)} of held-out pairs, which helped to choose"
            tiles.append(tile("At home", own, what, say=points))
    judged = metric_of(nested.get("metric"))
    if judged is not None:
        tiles.append(tile("On the judge", judged, "the mean over its sets, by cross-fitting", say=points))
    tested = {name: value for name, each in metrics.items() if (value := metric_of(each))}
    if tested:
        worst = min(tested, key=lambda name: tested[name].value)
        of = f", the lowest of {len(tested)}" if len(tested) > 1 else ""
        label = "Lowest test set" if len(tested) > 1 else "Test set"
        tiles.append(tile(label, tested[worst], f"{metric_name(metrics[worst])} on {short(worst, 40)}{of}", say=points))
    for name, target in list(mapping(answer.get("targets")).items())[:2]:
        expected = metric_of(mapping(target).get("forecast"))
        if expected is not None:
            tiles.append(
                tile("Expect", expected, f"forecast on {short(name, 40)}, without ratings", "soft", say=points)
            )
    drawn = element("div", joined(tiles), class_="tiles") if tiles else Markup("")
    watch = _watch(sets, notes)
    if not answer:
        return Section("answer", "Summary", "In short", [drawn, watch] if tiles else [])
    trials = int(finite(found.get("trials")) or len(board))
    lead = (
        f"The answer is “{short(trial_name(answer.get('candidate')), 80)}”{made(answer)}, chosen among "
        f"{counted(len(mapping(answer.get('scores'))), 'candidate')} after {counted(trials, 'trial')}."
    )
    parts: list[object] = [paragraph(lead, class_="lead"), drawn, watch, _tested(sets)]
    rows = [
        (called(name), signed(metric_of(mapping(each).get("metric"), bounds=None), scale=100, digits=1))
        for name, each in mapping(nested.get("versus")).items()
    ]
    caption = "What the answer is above each baseline on the judge, by cross-fitting, in points [95% interval]"
    parts.append(details("The choice in figures", [table(caption, ("against", "points"), rows)] if rows else []))
    return Section("answer", "Summary", "The answer", parts)


def _watch(sets: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> Markup:
    """Test sets on which the start or a baseline is better by more than chance; then the first notes."""
    items = []
    for each in sets:
        for name, model in mapping(each.get("models")).items():
            above = metric_of(mapping(model).get("answer above"), bounds=None)
            if each.get("kind") == "test" and above is not None and above.high is not None and above.high < 0:
                said = signed(above, scale=100, digits=1)
                where = short(str(each.get("name")), 40)
                items.append(f"On {where} the answer is {said} points from the model “{called(name)}”.")
    items += notes[:2]
    if not items:
        return Markup("")
    return element(
        "div", joined([element("h3", "Watch for"), listed([short(each, 320) for each in items[:6]])]), class_="watch"
    )


def _tested(sets: Sequence[Mapping[str, Any]]) -> Markup:
    """On how many test sets tuning gained, and lost, over the model as it was."""
    tested = {}
    for each in sets:
        untuned = mapping(mapping(mapping(each.get("models")).get("untuned")))
        if each.get("kind") == "test":
            tested[str(each.get("name"))] = metric_of(untuned.get("answer above"), bounds=None)
    gained = "Over the model as it came, tuning gains by more than chance explains on {} of the {} test sets that all models ran on"
    return beyond_chance(tested, gained, "and loses on")


def _metrics(found: Mapping[str, Any], sets: Sequence[Mapping[str, Any]]) -> Section:
    """The metric of the answer and of every baseline on every set; paired differences in a table."""
    metrics = mapping(found.get("metrics"))
    chart: dict[str, list[Dot]] = {}
    notes: dict[str, str] = {}
    for each in sets:
        name = set_name(each) + (HELD if each.get("kind") != "test" else "")
        chart[name] = _dots(mapping(each.get("models")))
        few = (finite(each.get("examples")) or 0) < (finite(each.get("of")) or 0)
        notes[name] = metric_name(each) + (
            f", {finite(each.get('examples')):,.0f} of {finite(each.get('of')):,.0f}" if few else ""
        )
    looked = {each.get("name") for each in sets if each.get("kind") == "test"}
    for name, each in metrics.items():
        own = metric_of(each)
        if name not in looked and own is not None:
            chart[name], notes[name] = [Dot("this model", own, 0, "own")], metric_name(mapping(each))
    drawn = dots(
        "The metric on every set", chart, notes=notes, say=points, words=lambda v: f"{100 * v:.0f}", bounds=BOUNDS
    )
    caption = "Spearman's rank correlation with ratings, or nDCG at 10, both times 100; lines are 95% intervals."
    rows = [
        (name, f"{finite(each.get('examples')) or 0:,.0f}", metric_name(each), points(metric_of(each)))
        for name, each in ((name, mapping(each)) for name, each in metrics.items())
    ]
    whole = table("Test sets, whole [95% interval]", ("test set", "examples", "metric", "value"), rows) if rows else ""
    return Section(
        "metrics", "Metrics", "How good is it, at home and away?", [figure(drawn, caption), whole, _paired(sets)]
    )


def _dots(models: Mapping[str, Any]) -> list[Dot]:
    """The answer first, then the baselines."""
    found = []
    order = [ANSWER, *(name for name in models if name != ANSWER)]
    for place, name in enumerate(order):
        own = metric_of(models.get(name))
        if own is not None:
            number = 0 if name == ANSWER else (1, 3, 4, 5)[(place - 1) % 4]
            found.append(Dot(called(name), own, number, "own" if name == ANSWER else "base"))
    return found


def _paired(sets: Sequence[Mapping[str, Any]]) -> Markup:
    rows = []
    for each in sets:
        for name, model in mapping(each.get("models")).items():
            above = metric_of(mapping(model).get("answer above"), bounds=None)
            if above is not None:
                rows.append((set_name(each), called(name), signed(above, scale=100, digits=1), verdict(above)))
    if not rows:
        return Markup("")
    caption = "What the answer is above each baseline on the same pairs or queries [95% interval]"
    words = "Differences of rank correlations are to first order. Sets that helped to choose flatter the answer."
    inside = [table(caption, ("set", "against", "points", ""), rows), paragraph(words, class_="faint")]
    return details("Paired differences from the baselines", inside)


def _limits(answer: Mapping[str, Any], sets: Sequence[Mapping[str, Any]]) -> Section:
    items = [
        "Intervals are of sampling only: other pairs or queries of the same kind. They do not cover another seed or another training set.",
    ]
    if answer:
        items.insert(
            0, "The judge's sets are not the use to come. What holds there is a hint for another, and no promise."
        )
        items.append(
            "Scores in the table of trials chose the answer, so the best of them flatters; the figure by cross-fitting does not."
        )
    if not any(each.get("kind") == "test" for each in sets) and answer:
        items.append("No test set was given that nothing was chosen on: give one as --test NAME=FILE.")
    return Section("limits", "Limits", "What this does not say", [listed(items)])
