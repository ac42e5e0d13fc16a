"""`surefoot bench`: measure methods against their baselines, and write what was found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surefoot.cli.app import command
from surefoot.cli.options import Json

if TYPE_CHECKING:
    from surefoot.evidence.entry import Entry
    from surefoot.evidence.runner import Plan


@command("bench")
def bench(
    methods: Annotated[
        list[str] | None, typer.Argument(metavar="[METHOD]...", help="NAME or KIND/NAME; all methods without one.")
    ] = None,
    track: Annotated[str | None, typer.Option(help="Only methods on this track, and the track's own baseline.")] = None,
    seeds: Annotated[int, typer.Option(min=3, help="Paired seeds. With three an interval is 1.9 times as wide.")] = 5,
    workers: Annotated[int, typer.Option(min=1, help="Jobs at a time, of one thread each.")] = 2,
    engine: Annotated[str, typer.Option(help="Where jobs run: local or ray.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of the Ray cluster.")] = None,
    store: Annotated[
        Path | None, typer.Option(help="Folder of what has run; the same command goes on from there.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; by default where `surefoot methods` reads them.")
    ] = None,
    speed: Annotated[bool, typer.Option("--speed", help="Measure speed instead: rounds of arms in turn.")] = False,
    baseline: Annotated[
        Path | None, typer.Option(help="With --speed: the plain loop's script to compare with.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="With --speed: how often each arm runs.")] = 3,
    show: Annotated[bool, typer.Option("--list", help="Only list entries, tracks and what is still to run.")] = False,
    json: Json = False,
) -> None:
    """Measure methods: mechanism and effect over paired seeds, against a baseline on a track."""
    from surefoot.assets import cache_folder
    from surefoot.cli.show import errors, print_json
    from surefoot.cli.show import out as show_out
    from surefoot.engine import open_engine
    from surefoot.evidence import runner
    from surefoot.evidence.entry import choose
    from surefoot.evidence.results import results_folder
    from surefoot.evidence.table import held, share_text
    from surefoot.evidence.track import load_track, track_names

    store = store or cache_folder() / "bench"
    if speed:
        _speed(baseline, rounds, store, out or results_folder(), json=json)
        return
    if track is not None:
        load_track(track)
    chosen = choose(methods or [], track=track)
    usable, missing = runner.usable(chosen)
    for sentence in missing:
        errors.print(sentence, highlight=False, soft_wrap=True)
    own = [track] if track else ([] if methods else track_names())
    own = runner.tracks_here(own)
    planned = runner.plan(usable, seeds=range(seeds), tracks=own)
    if show:
        _list(usable, planned, store, json=json)
        return
    folder = out or results_folder()
    try:
        with open_engine(engine, workers=workers, address=address) as opened:
            _run(planned, opened, store)
    finally:  # also after Ctrl-C: what is complete is worth having
        found = runner.write_results(usable, planned, store=store, folder=folder)
        tracks = runner.write_tracks(planned, store=store, folder=folder)
    if json:
        print_json({"methods": found, "tracks": tracks})
        return
    show_out(results_table(found))
    if len(found) > 1:
        shares = {name: share_text(each) for name, each in held(found).items()}
        show_out("what is claimed was seen: " + "; ".join(f"{name} {each}" for name, each in shares.items()))
    show_out(tracks_table(tracks))
    show_out(f"written to {folder}")


def _run(planned: Plan, engine: Any, store: Path) -> None:
    """Run the jobs; a line for each as it ends, with the time left."""
    import time

    from surefoot.cli.show import errors
    from surefoot.evidence import runner

    there, began = len(runner.finished(planned, store=store)), time.monotonic()
    total = len(planned.jobs)
    if there:
        errors.print(f"{there} of {total} jobs have run before", highlight=False)
    for done, (job, result) in enumerate(runner.execute(planned, engine, store=store), start=1):
        if done <= there:
            continue
        each = (time.monotonic() - began) / (done - there)
        left = (total - done) * each / 60
        figure = runner.figure(job, result)
        errors.print(
            f"{done}/{total} {job.track}, seed {job.seed}: {job.label}: {figure}; {left:.0f} min left",
            highlight=False,
            soft_wrap=True,
        )


def _speed(baseline: Path | None, rounds: int, store: Path, folder: Path, *, json: bool) -> None:
    """Rounds in this process, nothing beside them: an engine of one worker."""
    from rich.table import Table

    from surefoot.cli.show import errors, out, print_json
    from surefoot.engine import open_engine
    from surefoot.evidence import speed
    from surefoot.files import write_json

    rates = []
    with open_engine() as engine:
        for number, (_, found) in enumerate(
            speed.rounds(engine, baseline=baseline, count=rounds, store=store), start=1
        ):
            rates.append(found)
            errors.print(f"round {number} of {rounds} has run", highlight=False)
    result = speed.summarise(rates)
    write_json(folder / "speed.json", result)
    if json:
        print_json(result)
        return
    table = Table()
    for column in ("case", "median", "range", "asked"):
        table.add_column(column)
    for name, ratio in result["ratios"].items():
        row = (f"{ratio['median']:.2f}x", f"{ratio['min']:.2f} to {ratio['max']:.2f}", f"{ratio['asked']}")
        table.add_row(name, *row)
    out(table)
    out(f"written to {folder / 'speed.json'}")


def _list(entries: list[Entry], planned: Plan, store: Path, *, json: bool) -> None:
    from rich.table import Table

    from surefoot.cli.show import out, print_json
    from surefoot.evidence import runner

    done = runner.finished(planned, store=store)
    rows = [
        {
            "method": f"{entry.kind}/{entry.name}",
            "track": entry.track,
            "mechanism": f"{entry.mechanism.quantity} should {entry.mechanism.should}",
            "to_run": sum(key not in done for key in {key for keys in planned.keys[entry.key] for key in keys}),
        }
        for entry in entries
    ]
    if json:
        print_json(rows)
        return
    table = Table()
    for column in ("method", "track", "mechanism", "still to run"):
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    out(table)
    out(f"{len(done)} of {len(planned.jobs)} jobs have run; arms that methods share are counted with each")


def results_table(results: list[dict[str, Any]]) -> Any:
    """Mechanism, effect with its interval, cost."""
    from rich.table import Table

    table = Table()
    for column in ("method", "mechanism: with / without", "", "track", "effect [95% interval]", "", "cost"):
        table.add_column(column)
    for each in results:
        mechanism, effect = each["mechanism"], each["effect"]
        ratio = each["cost_ratio"]
        table.add_row(
            f"{each['kind']}/{each['name']}",
            f"{mechanism['quantity']}: {mechanism['with']:.4g} / {mechanism['without']:.4g}",
            mechanism["verdict"],
            mechanism["track"],
            effect_text(effect) if effect else "",
            effect["verdict"] if effect else f"no suitable track: {each['no_track']}",
            f"{ratio:.2f}x" if ratio is not None else "",
        )
    return table


def tracks_table(tracks: list[dict[str, Any]]) -> Any:
    """What the tracks' own baselines give."""
    from rich.table import Table

    table = Table()
    for column in ("track", "metric", "baseline, range over seeds", "seconds"):
        table.add_column(column)
    for each in tracks:
        low, high = min(each["values"]), max(each["values"])
        table.add_row(
            each["track"], each["metric"], f"{each['mean']:.4f} ({low:.4f} to {high:.4f})", f"{each['seconds']:.1f}"
        )
    return table


def effect_text(effect: dict[str, Any]) -> str:
    """`+1.2 [-0.3, +2.7]`: points of a share, in percent."""
    return "{:+.1f} [{:+.1f}, {:+.1f}] {}".format(
        *(100 * effect[end] for end in ("difference", "low", "high")), effect["metric"]
    )
