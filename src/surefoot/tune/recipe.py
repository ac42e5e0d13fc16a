"""A recipe: everything that decides what training does, as one small validated value that reads and writes as YAML.

    name: lp-ft
    head: probe
    objectives: {cross_entropy: 1.0, smart: {weight: 0.5, epsilon: 1.0e-5}}
    optimizer: {name: sam, rho: 0.05, inner: {name: adamw, lr: 5.0e-5}}
    selection: {name: top_layers, k: 2}
    epochs: 2
    after: [{name: wise_ft, alpha: 0.75}]

A recipe that cannot work raises RecipeError when it is made, never in the middle of training.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_serializer, model_validator

from surefoot.errors import RecipeError, first_problem, nearest
from surefoot.registry import methods
from surefoot.tune.recipes import read, read_yaml

if TYPE_CHECKING:
    from surefoot.data.examples import Examples
    from surefoot.models.model import Model
    from surefoot.progress import Progress
    from surefoot.tune.run import Run

Spec = dict[str, Any]


def _spec(value: Any) -> Spec:
    """`adamw` and `{name: adamw, lr: 1e-4}` both name a method with options."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return dict(value)
    raise RecipeError(f"{value!r} does not name a method: write a name, or a mapping with `name` and its options")


def _objectives(value: Any) -> dict[str, Spec]:
    """`{focal: 0.5}` and `{focal: {weight: 0.5, gamma: 2}}` both weigh an objective; a list weighs each by 1."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        strange = [each for each in value if not isinstance(each, str)]
        if strange:
            raise RecipeError(
                f"`objectives` lists {strange[0]!r}, which is no name: to give options write {{focal: {{weight: 1.0, gamma: 2}}}}"
            )
        value = dict.fromkeys(value, 1.0)
    if not isinstance(value, Mapping) or not value:
        raise RecipeError("`objectives` is empty: name at least one, such as {cross_entropy: 1.0}")
    return {
        name: {"weight": 1.0} | dict(options) if isinstance(options, Mapping) else {"weight": options}
        for name, options in value.items()
    }


def _layerwise(value: Any) -> dict[str, list[float]]:
    from surefoot.tune.layerwise import check_layerwise

    return check_layerwise(value)


MethodSpec = Annotated[Spec, BeforeValidator(_spec)]


class Recipe(BaseModel):
    """What is trained, by which loss, with which optimizer, for how long, and what follows.

    head: where the linear head starts: `probe` (logistic regression on the pretrained features: the LP of LP-FT),
    `random` (uniform, torch's default for a linear layer), `zero`, or `keep` (the head that the model brings).
    objectives: names with weights and options; their weighted sum is the loss. reducer: how per-example losses become
    a scalar. after: what is done to the trained weights. layerwise: factors of `lr` and `weight_decay` for each layer,
    from the head downwards (see `layerwise.py`). epochs: passes over the data (0 trains nothing: a probe).
    schedule: of the learning rate after `warmup` (a fraction of the steps): `linear` to zero, `cosine`, `constant`;
    `one_cycle` and `one_cycle_cosine`, which rise for that fraction and move the momentum too (see `schedule.py`).
    clip: gradient norm, None for none. max_length: tokens read of a text. precision: of matrix products.
    Defaults (AdamW 5e-5, 2 epochs of batches of 32, linear decay) are the usual ones for encoders of this size.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "custom"
    head: Literal["probe", "random", "zero", "keep"] = "probe"
    objectives: Annotated[dict[str, Spec], BeforeValidator(_objectives)] = Field(
        default={"cross_entropy": {"weight": 1.0}}
    )
    reducer: MethodSpec = Field(default={"name": "mean"})
    optimizer: MethodSpec = Field(default={"name": "adamw"})
    selection: MethodSpec = Field(default={"name": "all"})
    after: list[MethodSpec] = Field(default=[])
    layerwise: Annotated[dict[str, list[float]], BeforeValidator(_layerwise)] = Field(default={})
    epochs: float = Field(default=2, ge=0, le=1000)
    batch_size: int = Field(default=32, ge=1, le=65536)
    schedule: Literal["linear", "cosine", "constant", "one_cycle", "one_cycle_cosine"] = "linear"
    warmup: float = Field(default=0.0, ge=0, lt=1)
    clip: float | None = Field(default=None, gt=0)
    max_length: int | None = Field(default=None, ge=4)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    cache: bool = True

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise RecipeError(first_problem(error, "recipe field", Recipe.model_fields)) from error

    @model_validator(mode="after")
    def _can_work(self) -> Recipe:
        """Build every part once: unknown names, unknown options and impossible combinations come out here."""
        from surefoot.tune.build import build, build_optimizer
        from surefoot.tune.layerwise import scale_groups

        built = {name: build_objective(name, spec) for name, spec in self.objectives.items()}
        weights = {name: float(spec["weight"]) for name, spec in self.objectives.items()}
        active = {name: objective for name, objective in built.items() if weights[name] > 0}
        if not active and self.epochs > 0:
            raise RecipeError(
                "every objective has weight 0: nothing would be learned; give one a weight, or set epochs: 0"
            )
        for name, objective in active.items():
            if "reference" in objective.needs and self.head in ("random", "zero"):
                raise RecipeError(
                    f"objective `{name}` compares with the starting model's answers, and with `head: {self.head}` it has none: use head: probe or keep"
                )
        reducer = build("reducer", self.reducer)
        if (
            self.reducer["name"] != "mean"
            and active
            and not any(objective.is_per_example for objective in active.values())
        ):
            raise RecipeError(
                f"reducer `{self.reducer['name']}` reweighs examples, and none of the objectives ({', '.join(active)}) is a loss per example: add cross_entropy"
            )
        del reducer
        if build("selection", self.selection).keeps and self.after:
            raise RecipeError(
                f"selection `{self.selection['name']}` puts parts into the model that its start does not have, so that `after` has nothing to merge them with: leave `after` out, or choose a selection such as `lora`"
            )
        if self.schedule == "one_cycle" and self.warmup > 0.5:
            raise RecipeError(
                f"`warmup` is {self.warmup}: `one_cycle` rises and falls for that share of the steps each, so it must be 0.5 at most"
            )
        optimizer = build_optimizer(self.optimizer, None)
        scale_groups([{**group, "height": 0} for group in optimizer.param_groups], self.layerwise)
        for spec in self.after:
            build("merge", spec)
        return self

    # --- reading and writing

    @model_serializer(mode="wrap")
    def _as_fields(self, fields: Any) -> dict[str, Any]:
        """Without `layerwise` where there is none: what was trained before the field was there stays the same recipe."""
        found: dict[str, Any] = fields(self)
        return found if found["layerwise"] else {key: each for key, each in found.items() if key != "layerwise"}

    @classmethod
    def named(cls, name: str, **changes: Any) -> Recipe:
        """The registered recipe of that name with some fields changed: `Recipe.named("lp_ft", epochs=3)`."""
        return cls(**{**read(name), **changes})

    @classmethod
    def load(cls, source: str | Path) -> Recipe:
        """A recipe from a YAML file, or a registered one by name."""
        path = Path(source)
        if path.suffix not in (".yaml", ".yml"):
            return cls.named(str(source))
        try:
            fields = read_yaml(path)
        except FileNotFoundError:
            raise RecipeError(
                f"{path}: no such recipe file: give a YAML file or a name ({nearest('', [m.name for m in methods('recipe')])})"
            ) from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RecipeError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from error
        if not isinstance(fields, dict) or not all(isinstance(field, str) for field in fields):
            raise RecipeError(f"{path}: a recipe is a mapping of fields such as `objectives:` and `epochs:`")
        try:
            return cls(**fields)
        except RecipeError as error:
            raise RecipeError(f"{path}: {error}") from error

    def changed(self, **changes: Any) -> Recipe:
        """This recipe with some fields changed, and validated again."""
        return Recipe(**{**self.model_dump(), **changes})

    def to_yaml(self) -> str:
        """The recipe as YAML that `load` reads back."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)

    @property
    def fingerprint(self) -> str:
        """Equal for equal recipes."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()

    # --- use

    def fit(
        self,
        model: Model,
        train: Examples,
        *,
        seed: int = 0,
        out: str | Path | None = None,
        progress: Progress | None = None,
    ) -> Run:
        """Train a copy of `model` on `train`; with `out`, resumable and kept as a run folder. `model` itself is not changed."""
        from surefoot.tune.run import fit

        return fit(self, model, train, seed=seed, out=out, progress=progress)


def build_objective(name: str, spec: Mapping[str, Any]) -> Any:
    """The objective of a recipe's entry; its weight is validated here."""
    from surefoot.tune.build import build
    from surefoot.tune.objective import positive

    try:
        positive("weight", spec["weight"], zero=True)
    except RecipeError as error:
        raise RecipeError(f"objective `{name}`: {error}") from error
    return build("objective", {"name": name} | {key: value for key, value in spec.items() if key != "weight"})


def steps_of(recipe: Recipe, batches_per_epoch: int) -> int:
    """Optimizer steps of the whole training; a fraction of an epoch rounds up."""
    return math.ceil(recipe.epochs * batches_per_epoch - 1e-9)
