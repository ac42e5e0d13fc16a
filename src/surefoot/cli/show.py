"""What people see: tables with intervals, and progress with rate and time left."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from surefoot.assess.metrics import Metrics

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
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), MofNCompleteColumn(), Rate(), TimeElapsedColumn(), TimeRemainingColumn())
        self.live = errors.is_terminal
        self._bars = Progress(*columns, console=errors, transient=True, disable=not self.live)
        self.prefix = ""

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
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


def interval(metrics: Metrics) -> str:
    """`71.3 [68.4, 74.0]`, in percent."""
    a = metrics.accuracy
    return f"{100 * a.value:.1f} [{100 * a.low:.1f}, {100 * a.high:.1f}]"


def domain_table(domain: str, results: Mapping[str, Metrics], *, home: bool) -> Table:
    """One domain: a row per method, every metric beside the others."""
    first = next(iter(results.values()))
    where = "home" if home else "away"
    table = Table(title=f"{domain} ({where}, {first.examples:,} examples, majority {100 * first.majority:.1f})", title_justify="left", title_style="bold")
    for column in ("method", "accuracy [95% interval]", "balanced", "AUC", "at true prior", "log-loss"):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    best = max(metrics.accuracy.value for metrics in results.values())
    for name, m in results.items():
        style = "bold" if m.accuracy.value == best else ""
        auc = f"{100 * m.auc:.1f}" if m.auc is not None else "-"
        table.add_row(name, interval(m), f"{100 * m.balanced_accuracy:.1f}", auc, f"{100 * m.accuracy_at_true_prior:.1f}", f"{m.log_loss:.3f}", style=style)
    return table


def metrics_table(results: Mapping[str, Metrics]) -> Table:
    """One model: a row per test set."""
    table = Table()
    for column in ("test set", "examples", "accuracy [95% interval]", "balanced", "AUC", "at true prior", "majority", "log-loss"):
        table.add_column(column, justify="left" if column == "test set" else "right", no_wrap=True)
    for name, m in results.items():
        auc = f"{100 * m.auc:.1f}" if m.auc is not None else "-"
        table.add_row(name, f"{m.examples:,}", interval(m), f"{100 * m.balanced_accuracy:.1f}", auc, f"{100 * m.accuracy_at_true_prior:.1f}", f"{100 * m.majority:.1f}", f"{m.log_loss:.3f}")
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
