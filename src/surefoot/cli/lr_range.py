"""`surefoot lr-range`: which learning rates a recipe bears on given data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from surefoot.cli.app import command
from surefoot.cli.options import Device, Json, Threads

if TYPE_CHECKING:
    from surefoot.search.lr_range import LRRange

#: Columns and lines of the picture.
WIDTH, HEIGHT = 72, 14


@command("lr-range")
def lr_range(
    train: Annotated[str, typer.Option(help="Training data: a file with columns text and label, or a task's part.")],
    recipe: Annotated[str, typer.Option(help="A recipe's name, or its YAML file.")] = "fine_tune",
    model: Annotated[str, typer.Option(help="minilm, a folder, or a name on the model hub.")] = "minilm",
    low: Annotated[float, typer.Option(help="Learning rate of the first step.")] = 1e-7,
    high: Annotated[float, typer.Option(help="Learning rate of the last step.")] = 1.0,
    steps: Annotated[int, typer.Option(help="Batches to train on, at most.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the batches and the head.", min=0)] = 0,
    column: Annotated[list[str], typer.Option(help="Rename a column: intent=label.", metavar="COLUMN=ROLE")] = [],  # noqa: B006 - typer reads it
    threads: Threads = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Train for some batches while the learning rate rises, and show where the loss falls and where it blows up.

    Nothing is kept of the training. Example: surefoot lr-range --train reviews/train --steps 60
    """
    from surefoot.cli.inputs import parse_columns, use_threads
    from surefoot.cli.show import Bars, out, print_json
    from surefoot.data import load_data
    from surefoot.models.load import load
    from surefoot.search.lr_range import lr_range as test
    from surefoot.tune.recipe import Recipe

    use_threads(threads)
    asked = Recipe.load(recipe)
    examples = load_data(train, columns=parse_columns(column))
    start = load(model, device=device)
    with Bars() as bars:
        found = test(asked, start, examples, low=low, high=high, steps=steps, seed=seed, progress=bars)
    if json:
        print_json(found.as_json())
        return
    for line in picture(found):
        out(line)
    rate = f"{found.suggestion:.1e}"
    out(
        "",
        f"lowest loss at   {found.lowest:.1e}   the most that `schedule: one_cycle` should rise to",
        f"steepest fall at {found.steepest:.1e}",
        f"suggestion       {rate}   a tenth of the first, for other schedules: surefoot tune ... --lr {rate}",
    )
    if found.lowest > high / 10:
        out(f"The loss still falls near {high:g}: a higher --high would show more.")


def picture(found: LRRange, *, width: int = WIDTH, height: int = HEIGHT) -> list[str]:
    """The running mean of the loss over the learning rate, as lines of text; `o` marks its lowest point.

    Columns are powers of ten apart alike; the top line is at most twice the first loss, so that the valley is seen.
    """
    import numpy as np

    place = np.log(found.rates)
    across = np.linspace(place[0], place[-1], width)
    losses = np.interp(across, place, found.smoothed)
    bottom, top = float(losses.min()), float(min(losses.max(), 2 * losses[0]))
    span = max(top - bottom, 1e-9)
    rows = np.round((height - 1) * (1 - (np.minimum(losses, top) - bottom) / span)).astype(int)
    marked = int(np.abs(across - np.log(found.lowest)).argmin())
    lines = []
    for row in range(height):
        cells = ["o" if x == marked else "·" if rows[x] == row else " " for x in range(width)]
        drawn = "".join(cell if cell != "o" or rows[x] == row else " " for x, cell in enumerate(cells))
        value = top - span * row / (height - 1)
        lines.append(f"{value:8.3f} |{drawn}".rstrip())
    ends = f"{found.rates[0]:.0e}", f"{found.rates[-1]:.0e}"
    lines.append(" " * 9 + "+" + "-" * width)
    lines.append(" " * 10 + ends[0] + "learning rate".center(width - len(ends[0]) - len(ends[1])) + ends[1])
    return lines
