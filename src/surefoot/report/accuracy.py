"""How good the answer is on every test set, beside the baselines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from surefoot.report.html import (
    NOTHING,
    Markup,
    Reading,
    Section,
    decimals,
    details,
    element,
    finite,
    interval,
    mapping,
    paragraph,
    percent,
    reading,
    signed,
    table,
)
from surefoot.report.names import called, set_name
from surefoot.report.plot import figure
from surefoot.report.rows import Dot, dots

Figures = Mapping[str, Mapping[str, Reading | None]]
OWN, CORRECTED = "this search", "this search, corrected"


def accuracy_section(found: Mapping[str, Any], baselines: Mapping[str, Any], home: str | None) -> Section:
    """found: `search.json` with `why`. baselines: accuracy by method and test set, where they were trained apart."""
    metrics, corrected = mapping(found.get("metrics")), mapping(found.get("corrected"))
    sets = [mapping(each) for each in mapping(mapping(found.get("why")).get("versus")).values()]
    tests = {str(each.get("name")): each for each in sets if each.get("kind") == "test"}
    domains = list(dict.fromkeys([*metrics, *(name for by in baselines.values() for name in mapping(by))]))
    chart = _groups(domains, metrics, corrected, baselines, tests)
    if not any(chart.values()):
        # Without a test set there is what the search looked at, and what cross-fitting says of it.
        chart = {set_name(each): _from_why(each, "accuracy") for each in sets}
    roles = {name: role for name in domains if (role := _role(name, found, home))}
    own = OWN if found.get("answer") else "this model"
    parts: list[object] = [
        figure(dots("Accuracy at home and away", _named(chart, own), notes=roles), _caption(chart, own)),
        _balanced(tests or {set_name(each): each for each in sets}, own),
        _table(metrics, corrected),
    ]
    if corrected and metrics:
        parts.append(
            paragraph(
                "Corrected: the same model, its decision shifted by the bias that the judge shows and by the label "
                "shares that the unlabelled target seems to have.",
                class_="faint",
            )
        )
    paired = _differences(sets)
    parts.append(paired)
    if baselines and metrics:
        rows = [
            (called(name), *(interval(reading(mapping(by).get(each))) for each in domains))
            for name, by in baselines.items()
        ]
        parts.append(
            details("Figures of the baselines", [table("Accuracy [95% interval]", ("method", *domains), rows)])
        )
    return Section("accuracy", "Accuracy", "How good is it, at home and away?", parts)


def _groups(
    domains: list[str],
    metrics: Mapping[str, Any],
    corrected: Mapping[str, Any],
    baselines: Mapping[str, Any],
    tests: Mapping[str, Any],
) -> dict[str, dict[str, Reading]]:
    chart: dict[str, dict[str, Reading]] = {}
    for name in domains:
        rows = {OWN: reading(mapping(metrics.get(name)).get("accuracy"))}
        rows[CORRECTED] = reading(mapping(corrected.get(name)).get("accuracy"))
        if baselines:
            rows |= {called(method): reading(mapping(by).get(name)) for method, by in baselines.items()}
            if rows.get("surefoot") == rows[OWN]:
                rows.pop("surefoot", None)  # the demo's own model among those it compares
        elif name in tests:
            known = _from_why(tests[name], "accuracy")
            rows |= {method: each for method, each in known.items() if method != OWN}
        chart[name] = {method: each for method, each in rows.items() if each is not None}
    return {name: rows for name, rows in chart.items() if rows}


def _from_why(each: Mapping[str, Any], metric: str) -> dict[str, Reading]:
    models = mapping(each.get("models"))
    known = {called(name): reading(mapping(models.get(name)).get(metric)) for name in models if name != "raw"}
    return {name: value for name, value in known.items() if value is not None}


def _named(chart: Mapping[str, Mapping[str, Reading]], own: str) -> dict[str, list[Dot]]:
    """Rows with the shape and colour of their method: the answer stands out, the baselines stand back."""
    methods = list(dict.fromkeys(name for rows in chart.values() for name in rows if name not in (OWN, CORRECTED)))
    number = {OWN: 0, CORRECTED: 2} | {name: (1, 3, 4, 5)[place % 4] for place, name in enumerate(methods)}
    return {
        group: [
            Dot(
                own if name == OWN else name,
                each,
                number[name],
                "own" if name == OWN else "own soft" if name == CORRECTED else "base",
            )
            for name, each in rows.items()
        ]
        for group, rows in chart.items()
    }


def _caption(chart: Mapping[str, Mapping[str, Reading]], own: str) -> str:
    """Where the answer comes first among the methods, and where it does not."""
    first: list[tuple[str, str, float]] = []
    others: list[tuple[str, str, float]] = []
    for name, rows in chart.items():
        rest = {method: each.value for method, each in rows.items() if method not in (OWN, CORRECTED)}
        if OWN not in rows or not rest:
            continue
        best = max(rest, key=lambda method: rest[method])
        (first if rows[OWN].value >= rest[best] else others).append((name, best, rest[best] - rows[OWN].value))
    words = "Share of examples that are right; lines are 95% intervals."
    if first or others:
        words += f" {own[0].upper()}{own[1:]} comes first on {len(first)} of {len(first) + len(others)} sets"
        ahead = [f"{best} by {100 * gap:.1f} points on {name}" for name, best, gap in others[:3]]
        words += f"; ahead of it: {', '.join(ahead)}." if ahead else "."
        words += " Which differences are more than chance is in the table of paired differences."
    return words


def _balanced(sets: Mapping[str, Mapping[str, Any]], own: str) -> Markup:
    chart = {name: _from_why(each, "balanced") for name, each in sets.items()}
    words = (
        "The mean over classes of the share that is right: it does not reward guessing the commoner label, so it tells "
        "apart what the model knows and where it happens to cut."
    )
    looked = {
        name: f"{finite(each.get('examples')):,.0f} of {finite(each.get('of')):,.0f} examples"
        for name, each in sets.items()
        if (finite(each.get("examples")) or 0) < (finite(each.get("of")) or 0)
    }
    drawn = dots("Balanced accuracy at home and away", _named(chart, own), notes=looked)
    if not drawn:
        return Markup("")
    return details("Balanced accuracy, the same picture", [figure(drawn, words)])


def _table(metrics: Mapping[str, Any], corrected: Mapping[str, Any]) -> Markup:
    rows = []
    for name, own in metrics.items():
        own = mapping(own)
        size = finite(own.get("examples"))
        shares = (percent(own.get(each)) for each in ("balanced_accuracy", "auc", "accuracy_at_true_prior", "majority"))
        cells = [NOTHING if size is None else f"{size:,.0f}"]
        cells.append(interval(reading(own.get("accuracy"))))
        cells += [interval(reading(mapping(corrected.get(name)).get("accuracy")))] if corrected else []
        rows.append((name, *cells, *shares, decimals(own.get("log_loss"))))
    if not rows:
        return Markup("")
    columns = ["test set", "examples", "accuracy", *(["corrected"] if corrected else [])]
    columns += ["balanced", "AUC", "at true shares", "majority", "log-loss"]
    return table("Test sets, never looked at before the answer [95% interval]", columns, rows)


def _differences(sets: list[Mapping[str, Any]]) -> Markup:
    """What the answer is above each baseline, paired, on every set."""
    rows = []
    for each in sets:
        for name, model in mapping(each.get("models")).items():
            above = mapping(mapping(model).get("answer above"))
            plain, balanced = (reading(above.get(metric), bounds=None) for metric in ("accuracy", "balanced"))
            if plain is not None:
                cells = (called(name), signed(plain, scale=100, digits=1), signed(balanced, scale=100, digits=1))
                rows.append((set_name(each), *cells, verdict(plain)))
    if not rows:
        return Markup("")
    columns = ("set", "against", "accuracy, points", "balanced, points", "")
    caption = "What the answer is above each baseline on the same examples [95% interval]"
    words = paragraph(
        "Paired: both models on the same examples, documents as units where there are any. On the judge, each example is "
        "answered by the model that was chosen without it. Intervals are of one comparison each: of many, one in twenty "
        "misses by chance.",
        class_="faint",
    )
    return details("Paired differences from the baselines", [table(caption, columns, rows), words])


def verdict(above: Reading) -> Markup:
    """Better or worse, or that the interval of the paired difference has zero in it."""
    if above.low is None or above.high is None or above.low <= 0 <= above.high:
        return element("span", "cannot be told apart", class_="faint")
    return element("span", "better" if above.low > 0 else "worse", class_="good" if above.low > 0 else "bad")


def _role(name: str, found: Mapping[str, Any], home: str | None) -> str:
    answer = mapping(found.get("answer"))
    judging = mapping(answer.get("judge domains")).get("domains") or []
    if name == home:
        return "home"
    if name in judging:
        return "judged by other examples of it"
    return "never judged, only unlabelled" if name in mapping(answer.get("targets")) else ""
