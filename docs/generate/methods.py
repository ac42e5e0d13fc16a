"""The pages of the methods: one sortable table of all, and one page a kind, from the registry and the evidence."""

from __future__ import annotations

import html
import inspect
from typing import Any

import yaml

from generate.docstring import inline, to_markdown
from generate.effects import cost, effect, mechanism
from surefoot.evidence.table import held, rows, share_text
from surefoot.evidence.track import load_track, track_names
from surefoot.registry import HOMES, Method
from surefoot.registry import methods as registered

#: What a kind is, in a sentence, and how one asks for one of its methods.
KINDS = {
    "objective": ("Objectives", "Terms of the loss. A recipe weighs any number of them."),
    "reducer": ("Reducers", "How the losses of a batch's examples become one number."),
    "optimizer": ("Optimizers", "How weights move; wrappers take another one as `inner`."),
    "selection": ("Selections", "Which weights train, and through what."),
    "recipe": ("Recipes", "Published combinations of the parts: one YAML file each."),
    "strategy": (
        "Strategies",
        'Ways to look for hyperparameters beside `surefoot tune`, which draws whole recipes: `build("strategy", {"name": ...})` makes one.',
    ),
    "merge": (
        "Merges",
        "Weights combined into one model: of models on disk by `surefoot merge`, of a training and its start under `after` in a recipe.",
    ),
    "estimator": (
        "Estimators",
        "Accuracy on a domain that nobody has labelled. Searches and `surefoot estimate` run them all.",
    ),
    "prior": ("Priors", "The label shares of a domain that nobody has labelled."),
    "calibrator": (
        "Calibrators",
        "Probabilities that say how often the model is right. `surefoot calibrate RUN --data FILE --method NAME` keeps one in a run.",
    ),
    "conformal": (
        "Conformal sets",
        "Sets of classes that hold the truth as often as was asked for. `surefoot conformal RUN --calibrate FILE --data FILE --coverage 0.9` writes them.",
    ),
    "novelty": (
        "Novelty scores",
        "How little an example looks like what the model was trained on. `surefoot novelty RUN --train FILE --known FILE --unknown FILE` compares them.",
    ),
    "compressor": (
        "Compressors",
        "Smaller models. `surefoot compress RUN --method NAME --out FOLDER` makes one and shows what that did at home and away.",
    ),
    "rejector": (
        "Rejectors",
        "Which answers of a fixed model to trust. `surefoot reject RUN --data FILE --test FILE` shows what is gained.",
    ),
    "analysis": (
        "Analyses",
        'One question each, put to scores that have been measured already: `build("analysis", NAME)(...)`.',
    ),
    "attack": (
        "Attacks",
        "Inputs moved until the model errs. `surefoot evaluate --attack NAME` gives the accuracy that is left.",
    ),
    "ensemble": (
        "Ensembles",
        'Several models that answer as one: `build("ensemble", NAME).combine(models)` is a model like any other.',
    ),
    "shift": (
        "Shifts",
        "Examples as another world would show them. `surefoot evaluate --shifts SUITE` runs a list of them; `accuracy lost` is what a shift is meant to cost.",
    ),
    "benchmark": (
        "Benchmarks",
        'Splits, grids, graphs and slices of anybody\'s data by which a shift is measured: `build("benchmark", NAME)` makes one.',
    ),
    "importance": (
        "Importance weights",
        'One weight per source example under a shift of what is to be predicted: `build("importance", NAME).fit(inputs, targets, unlabelled).weights_` is for a regression\'s `sample_weight`.',
    ),
    "word_vectors": (
        "Word vectors",
        "Static vectors of words and texts, learned from texts alone or from a few labels. `surefoot words train --method NAME --input FILE --out FOLDER` learns them.",
    ),
    "pooling": (
        "Poolings",
        'How the states of a text\'s tokens become its vector, and what is written around the text first: `load(NAME, pool="echo")`, `surefoot embed --pooling NAME`.',
    ),
    "code": (
        "Codes",
        'What stands in for vectors and takes less room, learned from some of them: `build("code", NAME).fit(vectors).encode(others)`.',
    ),
    "pairs": (
        "Pair makers",
        "Training data of embedding models from documents, records or labelled examples. `surefoot pairs NAME --input FILE --output FILE` writes them, `surefoot tune --task embedding` learns from them.",
    ),
    "test_time_adapter": (
        "Test-time adapters",
        "A trained model that changes as it meets a stream without labels. `surefoot adapt RUN --data FILE --method NAME --out FOLDER` runs one and takes it back where it does harm.",
    ),
}
ANYWHERE = (
    "compressor",
    "estimator",
    "prior",
    "strategy",
    "attack",
    "ensemble",
    "calibrator",
    "shift",
    "benchmark",
    "conformal",
    "test_time_adapter",
    "novelty",
    "rejector",
    "analysis",
    "importance",
    "pairs",
    "word_vectors",
    "pooling",
    "code",
)


def pages() -> dict[str, str]:
    assert set(KINDS) == set(HOMES), "a kind of method has no page: add it to KINDS and to the nav of mkdocs.yml"
    evidence = {(row["kind"], row["name"]): row for row in rows()}
    return {"methods/index.md": _index(evidence)} | {f"methods/{kind}.md": _kind_page(kind, evidence) for kind in KINDS}


def _index(evidence: dict[tuple[str, str], dict[str, Any]]) -> str:
    lines = [_row(method, evidence[method.kind, method.name]) for method in registered()]
    measured = sum(row["measured"] for row in evidence.values())
    return f"""---
hide: [toc]
---

# Methods

{len(lines)} methods are registered; {measured} of them have been measured here by `surefoot bench`. **Mechanism**: does
the quantity that the method acts on move as it should, beside the same training without it. **Effect**: does it help, on
a track with real data: the mean difference from the baseline over paired seeds with its 95% interval. It is shown
whether it is there or not, and whichever way it goes; where no track can show what a paper claims, that is said instead.
**Cost**: computing time over the baseline's. What a column of figures says of one model and one track need not hold of
yours. Where nothing has been
measured, what the method does stands in grey in place of its claim.

{_held(list(evidence.values()))}

<div class="method-filter"><label>Kind <select data-filter="methods-table"><option value="">all</option>{"".join(f"<option>{kind}</option>" for kind in KINDS)}</select></label> <span aria-live="polite" data-count="methods-table"></span></div>

<div class="table-scroll" tabindex="0" role="region" aria-label="Table of all methods">
<table class="sortable" id="methods-table">
<thead><tr><th>method</th><th>kind</th><th>claim</th><th>mechanism</th><th>effect</th><th>cost</th></tr></thead>
<tbody>
{chr(10).join(lines)}
</tbody></table></div>

A click on a column's name sorts by it, a second one the other way; with the keyboard, Tab and Enter.

## Tracks

What `surefoot bench` measures on. `surefoot bench --list` says what is still to run, `surefoot bench METHOD` runs it.

{_tracks()}
"""


def _held(found: list[dict[str, Any]]) -> str:
    """How much of what is claimed was seen here."""
    shares = {name: share_text(each) for name, each in held(found).items()}
    return (
        f"What is claimed was seen of so many, with 95% Wilson intervals over methods: the mechanism moves as it should in {shares['mechanism']}; "
        f"the mean effect has the claimed sign in {shares['direction']}, beyond its own interval in {shares['effect']}; "
        f"the opposite effect was seen in {shares['harms']}. Tracks are small and models are too: a claim that was not seen here may hold elsewhere."
    )


def _tracks() -> str:
    lines = ["| track | what it is | metric |", "| --- | --- | --- |"]
    for name in track_names():
        track = load_track(name)
        lines.append(f"| {name} | {track.summary} | {track.metric.replace('_', ' ')} |")
    return "\n".join(lines)


def _row(method: Method, row: dict[str, Any]) -> str:
    seen, acts = effect(row), mechanism(row)
    # Until there is an entry that quotes the claim, what the method does stands in its place, and looks it.
    said = ' class="claim"' if row["claim"] else ' class="claim unclaimed"'
    name = f'<a href="{method.kind}.html#{method.name}"><code>{method.name}</code></a>'
    return (
        f'<tr data-kind="{method.kind}"><td data-value="{method.name}">{name}</td><td>{method.kind}</td>'
        f"<td{said}>{inline(row['claim'] or method.summary)}</td>"
        f'<td data-value="{acts.order}"><span class="verdict {acts.mark}">{html.escape(acts.verdict)}</span></td>'
        f'<td data-value="{seen.order}"><span class="verdict {seen.mark}">{html.escape(seen.verdict)}</span> {html.escape(seen.figure)}</td>'
        f'<td data-value="{row["cost_ratio"] or ""}">{cost(row)}</td></tr>'
    )


def _kind_page(kind: str, evidence: dict[tuple[str, str], dict[str, Any]]) -> str:
    title, says = KINDS[kind]
    parts = [f"# {title}", says]
    for method in registered(kind):
        parts += [
            f"## `{method.name}` {{ #{method.name} }}",
            _body(method),
            _evidence(evidence[kind, method.name]),
            _facts(method),
        ]
    return "\n\n".join(parts) + "\n"


def _body(method: Method) -> str:
    """Docstring and how to ask for it."""
    if method.kind == "recipe":
        content = yaml.safe_load(method.make.read_text("utf8"))["recipe"]
        return (
            f"<p>{inline(method.summary)}</p>\n\n```yaml\n{yaml.safe_dump(content, sort_keys=False).strip()}\n```\n\n"
            f"```sh\nsurefoot tune --recipe {method.name} --train FILE --out RUN\n```"
        )
    text = to_markdown(inspect.getdoc(method.make) or "")
    return text if method.kind in ANYWHERE else f"{text}\n\n{_in_a_recipe(method)}"


def _in_a_recipe(method: Method) -> str:
    return f"In a recipe, with its defaults:\n\n```yaml\n{snippet(method)}\n```"


def snippet(method: Method) -> str:
    """The lines of a recipe that ask for the method, with every default written out."""
    parameters = inspect.signature(method.make).parameters.values()
    options: dict[str, Any] = {
        each.name: list(each.default) if isinstance(each.default, tuple) else each.default
        for each in parameters
        if each.kind is each.KEYWORD_ONLY and each.default is not each.empty and each.default is not None
    }
    if method.kind == "objective":
        value: Any = {"objectives": {method.name: {"weight": 1.0, **options}}}
        is_loss = method.family in ("loss", "contrastive") or method.name in ("pgd_at", "trades")
        needs_loss = not is_loss or method.name in ("entropy", "confidence_minimization")
        if needs_loss:  # it is no loss of the labels by itself
            value["objectives"] = {"cross_entropy": 1.0, **value["objectives"]}
    else:
        spec = {"name": method.name, **options}
        value = {"after": [spec]} if method.kind == "merge" else {method.kind: spec}
    return str(yaml.safe_dump(value, sort_keys=False, default_flow_style=None, width=100)).strip()


def _evidence(row: dict[str, Any]) -> str:
    """What was measured, in a list; or that nothing has been."""
    if not row["measured"]:
        return '<p class="evidence">Evidence: not measured yet.</p>'
    acts, seen = mechanism(row), effect(row)
    items = [f"Claim: {inline(row['claim'])}"]
    items.append(
        f'Mechanism: <span class="verdict {acts.mark}">{html.escape(acts.verdict)}</span> {html.escape(acts.figure)}'
    )
    items.append(
        f'Effect: <span class="verdict {seen.mark}">{html.escape(seen.verdict)}</span> {html.escape(seen.figure)}'
    )
    if row["cost_ratio"]:
        items.append(f"Computing time over the baseline's: {cost(row)}")
    if row.get("settings"):
        items.append(f"Settings: {inline(row['settings'])}")
    return '<ul class="evidence">' + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


def _facts(method: Method) -> str:
    """Papers and where the code is."""
    papers = []
    for paper in method.papers:
        title = html.escape(paper.title, quote=False)
        linked = f'<a href="{html.escape(paper.url)}">{title}</a>' if paper.url else title
        papers.append(f"<li>{html.escape(paper.authors)} {paper.year}. {linked}</li>")
    listed = f"<ul>{''.join(papers)}</ul>" if papers else ""
    return f'<div class="paper">{listed}<p>Family: {method.family.replace("_", " ")}. <code>{method.import_path}</code></p></div>'
