"""The registry: every method with its kind, its paper and where it lives.

A method registers itself by a decorator in the one file that holds it; the files of each kind's folder are
imported on the first question, so adding a file adds the method and nothing else has to change.

    @register("focal", kind="objective", family="loss", papers=[Paper("Focal Loss for ...", "Lin et al.", 2017, arxiv="1708.02002")])
    class Focal(Objective): ...
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from surefoot.errors import RecipeError, SurefootError, nearest

#: Where the methods of each kind live: one folder a kind, one file a method.
HOMES = {
    "pooling": "surefoot.models.poolings",
    "code": "surefoot.embed.codes",
    "objective": "surefoot.tune.objectives",
    "reducer": "surefoot.tune.reducers",
    "optimizer": "surefoot.tune.optimizers",
    "selection": "surefoot.tune.selections",
    "recipe": "surefoot.tune.recipes",
    "strategy": "surefoot.search.strategies",
    "merge": "surefoot.merge",
    "estimator": "surefoot.assess.estimators",
    "prior": "surefoot.assess.priors",
    "calibrator": "surefoot.assess.calibrators",
    "conformal": "surefoot.assess.conformals",
    "novelty": "surefoot.assess.novelties",
    "rejector": "surefoot.assess.rejectors",
    "analysis": "surefoot.assess.analyses",
    "attack": "surefoot.attacks",
    "ensemble": "surefoot.ensembles",
    "shift": "surefoot.shifts",
    "benchmark": "surefoot.shifts.benchmarks",
    "compressor": "surefoot.compress",
    "test_time_adapter": "surefoot.adapt",
    "importance": "surefoot.assess.importances",
    "word_vectors": "surefoot.embed.words",
    "pairs": "surefoot.data.pairs",
}


@dataclass(frozen=True)
class Paper:
    """A publication, `title` exactly as printed, so that coverage can be counted by machine."""

    title: str
    authors: str
    year: int
    arxiv: str | None = None
    link: str | None = None

    @property
    def url(self) -> str | None:
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else self.link


@dataclass(frozen=True)
class Method:
    """One registered method."""

    name: str
    kind: str
    family: str
    make: Any
    summary: str
    import_path: str
    papers: tuple[Paper, ...]

    def as_json(self) -> dict[str, Any]:
        """The shape that `surefoot methods --json` promises."""
        from surefoot.evidence.table import verdicts

        papers = [
            {key: value for key, value in asdict(paper).items() if key in ("title", "authors", "year")}
            | {"url": paper.url}
            for paper in self.papers
        ]
        return {
            "name": self.name,
            "kind": self.kind,
            "family": self.family,
            "summary": self.summary,
            "import_path": self.import_path,
            "papers": papers,
            "evidence": verdicts(self.kind, self.name),
        }


_methods: dict[tuple[str, str], Method] = {}
_refused: dict[tuple[str, str], str] = {}
_loaded: set[str] = set()
T = TypeVar("T")


def register(name: str, *, kind: str, family: str, papers: Sequence[Paper] = ()) -> Callable[[T], T]:
    """Register the decorated class or function under `name`. Its docstring's first line becomes the summary."""

    def keep(thing: T) -> T:
        path = f"{thing.__module__}.{getattr(thing, '__qualname__', name)}"
        summary = (inspect.getdoc(thing) or "").split("\n")[0]
        add(
            Method(
                name=name, kind=kind, family=family, make=thing, summary=summary, import_path=path, papers=tuple(papers)
            )
        )
        return thing

    return keep


def add(method: Method) -> None:
    """Register a method that is not a decorated class, such as a recipe read from YAML."""
    if method.kind not in HOMES:
        raise SurefootError(f"unknown kind `{method.kind}` for method `{method.name}`: {nearest(method.kind, HOMES)}")
    known = _methods.get((method.kind, method.name))
    if known is not None and known.import_path != method.import_path:
        raise SurefootError(
            f"two {method.kind}s are named `{method.name}`: {known.import_path} and {method.import_path}"
        )
    _methods[method.kind, method.name] = method


def refuse(name: str, *, kind: str, why: str) -> None:
    """Say what to use in place of a method that people know by that name and that is not here."""
    _refused[kind, name] = why


def _load(kind: str) -> None:
    if kind in _loaded:
        return
    package = importlib.import_module(HOMES[kind])
    for module in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
        importlib.import_module(f"{package.__name__}.{module}")
    _loaded.add(kind)


def methods(kind: str | None = None) -> list[Method]:
    """Every registered method, or those of one kind, sorted by kind and name."""
    for each in [kind] if kind else HOMES:
        _load(each)
    return [method for (its_kind, _), method in sorted(_methods.items()) if kind in (None, its_kind)]


def name_of(thing: object) -> str:
    """The name that a method's class is registered under, as messages call it; the class's own if it is under none."""
    kind = type(thing)
    return next((each.name for each in _methods.values() if each.make is kind), kind.__name__)


def get(kind: str, name: str) -> Method:
    """The method of that kind and name.

    >>> get("objective", "focl")
    Traceback (most recent call last):
    surefoot.errors.RecipeError: unknown objective `focl`: did you mean `focal`?
    """
    _load(kind)
    try:
        return _methods[kind, name]
    except KeyError:
        if (kind, name) in _refused:
            raise RecipeError(f"{kind} `{name}` is not here: {_refused[kind, name]}") from None
        raise RecipeError(f"unknown {kind} `{name}`: {nearest(name, [n for k, n in _methods if k == kind])}") from None
