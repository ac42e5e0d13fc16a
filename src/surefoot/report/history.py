"""How the search went: every trial in order, the best so far, what mattered, and what the answer was chosen among."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from surefoot.report.html import (
    NOTHING,
    Markup,
    Section,
    counted,
    decimals,
    details,
    element,
    finite,
    joined,
    mapping,
    name_of,
    paragraph,
    several,
    short,
    table,
)
from surefoot.report.names import called, start_name, trial_name
from surefoot.report.plot import Axis, around, figure, legend, line, mark, place, plane, shape, ticks
from surefoot.report.rows import Bar, bars
from surefoot.search.bank import KINDS

STATES = {"complete": "complete", "pruned": "given up", "failed": "failed"}
#: Trials that are drawn, rows of the table, candidates, hyperparameters.
DRAWN, ROWS, CANDIDATES, PARAMETERS = 500, 60, 12, 12


class Trial(NamedTuple):
    """A trial as the figure shows it. `given`: a baseline or a start that was not drawn."""

    number: int
    score: float | None
    state: str
    given: bool
    name: str


def trials_section(board: Sequence[Mapping[str, Any]], answer: Mapping[str, Any], why: Mapping[str, Any]) -> Section:
    heading = ("trials", "Search", "How the search went")
    parts: list[object] = []
    if board:
        shown = [_trial(place, each) for place, each in enumerate(board)]
        parts += [paragraph(_words(shown)), figure(scores("Scores of the trials in order", shown), _caption(shown))]
        parts += _importance(mapping(why.get("importance")))
        order = sorted(range(len(board)), key=lambda at: _rank(shown[at]))[:ROWS]
        members = answer.get("members") or []
        rows = [_row(shown[at], board[at], members) for at in order]
        columns = ("trial", "what", "start", "score", "learning rate", "seconds", "state")
        inside: list[object] = [table("Trials, the best first", columns, rows)]
        if len(board) > len(rows):
            inside.append(paragraph(f"Shown are {len(rows)} of {len(board):,}; all are in study.log.", class_="faint"))
        parts.append(details(f"All trials, the best first ({len(board):,})", inside))
    parts += _candidates(answer)
    return Section(*heading, parts)


def scores(title: str, trials: Sequence[Trial]) -> Markup:
    """Scores of trials in order, lower is better, with a line for the best complete one so far."""
    complete = [each.score for each in trials if each.state == "complete" and each.score is not None]
    if not complete:
        return Markup("")
    kept = _thinned(trials)
    top = _top(complete)
    low, high = around([min(each.score, top) for each in kept if each.score is not None], least=0.02)
    across, up = Axis(0, max(max(each.number for each in trials), 1), 3, 97), Axis(low, high, 4, 96)
    best, parts, ends = math.inf, list[object](), (0.0, 0.0)
    for each in trials:
        if each.state == "complete" and each.score is not None and each.score < best:
            to = (across.at(each.number), 100 - up.at(each.score))
            if best < math.inf:
                parts += [line(*ends, to[0], ends[1], "best"), line(to[0], ends[1], *to, "best")]
            best, ends = each.score, to
    parts.append(line(*ends, across.at(trials[-1].number), ends[1], "best"))
    parts += [_mark(each, across, up) for each in kept]
    numbers = [int(tick) for tick in ticks(0, across.high, 8) if tick == int(tick)]
    return plane(
        title,
        across,
        up,
        parts,
        x_ticks=[(number, str(number + 1)) for number in numbers],
        y_ticks=[(tick, f"{tick:.4g}") for tick in ticks(low, high)],
        x_name="trial",
        y_name="score, lower is better",
    )


def _thinned(trials: Sequence[Trial]) -> list[Trial]:
    """All of a few hundred trials; of more those that set a record, and others evenly."""
    if len(trials) <= DRAWN:
        return list(trials)
    best, records = math.inf, set()
    for place_, each in enumerate(trials):
        if each.state == "complete" and each.score is not None and each.score < best:
            best = each.score
            records.add(place_)
    step = len(trials) / (DRAWN - min(len(records), DRAWN // 2))
    evenly = {int(number * step) for number in range(int(len(trials) / step))}
    return [trials[place_] for place_ in sorted(set(sorted(records)[-DRAWN // 2 :]) | evenly)]


def _mark(each: Trial, across: Axis, up: Axis) -> Markup:
    score = finite(each.score)
    ended = {"complete": "", "pruned": ", given up", "failed": ", failed"}.get(each.state, f", {each.state}")
    title = f"trial {each.number + 1}, {each.name}: score {decimals(score, 4)}{ended}"
    x = across.at(each.number)
    if score is None:
        drawn = place(x, 97, Markup('<path d="M-3.5 -3.5l7 7m0 -7l-7 7"/>'))
    elif score > up.high:
        drawn = place(x, 3, shape(3))
    else:
        drawn = place(x, 100 - up.at(score), shape(1 if each.given else 0))
    hollow = "" if each.state == "complete" else " hollow"
    return mark(title, [drawn], ("c1" if each.given else "own") + hollow, data_trial=each.number)


def _top(values: Sequence[float]) -> float:
    """The highest score that is drawn in its place: one that diverged would press all others into a line."""
    ordered = sorted(values)
    lower, upper = ordered[len(ordered) // 4], ordered[(3 * len(ordered)) // 4]
    return min(ordered[-1], upper + 3 * max(upper - lower, 1e-6)) if len(ordered) > 3 else ordered[-1]


def _words(trials: Sequence[Trial]) -> str:
    ended = {state: sum(each.state == state for each in trials) for state in STATES}
    complete = [each for each in trials if each.state == "complete" and each.score is not None]
    parts = [f"{number:,} {STATES[state]}" for state, number in ended.items() if number]
    words = f"{counted(len(trials), 'trial')}: {several(parts)}."
    if complete:
        best = min(complete, key=lambda each: each.score or 0.0)
        words += (
            f" The best single one is trial {best.number + 1} ({best.name}), with a score of {decimals(best.score, 4)}."
        )
        given = [each.score for each in complete if each.given and each.score is not None]
        if not best.given and given:
            words += f" The best of those that were not drawn has {decimals(min(given), 4)}."
    return words


def _caption(trials: Sequence[Trial]) -> object:
    words = "The line is the best so far. "
    if len(trials) > DRAWN:
        words += f"Of {len(trials):,} trials those that set a record are drawn, and others evenly. "
    keys: list[tuple[object, str, int]] = [("drawn", "own", 0), ("baseline or start as it is", "c1", 1)]
    if any(each.state == "pruned" for each in trials):
        keys.append(("given up, with its last score", "own hollow", 0))
    words += "Crosses failed; triangles at the top are off the scale."
    return joined([legend(keys), words])


def _importance(facts: Mapping[str, Any]) -> list[object]:
    """Bars of fANOVA's shares with what chance gives; a sentence where there are too few draws."""
    if not facts:
        return []
    heading, count = element("h3", "What mattered"), int(finite(facts.get("trials")) or 0)
    shares = {
        str(name): value for name, each in mapping(facts.get("shares")).items() if (value := finite(each)) is not None
    }
    if not shares:
        words = f"{counted(count, 'complete trial')} drew hyperparameters. From eight on, fANOVA says which of them the scores depend on."
        return [heading, paragraph(words)]
    chance = {name: finite(mapping(facts.get("chance")).get(name)) for name in shares}
    above = [name for name in shares if (bound := chance[name]) is not None and shares[name] > bound]
    order = sorted(shares, key=lambda name: -shares[name])[:PARAMETERS]
    rows = [Bar(called(name), shares[name], "own" if name in above else "base", chance[name]) for name in order]
    found = (
        f"Above it: {several([called(name) for name in order if name in above])}; "
        f"of {len(shares)} shares {0.05 * len(shares):.1f} would be by chance alone."
        if above
        else "No share is above it: these trials do not show which mattered."
    )
    caption = (
        f"Share of the variance of scores (as ranks) that each explains by itself, by fANOVA over {count} drawn trials. "
        f"Upright strokes: what shuffled scores give in one of twenty cases. {found}"
    )
    return [heading, figure(bars("Importance of hyperparameters", rows), caption), *_within(facts)]


def _within(facts: Mapping[str, Any]) -> list[object]:
    """The same for what only some trials drew: each among those that did."""
    found = {str(name): mapping(each) for name, each in mapping(facts.get("within")).items()}
    rows = [
        Bar(f"{called(name)} ({counted(int(count), 'trial')})", share, "own" if share > bound else "base", bound)
        for name, each in found.items()
        if (share := finite(each.get("share"))) is not None
        and (bound := finite(each.get("chance"))) is not None
        and (count := finite(each.get("trials"))) is not None
    ]
    rows = sorted(rows, key=lambda row: -row.value)[:PARAMETERS]
    if not rows:
        return []
    caption = "What only some trials drew: the share among those trials, which are as many as its name says. Strokes as above."
    return [figure(bars("Importance of conditional hyperparameters", rows), caption)]


def _trial(place_: int, each: Mapping[str, Any]) -> Trial:
    number, given = finite(each.get("trial")), not each.get("params")
    what = called(each.get("name") or "baseline") if given else _drawn(mapping(each.get("params")))
    at = place_ if number is None else int(number)
    return Trial(at, finite(each.get("value")), str(each.get("state", NOTHING)), given, what)


def _drawn(params: Mapping[str, Any]) -> str:
    """What a draw had of a bank beside the usual.

    >>> _drawn({"lr": 1e-4, "objective": "focal", "optimizer": "sam"})
    'drawn: focal + sam'
    """
    unusual = [called(params[kind]) for kind in KINDS if kind in params]
    return f"drawn: {' + '.join(unusual)}" if unusual else "drawn"


def _rank(trial: Trial) -> tuple[bool, bool, float, int]:
    """The best complete trials first; a score of one that was given up is of an early epoch."""
    return trial.state != "complete", trial.score is None, trial.score or 0.0, trial.number


def _row(trial: Trial, each: Mapping[str, Any], members: Sequence[Any]) -> tuple[object, ...]:
    params = mapping(each.get("params"))
    optimizer, reason = mapping(mapping(each.get("recipe")).get("optimizer")), each.get("reason")
    rate = finite(mapping(optimizer.get("inner", optimizer)).get("lr", params.get("lr"))) if params else None
    state = STATES.get(trial.state, trial.state) + (f" ({short(str(reason), 200)})" if reason else "")
    state += ", in the answer" if f"trial-{trial.number:04d}" in members else ""
    start = start_name(each.get("start") or params.get("start") or NOTHING)
    speed = NOTHING if rate is None else f"{rate:.1e}"
    seconds = decimals(each.get("seconds"), 1)
    return f"trial {trial.number + 1}", trial.name, start, decimals(trial.score, 4), speed, seconds, state


def _candidates(answer: Mapping[str, Any]) -> list[object]:
    """What the answer was chosen among, and why it need not have the lowest score."""
    given, chosen = mapping(answer.get("scores")), answer.get("candidate")
    ranked = sorted((score, name) for name, each in given.items() if (score := finite(each)) is not None)
    if not ranked:
        return []
    ahead = next((at for at, (_, name) in enumerate(ranked) if name == chosen), 0)
    rows = [
        (name_of(trial_name(name)), decimals(score, 4), "the answer" if name == chosen else "")
        for score, name in ranked
    ]
    rows = rows[:CANDIDATES] + ([rows[ahead]] if ahead >= CANDIDATES else [])
    caption = "Candidates (trials and averages of them), the lowest score first"
    parts: list[object] = [table(caption, ("candidate", "score", ""), rows)]
    if len(ranked) > len(rows):
        parts.append(paragraph(f"Shown are {len(rows)} of {len(ranked)}.", class_="faint"))
    if ahead:
        parts.append(paragraph(f"Passed over with a lower score: {counted(ahead, 'candidate')}."))
    return [details(f"What the answer was chosen among ({len(ranked)})", parts)]
