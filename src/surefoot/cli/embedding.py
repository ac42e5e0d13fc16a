"""`surefoot tune --task embedding`: its data, and what is shown of what was found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from surefoot.assess.similarity import Score
    from surefoot.search.answer import Target
    from surefoot.search.search import Found

#: The recipe of those who have no judge.
WITHOUT_JUDGE = "wise_contrastive"


def read_sets(fields: Mapping[str, Any], *, columns: Sequence[str]) -> dict[str, Any]:
    """Pairs to train on, and sets to judge, forecast and test on, as `surefoot.search.search.tune` takes them."""
    from surefoot.cli.inputs import parse_columns
    from surefoot.data import load_data

    renamed = parse_columns(columns)
    found: dict[str, Any] = {"train": load_data(fields["train"], columns=renamed, require_labels=False)}
    if "validation" in fields:
        found["validation"] = load_data(fields["validation"], columns=renamed, require_labels=False)
    for option in ("judge", "test", "unlabelled"):
        name = {"test": "tests"}.get(option, option)
        given = fields.get(option, ())
        found[name] = named_sets(given, option=f"--{option}", columns=renamed, ratings=option != "unlabelled")
    return found


def named_sets(
    values: Sequence[str], *, option: str, columns: Mapping[str, str] | None, ratings: bool
) -> dict[str, Any]:
    """`sts=sts.parquet` or `cranfield/` (named after the file or folder) to similarity sets; without `ratings`, to
    whatever the file holds."""
    from surefoot.assess.similarity import load_similarity
    from surefoot.data import load_data
    from surefoot.errors import DataError

    found: dict[str, Any] = {}
    for value in values:
        name, sign, source = value.partition("=")
        if not sign:
            name, source = Path(value).stem, value
        if not name or not source:
            raise DataError(f"{option} {value}: write it as NAME=FILE, such as {option} sts=sts.parquet")
        if name in found:
            raise DataError(f"two sets of {option} are named `{name}`: give them names, as in {option} first={source}")
        if not ratings and not Path(source).expanduser().is_dir():
            examples = load_data(source, columns=columns, require_labels=False)
            found[name] = replace(examples, labels=None, classes=(), score=None)
        else:
            found[name] = load_similarity(source, columns=columns)
    return found


def found_tables(found: Found) -> list[Table]:
    """The answer, forecasts, tests."""
    from surefoot.cli.show import plain_table

    answer, nested = found.answer, found.answer.nested
    rows = [
        ["candidate", answer.choice.name],
        ["made of", " + ".join(answer.member.facts.get("soup", [answer.member.name]))],
        ["of the way from the start", f"{answer.member.facts.get('share', 1.0):.0%}"],
        ["judge", f"{', '.join(nested['domains'])}: {nested['examples']:,} examples"],
        ["metric there, by cross-fitting", _interval(nested["metric"])],
    ]
    rows += [[f"over {name}", _interval(each["metric"], signed=True)] for name, each in nested["versus"].items()]
    tables = [plain_table("answer", ("", "what was found"), rows)]
    if answer.targets:
        tables.append(forecasts_table(answer.targets))
    return [*tables, *([scores_table(found.metrics)] if found.metrics else [])]


def forecasts_table(targets: Mapping[str, Target]) -> Table:
    """What to expect where there are no ratings."""
    from surefoot.cli.show import plain_table

    forecasts = {name: target.forecast for name, target in targets.items()}
    rows = [[name, _interval(vars(each)), each.method, each.note or ""] for name, each in forecasts.items()]
    return plain_table("forecast without ratings", ("target", "spearman [95%]", "method", "note"), rows)


def scores_table(scores: Mapping[str, Score]) -> Table:
    """One model: a row per test set."""
    from surefoot.cli.show import plain_table

    rows = [[name, f"{each.examples:,}", each.metric, _interval(vars(each))] for name, each in scores.items()]
    return plain_table("tests", ("test set", "examples", "metric", "value [95%]"), rows)


def _interval(ends: Mapping[str, float], *, signed: bool = False) -> str:
    """`75.9 [66.9, 82.7]`, times a hundred; `-` for what is not known."""
    if not math.isfinite(ends["value"]):
        return "-"
    value, low, high = (f"{100 * ends[end]:{'+' if signed else ''}.1f}" for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def fit(
    recipe: str,
    fields: Mapping[str, Any],
    *,
    lr: float | None,
    columns: Sequence[str],
    device: str,
    json: bool,
    notes: Sequence[str],
) -> None:
    """`--recipe` with pairs: one training without a search, scored on the tests."""
    from surefoot.assess.similarity import evaluate_similarity
    from surefoot.cli.show import Bars, print_json
    from surefoot.cli.show import notes as show_notes
    from surefoot.cli.show import out as show
    from surefoot.cli.training import IN_BOTH, changed
    from surefoot.models.load import load
    from surefoot.report.run import report_run
    from surefoot.tune.folder import add_metrics
    from surefoot.tune.recipe import Recipe

    plan = changed(Recipe.load(recipe), lr=lr, **{name: fields.get(name) for name in IN_BOTH})
    sets = read_sets(fields, columns=columns)
    start = load(fields.get("model", "minilm"), device=device)
    with Bars() as bars:
        run = plan.fit(start, sets["train"], seed=fields.get("seed", 0), out=fields["out"], progress=bars)
        scores = {
            name: evaluate_similarity(run.model, each, progress=bars, label=name)[1]
            for name, each in sets["tests"].items()
        }
    add_metrics(fields["out"], scores)
    page = report_run(fields["out"]) if scores else None
    said = [*notes, *run.history.notes]
    show_notes(said)
    if json:
        scored = {name: each.as_json() for name, each in scores.items()}
        told = {"run": str(fields["out"]), "metrics": scored, "notes": said}
        print_json(told | ({"report": str(page)} if page else {}))
        return
    if scores:
        show(scores_table(scores))
    show(f"{plan.name}: {run.history.steps} steps; the model is in {fields['out'] / 'model'}")
    if page:
        show(f"{page} shows how good it is")
