"""The top of the page: which model, how good at home and away, what to expect, what to watch for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from surefoot.report.html import (
    NOTHING,
    Markup,
    Reading,
    Section,
    counted,
    decimals,
    details,
    element,
    finite,
    interval,
    joined,
    listed,
    mapping,
    name_of,
    paragraph,
    percent,
    reading,
    several,
    short,
    signed,
    table,
)
from surefoot.report.names import called, trial_name

#: Things to watch for that stand at the top, the gravest first.
WATCH = 6


def header(title: str, found: Mapping[str, Any]) -> Markup:
    """Title, and the run in one line."""
    facts = [str(found["run"]).rstrip("/").rpartition("/")[2]] if found.get("run") else []
    if (trials := finite(found.get("trials"))) is not None:
        facts.append(counted(int(trials), "trial"))
    if (seconds := finite(found.get("seconds"))) is not None:
        facts.append(f"{seconds / 60:.1f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds")
    if found.get("base"):
        facts.append(f"from {str(found['base']).rstrip('/').rpartition('/')[2]}")
    line = [name_of(each, 80) for each in facts]
    inside = [element("p", "surefoot", class_="brand"), element("h1", title)]
    if line:
        inside.append(element("p", joined([element("span", each) for each in line]), class_="facts"))
    return element("header", joined(inside))


def answer_section(found: Mapping[str, Any], board: Sequence[Any], home: str | None) -> Section:
    answer = mapping(found.get("answer"))
    heading = ("answer", "Summary", "The answer")
    tiles = _tiles(found, home)
    watch = watch_for(found)
    if not answer:
        parts: list[object] = [tiles, watch] if tiles else []
        return Section("answer", "Summary", "In short", parts)
    candidates = mapping(answer.get("scores"))
    given = finite(found.get("trials"))
    trials = int(given) if given is not None else len(board)
    lead = f"The answer is “{short(trial_name(answer.get('candidate', NOTHING)), 80)}”{made(answer)}, chosen among {counted(len(candidates), 'candidate')} after {counted(trials, 'trial')}."
    nested = mapping(answer.get("judge domains"))
    accuracy = reading(nested.get("accuracy"))
    versus = {called(each): mapping(value) for each, value in mapping(nested.get("versus")).items()}
    if accuracy is not None:
        domains = [short(str(each), 40) for each in nested.get("domains") or []]
        share = percent(accuracy.value)
        if accuracy.low is not None and accuracy.high is not None:
            share += f" (95% interval {percent(accuracy.low)} to {percent(accuracy.high)})"
        where = f" {several(domains[:6])}" if domains else ""
        lead += f" On the judge domains{where}, choosing like this was right on {share} of examples by cross-fitting."
    parts = [paragraph(lead, class_="lead"), tiles, watch, _tested(found)]
    for each in ("LP-FT", "WiSE-FT"):
        difference = reading(versus.get(each, {}).get("accuracy"), bounds=None)
        if difference is not None:
            parts.append(_verdict(each, difference))
    parts.append(details("The choice in figures", [*_versus(versus), listed(_facts(answer, nested, found))]))
    return Section(*heading, parts)


def made(answer: Mapping[str, Any]) -> str:
    """What a candidate's name stands for."""
    members, share = [trial_name(each) for each in answer.get("members") or []], finite(answer.get("share"))
    if len(members) == 1 and members[0] != trial_name(answer.get("candidate")):
        return f" ({members[0]}{f', {100 * share:.0f}% of the way from its start' if share is not None and share < 1 else ''})"
    if len(members) < 2:
        return ""
    way = f", {100 * share:.0f}% of the way from their start" if share is not None and share < 1 else ""
    numbers = [each.removeprefix("trial ") for each in members]
    named = f"trials {several(numbers)}" if len(members) <= 5 else counted(len(members), "trial")
    return f" (the weights of {named} averaged{way})"


def _tiles(found: Mapping[str, Any], home: str | None) -> Markup:
    """Four figures: home, the judge's domains, the tests away, what is to come."""
    answer, metrics = mapping(found.get("answer")), mapping(found.get("metrics"))
    tiles = []
    versus = mapping(mapping(found.get("why")).get("versus"))
    held = mapping(mapping(mapping(versus.get("home/home")).get("models")).get("answer"))
    at_home = reading(mapping(metrics.get(home)).get("accuracy")) if home else reading(held.get("accuracy"))
    if at_home is not None:
        what = (
            f"right at home, on the {home} test set"
            if home and home in metrics
            else "right at home, on held-out examples that helped to choose"
        )
        tiles.append(tile("At home", at_home, what))
    nested = reading(mapping(answer.get("judge domains")).get("accuracy"))
    if nested is not None:
        tiles.append(tile("On the judge", nested, "right on the judge’s domains, by cross-fitting"))
    away = {
        name: figure
        for name, each in metrics.items()
        if name != home and (figure := reading(mapping(each).get("accuracy")))
    }
    if away:
        worst = min(away, key=lambda name: away[name].value)
        label = "Lowest test set" if len(away) > 1 else "Test set"
        tiles.append(
            tile(
                label,
                away[worst],
                f"right on {short(worst, 40)}" + (f", the lowest of {len(away)}" if len(away) > 1 else ""),
            )
        )
    for name, target in list(mapping(answer.get("targets")).items())[:2]:
        expected = reading(mapping(target).get("forecast"))
        if expected is not None:
            tiles.append(tile("Expect", expected, f"forecast on {short(name, 40)}, without labels", "soft"))
    return element("div", joined(tiles), class_="tiles") if tiles else Markup("")


def tile(
    label: str,
    figure: Reading,
    what: str,
    class_: str = "",
    *,
    say: Callable[[Reading | None], str] = interval,
) -> Markup:
    """One figure in large with its interval, and what it is; `say`: a figure in words, its ends behind a space."""
    said, _, ends = say(figure).partition(" ")
    inside = [element("span", label, class_="label"), element("span", said, class_="figure")]
    inside.append(
        element(
            "span", joined(["95% interval ", element("span", ends, class_="nowrap")]) if ends else "", class_="ends"
        )
    )
    inside.append(element("span", what, class_="what"))
    return element("div", joined(inside), class_=f"tile {class_}".strip())


def watch_for(found: Mapping[str, Any]) -> Markup:
    """What a reader should know before shipping, the gravest first."""
    items = [*_behind(found), *_shifts(found), *_weak(found)]
    notes = found.get("notes")
    items += [str(each) for each in notes][:2] if isinstance(notes, list) else []
    if not items:
        return Markup("")
    shown = [f"{short(each, 320)}" for each in items[:WATCH]]
    return element("div", joined([element("h3", "Watch for"), listed(shown)]), class_="watch")


def _behind(found: Mapping[str, Any]) -> list[str]:
    """Test sets on which a baseline is better by more than chance, or on which nothing is gained."""
    worse = []
    for each in mapping(mapping(found.get("why")).get("versus")).values():
        each = mapping(each)
        if each.get("kind") != "test":
            continue
        for name, model in mapping(each.get("models")).items():
            above = reading(mapping(mapping(model).get("answer above")).get("accuracy"), bounds=None)
            if above is not None and above.high is not None and above.high < 0:
                worse.append(
                    f"On {each.get('name')} the {called(name)} is better: {signed(above, scale=100, digits=1)} points."
                )
    return worse


def _shifts(found: Mapping[str, Any]) -> list[str]:
    items = []
    for name, target in mapping(mapping(found.get("answer")).get("targets")).items():
        seen, prior = mapping(mapping(target).get("forecast")), mapping(mapping(target).get("prior"))
        truth, expected = reading(mapping(mapping(found.get("metrics")).get(name)).get("accuracy")), reading(seen)
        if truth is not None and expected is not None and expected.low is not None and truth.value < expected.low:
            items.append(f"The forecast for {name} promised more than its test set holds.")
        elif seen.get("note") and expected is not None:
            items.append(f"The forecast for {name} does not rest on a line of agreements, so its interval is wide.")
        if prior and not prior.get("trusted"):
            items.append(f"The label shares of {name} are not to be trusted.")
    return items


def _weak(found: Mapping[str, Any]) -> list[str]:
    worst = mapping(mapping(found.get("why")).get("slices")).get("worst") or []
    for each in map(mapping, worst):
        p, rest, share = (finite(each.get(key)) for key in ("p", "rest", "accuracy"))
        if p is not None and p < 0.05 and share is not None and rest is not None and share < rest:
            kind = "" if each.get("kind") == "text" else f"{each.get('kind')} "
            return [
                f"It is weak on {each.get('set')}, {kind}{each.get('name')}: {percent(share)}, against {percent(rest)} on the rest."
            ]
    return []


def _tested(found: Mapping[str, Any]) -> Markup:
    """On how many test sets the answer is above LP-FT, and below."""
    tested = {}
    for each in map(mapping, mapping(mapping(found.get("why")).get("versus")).values()):
        model = mapping(mapping(each.get("models")).get("lp_ft"))
        if each.get("kind") == "test":
            tested[str(each.get("name"))] = reading(mapping(model.get("answer above")).get("accuracy"), bounds=None)
    better = "On the test sets it is better than LP-FT by more than chance explains on {} of {}"
    return beyond_chance(tested, better, "and worse on")


def beyond_chance(tested: Mapping[str, Reading | None], gained: str, lost: str) -> Markup:
    """On which of the test sets a difference is more than chance explains, either way; nothing where none has an
    interval. gained: words with places for how many, and of how many; lost: what comes before how many."""
    sure = {name: each for name, each in tested.items() if each and each.low is not None and each.high is not None}
    if not sure:
        return Markup("")
    said = {name: f"{short(name, 40)} {100 * each.value:+.1f}" for name, each in sure.items()}
    above = [said[name] for name, each in sure.items() if each.low > 0]  # type: ignore[operator]
    below = [said[name] for name, each in sure.items() if each.high < 0]  # type: ignore[operator]
    words = gained.format(len(above), len(sure)) + (f" ({', '.join(above[:6])} points)" if above else "")
    words += f", {lost} {len(below)} ({', '.join(below[:6])} points)." if below else f", {lost} none."
    return paragraph(words, class_="verdict" if above and not below else "verdict doubt")


def _versus(versus: Mapping[str, Mapping[str, Any]]) -> list[object]:
    rows = [
        (
            each,
            signed(reading(value.get("accuracy"), bounds=None), scale=100, digits=1),
            signed(reading(value.get("log_loss"), bounds=None), scale=1, digits=3),
        )
        for each, value in versus.items()
    ]
    caption = "Paired differences on the judge domains, by cross-fitting [95% interval]"
    return (
        [table(caption, ("against", "accuracy, points (more is better)", "log-loss (less is better)"), rows)]
        if rows
        else []
    )


def _verdict(baseline: str, difference: Reading) -> Markup:
    """What the paired difference says and, where its interval has zero in it, that it says nothing."""
    points = f"{signed(difference, scale=100, digits=1)} points of accuracy against {baseline}"
    if difference.low is None or difference.high is None or difference.low <= 0 <= difference.high:
        why = "there is no interval" if difference.low is None else "the interval includes zero"
        return paragraph(f"{points}: {why}, so the judge cannot tell them apart.", class_="verdict doubt")
    side = "better" if difference.low > 0 else "worse"
    return paragraph(f"{points}: {side} on the judge domains by more than chance explains.", class_="verdict")


def _facts(answer: Mapping[str, Any], nested: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    members, share = answer.get("members") or [], finite(answer.get("share"))
    facts = [f"Made of {several([trial_name(each) for each in members[:12]])}."] if members else []
    if answer.get("start"):
        way = f", {percent(share)} of the way from it" if share is not None and share < 1 else ""
        facts.append(f"Start: {called(answer['start'])}{way}.")
    temperature, picked = finite(answer.get("temperature")), nested.get("picked") or []
    if temperature is not None:
        facts.append(f"Temperature that is shipped in its head: {decimals(temperature)}.")
    if picked:
        same = sum(each == answer.get("candidate") for each in picked)
        facts.append(
            f"{same} of {counted(len(picked), 'fold')} of the judge chose the same candidate without seeing it."
        )
    if (examples := finite(nested.get("examples"))) is not None:
        facts.append(f"Labelled examples of the judge: {examples:,.0f}.")
    if (seconds := finite(found.get("seconds"))) is not None:
        facts.append(f"The search took {seconds:,.1f} seconds.")
    return facts
