"""The live view of a search: the best trials so far, the time left, the training under way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from statistics import fmean, median
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from surefoot.cli.show import Rate, errors
from surefoot.search.answer import leaderboard
from surefoot.search.bank import KINDS

if TYPE_CHECKING:
    from surefoot.search.clock import Clock
    from surefoot.search.journal import Entry
    from surefoot.search.plan import Plan

#: Trials shown while the search goes on.
SHOWN = 5


class Board:
    """On a terminal a live table on standard error; elsewhere a line for each finished trial.

    It is the search's `progress`, and its `told` the search's `after`.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.live = plan, errors.is_terminal
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            Rate(),
            TimeRemainingColumn(),
            console=errors,
        )
        self._entries: list[Entry] = []
        self._clock: Clock | None = None
        self._took: list[float] = []
        self._last = time.monotonic()
        # Asked for its content at once, so it comes last.
        self._view = Live(get_renderable=self._render, console=errors, refresh_per_second=4, transient=True)

    def __enter__(self) -> Board:
        if self.live:
            self._view.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self._view.stop()

    def start(self, label: str, total: int) -> Callable[[int], None]:
        """A bar for the work under way. A search does one thing at a time, so the one before goes."""
        for task in self._bar.tasks:
            self._bar.remove_task(task.id)
        name, _, drawn = label.partition("-")
        # Trials are counted from 0 inside and from 1 on the screen.
        label = self._of(int(drawn) + 1) if name == "trial" and drawn.isdigit() else label
        number = self._bar.add_task(label, total=total)

        def advance(count: int) -> None:
            if number in self._bar.task_ids:
                self._bar.update(number, advance=count)

        return advance

    def told(self, entries: list[Entry], clock: Clock) -> None:
        """After a finished trial. The first call of a resumed search brings all that an earlier process finished."""
        new = entries[len(self._entries) :]
        first = not self._entries
        self._entries, self._clock = entries, clock
        if len(new) == 1 and not first:
            self._took.append(time.monotonic() - self._last)
        self._last = time.monotonic()
        if self.live or not new:
            return
        if len(new) > 1:
            errors.print(f"going on after {len(entries)} trials that are finished already", highlight=False)
            return
        best = leaderboard(entries)
        behind = f"; best {best[0].value:.4f}, trial {best[0].number + 1}" if best else ""
        errors.print(f"{self._of(new[0].number + 1)}: {line(new[0])}{behind}", highlight=False, soft_wrap=True)

    def _of(self, number: int) -> str:
        return f"trial {number}" + ("" if math.isinf(self.plan.count) else f" of {self.plan.count:.0f}")

    def _left(self) -> float:
        """Seconds until the trials end, as far as one can tell; infinity where one cannot."""
        usual = median if self.plan.batch == 1 else fmean  # several workers end at odd intervals
        took = self._took[-max(9, self.plan.batch) :]
        rest = usual(took) * (self.plan.count - len(self._entries)) if took else math.inf
        return max(0.0, min(rest, self._clock.left() if self._clock is not None else math.inf))

    def _render(self) -> Group:
        entries, left = self._entries, self._left()
        table = Table(title=f"best so far, by {self.plan.rule} on the judge (lower is better)", title_justify="left")
        for column in ("trial", "what", "layers", "lr", "score", "seconds"):
            table.add_column(column, justify="left" if column == "what" else "right", no_wrap=True)
        for entry in leaderboard(entries)[:SHOWN]:
            layers, rate = layers_of(entry), rate_of(entry)
            table.add_row(
                str(entry.number + 1),
                what(entry),
                "-" if layers is None else str(layers),
                "-" if rate is None else f"{rate:.1e}",
                f"{entry.value:.4f}",
                f"{entry.attrs.get('seconds', 0.0):.1f}",
            )
        if len(entries) >= self.plan.count or left == 0:
            state = f"{len(entries)} trials; choosing the answer"
        else:
            state = self._of(len(entries) + 1)
            state += "" if math.isinf(left) else f"; about {clock_time(left)} left"
            state += "; Ctrl-C gives the answer from the trials so far" if entries else ""
        return Group(table, Text(state), self._bar.get_renderable())


def what(entry: Entry) -> str:
    """A baseline's name, or the start that a trial was drawn from with the unusual among what was drawn."""
    name = str(entry.attrs.get("name", ""))
    if name and not name.startswith("trial-"):
        return name
    start = str(entry.attrs.get("start") or entry.params.get("start") or "drawn")
    return " + ".join([start, *(str(entry.params[kind]) for kind in KINDS if kind in entry.params)])


def layers_of(entry: Entry) -> int | None:
    """Top layers that trained; None where the recipe does not say it in layers."""
    selection = entry.attrs.get("recipe", {}).get("selection", {})
    return {"top_layers": selection.get("k"), "head": 0}.get(selection.get("name"), entry.params.get("layers"))


def rate_of(entry: Entry) -> float | None:
    """The learning rate, where something was trained by gradient."""
    recipe = entry.attrs.get("recipe", {})
    if recipe and not recipe.get("epochs"):
        return None
    optimizer = recipe.get("optimizer", {})
    rate = optimizer.get("inner", optimizer).get("lr", entry.params.get("lr"))
    return None if rate is None else float(rate)


def line(entry: Entry) -> str:
    """A finished trial in one line."""
    layers, rate = layers_of(entry), rate_of(entry)
    parts = [what(entry)]
    parts += [] if layers is None else [f"{layers} layers"]
    parts += [] if rate is None else [f"lr {rate:.1e}"]
    if entry.state == "complete":
        return f"{', '.join(parts)}: score {entry.value:.4f}, {entry.attrs.get('seconds', 0.0):.1f} s"
    reason = " ".join(str(entry.attrs.get("reason", "")).split())
    return f"{', '.join(parts)}: {'given up' if entry.state == 'pruned' else 'failed'} ({reason})"


def clock_time(seconds: float) -> str:
    """
    >>> clock_time(75), clock_time(8), clock_time(3700)
    ('1:15', '0:08', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
