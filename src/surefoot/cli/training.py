"""`surefoot tune --recipe`: one training, tested and reported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Fields of a plan that a recipe has too, and checks itself.
IN_BOTH = ("epochs", "batch_size", "max_length")


def fit(
    recipe: str,
    fields: dict[str, Any],
    *,
    lr: float | None,
    strategy: str | None,
    notes: list[str],
    columns: list[str],
    device: str,
    json: bool,
) -> None:
    """One recipe, trained (with a strategy, by the judge's leave) and tested."""
    from surefoot.cli.inputs import named_data, parse_columns
    from surefoot.cli.show import Bars, metrics_table, print_json
    from surefoot.cli.show import notes as show_notes
    from surefoot.cli.show import out as show
    from surefoot.data import load_data, overlap
    from surefoot.errors import DataError
    from surefoot.models.load import load
    from surefoot.report.run import report_run
    from surefoot.search.explain import explain_run
    from surefoot.search.tuned import fit_with
    from surefoot.tune.recipe import Recipe

    plan = changed(Recipe.load(recipe), lr=lr, **{name: fields.get(name) for name in IN_BOTH})
    examples = load_data(fields["train"], columns=parse_columns(columns))
    tests = named_data(fields.get("test", ()), columns=columns, classes=examples.classes)
    for each in tests.values():
        if each.modality != examples.modality:
            raise DataError(
                f"{each.source} holds {each.modality} but the training set {examples.source} holds {examples.modality}: test on data of the same kind"
            )
    notes = notes + [
        f"{shared} of {len(each)} examples of the test set `{name}` are also in the training set"
        for name, each in tests.items()
        if (shared := overlap(examples, each))
    ]
    start = load(fields.get("model", "minilm"), device=device)
    seed = fields.get("seed", 0)
    with Bars() as bars:
        if strategy is None:
            run = plan.fit(start, examples, seed=seed, out=fields["out"], progress=bars)
        else:
            judge = named_data(fields["judge"], option="--judge", columns=columns, classes=examples.classes)
            tuned = fit_with(strategy, plan, start, examples, judge, seed=seed, out=fields["out"], progress=bars)
            run, notes = tuned.run, [*notes, *_found(tuned.hyperparameters)]
        metrics = run.evaluate(tests, progress=bars)
    explain_run(run, tests)
    page = report_run(fields["out"])
    notes += run.history.notes
    show_notes(notes)
    if json:
        scored = {name: each.as_json() for name, each in metrics.items()}
        print_json({"run": str(fields["out"]), "metrics": scored, "notes": notes, "report": str(page)})
        return
    if metrics:
        show(metrics_table(metrics))
    show(
        f"{plan.name}: {run.history.steps} steps, {run.history.examples_per_second:.0f} examples/s; the model is in {fields['out'] / 'model'}"
    )
    show(f"{page} shows how good it is")


def _found(hyperparameters: Mapping[str, Any]) -> list[str]:
    """What the strategy found: numbers of the whole training; those of single layers and examples are in a file."""
    whole = {name: each for name, each in hyperparameters.items() if isinstance(each, int | float) and "." not in name}
    said = [f"the strategy ended at {name.replace('_', ' ')} {value:.3g}" for name, value in whole.items()]
    rest = len(hyperparameters) - len(whole)
    return said + ([f"{rest} more of what it found in hyperparameters.json of the run"] if rest else [])


def changed(recipe: Any, *, lr: float | None, **fields: Any) -> Any:
    """The recipe with the command line's values in place of its own."""
    changes = {name: value for name, value in fields.items() if value is not None}
    if lr is not None:
        changes["optimizer"] = _with_rate(recipe.optimizer, lr)
    return recipe.changed(**changes) if changes else recipe


def _with_rate(spec: Any, lr: float) -> dict[str, Any]:
    """The optimizer's spec with another learning rate, which belongs to the innermost of wrappers."""
    from surefoot.registry import get
    from surefoot.tune.optimizer import Wrapper

    own: dict[str, Any] = {"name": spec} if isinstance(spec, str) else dict(spec)
    if issubclass(get("optimizer", own["name"]).make, Wrapper):
        return own | {"inner": _with_rate(own.get("inner", "adamw"), lr)}
    return own | {"lr": lr}
