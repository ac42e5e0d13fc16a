"""What a step of each method costs beside cross-entropy with AdamW: time, peak memory, and the passes that it makes.

    python benchmarks/objectives.py                       # every objective, reducer and optimizer: about half an hour
    python benchmarks/objectives.py --only smart sam      # some, by name
    python benchmarks/objectives.py --kinds selection     # what trains, through what
    python benchmarks/objectives.py --products            # only count the products of those that lack the count

MiniLM on movie sentences, batches of 32, one thread, each method in a process of its own. Time is computing time, which
other processes do not count towards; each step is compared with plain training's step on the same batch, and the median
over steps is reported. Passes are counted as they happen, at the only place where a training runs its model: one with a
gradient counts 1, one without a third, each by the tokens that it reads beside the batch's; a pass whose gradient is
differentiated again counts 2 (six products for each weight and not three: to the inputs and back through both of those
that it then has). `over` is time beyond that count; 15% at most is asked. `products` are the multiplications of matrices
that a step makes beside plain training's, as torch counts them: they show what a count of passes leaves out (ELECTRA's
generator) and what a method spares (the gradients of frozen weights); what is left beyond them is elementwise, drawn, or
a library's own loop. Results are written to benchmarks/results/objectives.json as they come; a method that is there
already is not run again unless it is named.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from surefoot import Recipe, load, load_task
from surefoot.data.examples import Examples
from surefoot.environment import environment
from surefoot.errors import SurefootError
from surefoot.files import write_json
from surefoot.models.model import Model
from surefoot.registry import methods
from surefoot.tune.fit import Fit
from surefoot.tune.step import Step

RESULTS = Path(__file__).parent / "results" / "objectives.json"
KINDS = ("objective", "reducer", "optimizer", "selection")
#: Steps that are timed, after two that warm up; and the most that is asked beyond the count of passes.
STEPS, WARM, ASKED = 12, 2, 0.15
#: Steps whose products are counted, after one that may set things up.
COUNTED = 2
PLAIN: dict[str, Any] = {"objectives": {"cross_entropy": 1.0}, "optimizer": "adamw", "head": "probe", "max_length": 64}


def fields_of(kind: str, name: str) -> dict[str, Any]:
    """The plain recipe with the method in it: objectives beside cross-entropy, everything else in place of the usual."""
    if kind == "objective" and name != "cross_entropy":
        return PLAIN | {"objectives": {"cross_entropy": 1.0, name: 0.1}}
    return PLAIN | ({kind: name} if kind != "objective" else {})


# --- one method, in a process of its own


def measure(kind: str, name: str) -> dict[str, Any]:
    """Ratios of a step's time and of the training's peak memory, and the counts of passes and products."""
    model, train = given()
    floor = memory("VmRSS")
    plain = [run(PLAIN, model, train, floor)]
    with counting() as count:
        own = run(fields_of(kind, name), model, train, floor)
    plain.append(run(PLAIN, model, train, floor))
    steps = np.mean([each["seconds"] for each in plain], axis=0)
    ratios = np.asarray(own["seconds"]) / steps
    passes = count() / (STEPS + WARM)
    return {
        "time": float(np.median(ratios)),
        "from": float(ratios.min()),
        "to": float(ratios.max()),
        "passes": passes,
        "over": float(np.median(ratios)) / passes - 1,
        "memory": own["peak"] / max(each["peak"] for each in plain) if floor else None,
        "seconds": float(np.median(own["seconds"])),
        "products": products(kind, name, model, train),
    }


def given() -> tuple[Model, Examples]:
    """What is trained, and on what."""
    torch.set_num_threads(1)
    model, whole = load("minilm"), load_task("reviews").train
    train = whole.take(np.arange(32 * (STEPS + WARM)))
    return model, replace(train, group=np.array(["even", "odd"])[np.arange(len(train)) % 2])


def products(kind: str, name: str, model: Model, train: Examples) -> float:
    """Multiply-adds in matrix products of a step, beside those of plain training on the same batches."""
    few = train.take(np.arange(32 * (COUNTED + 1)))
    return float(np.mean(multiplied(fields_of(kind, name), model, few) / multiplied(PLAIN, model, few)))


def multiplied(fields: dict[str, Any], model: Model, train: Examples) -> np.ndarray:
    """Of each step but the first, as torch counts."""
    fit = Fit(Recipe(**fields, epochs=1, batch_size=32, cache=False), model, train)
    marks: list[int] = []
    with Multiplying() as counter:
        fit.run(looks=range(1, COUNTED + 2), look=lambda step: marks.append(counter.total))
    return np.diff(marks)


class Multiplying(TorchDispatchMode):
    """Counts by torch's own formulas; its FlopCounterMode hooks modules too, which gradients of a few leaves do not bear."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.total += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=found)
        return found


def run(fields: dict[str, Any], model: Model, train: Examples, floor: int) -> dict[str, Any]:
    """Computing seconds of each step but the first ones, and bytes at the peak beyond the loaded model."""
    fit = Fit(Recipe(**fields, epochs=1, batch_size=32, cache=False), model, train)
    forget_peak()
    marks = [time.process_time()]
    fit.run(looks=range(1, STEPS + WARM + 1), look=lambda step: marks.append(time.process_time()))
    return {
        "seconds": np.diff(marks)[WARM:],
        "peak": memory("VmHWM") - floor,
    }


@contextmanager
def counting() -> Iterator[Callable[[], float]]:
    """Passes made within, by the tokens that they read beside the batch's."""
    made, latest, again, gradient = [0.0], [0.0], Step.again, torch.autograd.grad

    def differentiated(*given: Any, **options: Any) -> Any:
        if options.get("create_graph"):  # block by block, perhaps: once for each pass
            made[0], latest[0] = made[0] + latest[0], 0.0
        return gradient(*given, **options)

    def counted(step: Step, **options: Any) -> Any:
        read = options.get("inputs") or step.batch.inputs
        size = read["input_ids"].numel() / step.batch.inputs["input_ids"].numel()
        latest[0] = size * (1.0 if torch.is_grad_enabled() else 1 / 3)
        made[0] += latest[0]
        return again(step, **options)

    Step.again = counted  # type: ignore[method-assign]
    torch.autograd.grad = differentiated
    try:
        yield lambda: made[0]
    finally:
        Step.again = again  # type: ignore[method-assign]
        torch.autograd.grad = gradient


def memory(field: str) -> int:
    """Bytes of this process, as Linux says: VmRSS now, VmHWM at the peak; 0 elsewhere."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)


def forget_peak() -> None:
    """Let VmHWM begin again at what is used now."""
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5")


# --- all of them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", metavar="NAME", default=[])
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS[:3])
    parser.add_argument("--products", action="store_true", help="count products, and time nothing again")
    parser.add_argument("--measure", metavar="KIND/NAME", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(attempt(*args.measure.split("/"))))
        return
    known: dict[str, Any] = json.loads(RESULTS.read_text())["methods"] if RESULTS.exists() else {}
    chosen = [
        f"{m.kind}/{m.name}" for m in methods() if m.kind in args.kinds and (not args.only or m.name in args.only)
    ]
    if args.products:
        todo = [key for key in chosen if "time" in known.get(key, {}) and (args.only or "products" not in known[key])]
        here = given() if todo else None
    else:
        todo, here = [key for key in chosen if args.only or key not in known], None
    for key in track(todo, "methods", console=Console(stderr=True)):
        if here is not None:
            known[key]["products"] = products(*key.split("/"), *here)
        else:
            command = [sys.executable, __file__, "--measure", key]
            told = subprocess.run(command, capture_output=True, text=True, check=True)
            known[key] = json.loads(told.stdout.splitlines()[-1])
        write_json(RESULTS, {"methods": dict(sorted(known.items())), "environment": environment()})
    Console().print(table({key: known[key] for key in chosen if key in known}))


def attempt(kind: str, name: str) -> dict[str, Any]:
    """The measurement, or why it cannot be made on sentences with a probe."""
    try:
        return measure(kind, name)
    except SurefootError as error:
        return {"reason": str(error)}


def table(found: dict[str, dict[str, Any]]) -> Table:
    shown = Table(title="a step beside cross-entropy with AdamW")
    for column in ("method", "time", "passes", "over", "products", "memory"):
        shown.add_column(column, justify="left" if column == "method" else "right")
    for key, each in found.items():
        if "reason" in each:
            shown.add_row(key, f"[dim]{each['reason']}[/dim]")
            continue
        mark = " !" if each["over"] > ASKED else ""
        peak = f"{each['memory']:.2f}" if each["memory"] else "-"
        count = f"{each['products']:.2f}" if "products" in each else "-"
        shown.add_row(key, f"{each['time']:.2f}", f"{each['passes']:.2f}", f"{each['over']:+.0%}{mark}", count, peak)
    measured = [each for each in found.values() if "over" in each]
    if measured:
        within = sum(each["over"] <= ASKED for each in measured)
        counted = sum(each["time"] <= (1 + ASKED) * max(each["passes"], each.get("products", 0)) for each in measured)
        median = statistics.median(each["over"] for each in measured)
        shown.caption = f"{within} of {len(measured)} within 15% of their passes, {counted} of passes or products; median {median:+.0%}"
    return shown


if __name__ == "__main__":
    main()
