"""What people see: tables with intervals, and progress with rate and time left."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from surefoot.assess.metrics import Metrics, Value, over_seeds

#: Progress and notes go to standard error, so that standard output stays clean for tables and JSON.
errors = Console(stderr=True)


class Rate(TextColumn):
    """Examples a second."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Any) -> Any:
        from rich.text import Text

        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", style="cyan")


class Bars:
    """Live progress bars on a terminal; off a terminal a line when each piece of work begins."""

    def __init__(self) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.live = errors.is_terminal
        self._bars = Progress(*columns, console=errors, transient=True, disable=not self.live)
        self.prefix = ""

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def start(self, label: str, total: int) -> Callable[[int], None]:
        text = f"{self.prefix}{label}"
        if not self.live and total:
            errors.print(f"{text}: {total:,} examples", highlight=False)
        for task in self._bars.tasks:
            if task.finished:
                self._bars.remove_task(task.id)
        number = self._bars.add_task(text, total=total)
        return lambda count: self._bars.update(number, advance=count)


def print_json(value: Any) -> None:
    """JSON on standard output, for programs."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def interval(accuracy: Value) -> str:
    """`71.3 [68.4, 74.0]`, in percent."""
    return f"{100 * accuracy.value:.1f} [{100 * accuracy.low:.1f}, {100 * accuracy.high:.1f}]"


def spread(values: Sequence[float | None], *, scale: float = 100.0, digits: int = 1) -> str:
    """`71.3 ±1.2`: the mean over seeds and half the distance between the lowest and the highest."""
    known = [scale * value for value in values if value is not None]
    if not known:
        return "-"
    mean = sum(known) / len(known)
    return f"{mean:.{digits}f}" + (f" ±{(max(known) - min(known)) / 2:.{digits}f}" if len(known) > 1 else "")


def domain_table(domain: str, results: Mapping[str, Sequence[Metrics]], *, home: bool) -> Table:
    """One domain: a row per method, every metric beside the others, with the spread over seeds."""
    first = next(iter(results.values()))
    majority = spread([m.majority for m in first])
    title = f"{domain} ({'home' if home else 'away'}; {first[0].examples:,} examples; majority {majority})"
    table = Table(title=title, title_justify="left", title_style="bold")
    seeds = len(first) > 1
    for column in (
        "method",
        "accuracy [95% interval]",
        *(["over seeds"] if seeds else []),
        "balanced",
        "AUC",
        "at true prior",
        "log-loss",
    ):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    best = max(over_seeds(each).value for each in results.values())
    for name, each in results.items():
        accuracy = over_seeds(each)
        cells = [interval(accuracy)]
        if seeds:
            cells.append(spread([m.accuracy.value for m in each]))
        cells += [spread([m.balanced_accuracy for m in each]), spread([m.auc for m in each])]
        cells += [
            spread([m.accuracy_at_true_prior for m in each]),
            spread([m.log_loss for m in each], scale=1, digits=3),
        ]
        table.add_row(name, *cells, style="bold" if accuracy.value == best else "")
    return table


def accuracy_table(
    accuracy: Mapping[str, Mapping[str, Mapping[str, float]]],
    *,
    home: str,
    corrected: Mapping[str, Mapping[str, float]],
    layers: int,
) -> Table:
    """Methods by domain, in percent with 95% intervals; below, what the corrected decision makes of the last."""
    table = Table(title=f"accuracy [95% interval]; the top {layers} layers train, everywhere", title_justify="left")
    domains = list(next(iter(accuracy.values())))
    table.add_column("method", no_wrap=True)
    for domain in domains:
        table.add_column(f"{domain} ({'home' if domain == home else 'away'})", justify="right", no_wrap=True)
    for name, by in accuracy.items():
        table.add_row(name, *(interval(Value(**by[domain])) for domain in domains))
    if corrected:
        cells = [interval(Value(**corrected[domain])) if domain in corrected else "" for domain in domains]
        table.add_row("  with its decision corrected", *cells)
    return table


def forecast_table(forecasts: Mapping[str, Mapping[str, Any]]) -> Table:
    """What was said without labels, beside what labels say."""
    table = Table(title="forecast without labels", title_justify="left")
    for column in ("domain", "estimate", "accuracy [95% interval]", "truth"):
        table.add_column(column, justify="left" if column in ("domain", "estimate") else "right", no_wrap=True)
    for domain, each in forecasts.items():
        for name, estimate in each["estimates"].items():
            table.add_row(domain, name, interval(Value(**estimate)), f"{100 * each['true']:.1f}")
    return table


def metrics_table(results: Mapping[str, Metrics]) -> Table:
    """One model: a row per test set."""
    table = Table()
    robust = any(m.robust_accuracy is not None for m in results.values())
    for column in (
        "test set",
        "examples",
        "accuracy [95% interval]",
        *(["under attack"] if robust else []),
        "balanced",
        "AUC",
        "at true prior",
        *([] if robust else ["majority", "log-loss"]),  # a line has room for so many
    ):
        table.add_column(column, justify="left" if column == "test set" else "right", no_wrap=True)
    for name, m in results.items():
        auc = f"{100 * m.auc:.1f}" if m.auc is not None else "-"
        table.add_row(
            name,
            f"{m.examples:,}",
            interval(m.accuracy),
            *([interval(m.robust_accuracy) if m.robust_accuracy else "-"] if robust else []),
            f"{100 * m.balanced_accuracy:.1f}",
            auc,
            f"{100 * m.accuracy_at_true_prior:.1f}",
            *([] if robust else [f"{100 * m.majority:.1f}", f"{m.log_loss:.3f}"]),
        )
    return table


def shifts_table(name: str, found: Mapping[str, Any]) -> Table:
    """One set under a suite: a row per shift, a column per severity, in percent with 95% intervals."""
    severities = sorted({each["severity"] for each in found["shifts"]})
    plain = interval(Value(**found["unshifted"]))
    title = f"{name} under shifts: accuracy [95% interval] by severity; as it is {plain}"
    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False)
    for column in ("shift", *map(str, severities), "lost at the last"):
        table.add_column(column, justify="left" if column == "shift" else "right", no_wrap=column != "shift")
    rows: dict[str, dict[int, Mapping[str, Any]]] = {}
    for each in found["shifts"]:
        rows.setdefault(each["shift"], {})[each["severity"]] = each
    for shift, by in rows.items():
        lost = by[max(by)]["difference"]
        cells = [interval(Value(**by[each]["accuracy"])) if each in by else "" for each in severities]
        ends = f"{0 - 100 * lost['value']:.1f} [{0 - 100 * lost['high']:.1f}, {0 - 100 * lost['low']:.1f}]"
        table.add_row(shift, *cells, ends)
    return table


def plain_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Rows of text under a title."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    return table


def out(*renderables: Any) -> None:
    """Print to standard output, as wide as its tables need when it is not a terminal."""
    console = Console() if sys.stdout.isatty() else Console(width=110)
    for each in renderables:
        console.print(each, highlight=False)


def notes(lines: Sequence[str]) -> None:
    """What the user should know, on standard error."""
    for line in lines:
        errors.print(f"note: {line}", highlight=False)
