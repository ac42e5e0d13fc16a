"""The training loop: one for every recipe.

Everything random in step t is seeded by (seed, t) and in epoch e by (seed, e), so that a run that is resumed at step t
goes on exactly as one that was never stopped, and no random state has to be saved.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Iterator
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn

from surefoot.data.examples import Examples
from surefoot.errors import RecipeError
from surefoot.models.batching import epoch_steps, training_batches
from surefoot.models.model import Model
from surefoot.models.precision import autocast, resolve, whole_precision
from surefoot.models.predict import encode_inputs, predict
from surefoot.models.prefix import cached_prefix
from surefoot.models.processor import TextProcessor
from surefoot.progress import Progress, Silent
from surefoot.registry import get
from surefoot.tune.annotations import annotate
from surefoot.tune.build import build, build_optimizer
from surefoot.tune.checkpoint import Checkpoint
from surefoot.tune.frozen import freeze
from surefoot.tune.head import start_head
from surefoot.tune.history import History
from surefoot.tune.layerwise import parameter_groups, scale_groups
from surefoot.tune.loss import Loss
from surefoot.tune.objective import Context
from surefoot.tune.optimizer import Passes
from surefoot.tune.recipe import Recipe, steps_of
from surefoot.tune.rehearsal import Rehearsal
from surefoot.tune.schedule import set_rates
from surefoot.tune.seeds import EPOCH, SELECTION, STEP, seed_of
from surefoot.tune.selection import Selection
from surefoot.tune.selections import head_names
from surefoot.tune.step import Batch, Output, Step


class Fit:
    """One training: set up on construction, `run` to the end or from a checkpoint."""

    def __init__(
        self,
        recipe: Recipe,
        model: Model,
        train: Examples,
        *,
        seed: int = 0,
        progress: Progress | None = None,
        selection: Selection | None = None,
    ) -> None:
        self.recipe, self.train_set, self.seed = recipe, train, seed
        self.progress = progress or Silent()
        self.history = History()
        # Built first: what the data lacks is said before anything is computed.
        self.loss = Loss.of(recipe)
        self.loss.check(train)
        self.model = whole_precision(deepcopy(model))
        self.model.frozen = 0
        self.device = self.model.device
        self.dtype = resolve(recipe.precision, self.device)
        self.autocast = autocast(self.dtype, self.device)
        selection = selection or build("selection", recipe.selection)
        selection.reserve(self.model)
        self.encoded = encode_inputs(
            self.model, train.inputs, train.modality, source=train.source, max_length=recipe.max_length
        )
        if self.encoded.truncated:
            self.history.notes.append(
                f"{self.encoded.truncated} of {len(train)} training texts reach the limit of tokens and are cut there"
            )
        labels = train.labels if train.labels is not None else np.zeros(len(train), dtype=np.int64)
        self.labels = torch.from_numpy(np.asarray(labels))
        if self.loss.reads_labels:  # an embedding has no use for a head: it stays as it is
            start_head(self.model, recipe, train, self.encoded, seed=seed, progress=self.progress)
        self._select(selection)
        self._setup()

    # --- set-up

    def _select(self, selection: Selection) -> None:
        """Decide what trains, remember where it started."""
        self.base = (
            {name: value.detach().clone() for name, value in self.model.state_dict().items()}
            if self.recipe.after
            else {}
        )
        self.selection = self.loss.checked(selection, self.recipe.selection["name"])
        if selection.keeps:
            self.history.notes.append(
                f"`{self.recipe.selection['name']}` leaves parts in the model that no weight can hold: surefoot opens it whole, transformers without them"
            )
        torch.manual_seed(seed_of(self.seed, SELECTION))
        self.selection.setup(self.model, Rehearsal(self))
        torch.manual_seed(seed_of(self.seed, SELECTION))
        self.selection.apply(self.model)
        self.trained = {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        if not self.trained:
            raise RecipeError(
                f"selection `{self.recipe.selection['name']}` leaves nothing to train: choose another, such as `all`"
            )

    def _setup(self) -> None:
        recipe, train = self.recipe, self.train_set
        names, where = train.group_indices()
        groups = self.groups = torch.from_numpy(where) if where is not None else None
        start = {name: parameter.detach().clone() for name, parameter in self.trained.items()}
        self.per_epoch = epoch_steps(len(train), recipe.batch_size)
        self.total = steps_of(recipe, self.per_epoch)
        if "attentions" in self.loss.needs:
            if self.model.has_prefixes:
                raise RecipeError(
                    f"{self.loss.asking('attentions')} reads attention maps, which are not returned where prefixes are attended to: leave it out, or choose another selection than `{recipe.selection['name']}`"
                )
            if not hasattr(self.model.backbone, "set_attn_implementation"):
                raise RecipeError(
                    f"{self.loss.asking('attentions')} reads attention maps, and `{self.model.name}` has none: leave it out, or choose a transformer"
                )
            self.model.backbone.set_attn_implementation("eager")  # type: ignore[operator]  # the default returns no maps
        context = self.context = Context(
            model=self.model,
            labels=self.labels,
            classes=train.classes,
            start=start,
            trained=self.trained,
            groups=groups,
            group_names=names,
            **annotate(self.loss.needs, self.model, train, self.encoded, max_length=recipe.max_length),
            steps=max(self.total, 1),
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            head_names=frozenset(head_names(self.model)),
        )
        self.pairs = context.pairs
        self.lengths = self.encoded.lengths + (self.pairs.lengths if self.pairs is not None else 0)
        self.loss.setup(context)
        self.loss.to(self.device)
        extra = [parameter for parameter in self.loss.parameters() if parameter.requires_grad]
        self.optimizer = build_optimizer(
            recipe.optimizer, parameter_groups(self.model, self.trained, extra, recipe.layerwise)
        )
        scale_groups(self.optimizer.param_groups, recipe.layerwise)
        self.optimizer.setup(context)
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.reference = (
            predict(self.model, self.encoded, precision=recipe.precision) if "reference" in self.loss.needs else None
        )
        self.prefix = None
        if recipe.epochs > 0 and freeze(self.model, self.loss, self.history.notes) and recipe.cache:
            self.prefix = cached_prefix(
                self.model,
                self.encoded,
                depth=self.model.frozen,
                dtype=self.dtype,
                autocast=self.autocast,
                advance=self.progress.start("frozen layers", len(train)),
            )
            if self.pairs is not None:
                self.pairs.cache(self.model, dtype=self.dtype, autocast=self.autocast)

    # --- the loop

    def run(
        self,
        *,
        checkpoint: Checkpoint | None = None,
        looks: Container[int] = (),
        look: Callable[[int], None] = lambda step: None,
    ) -> Model:
        """Train to the end; returns the model, its wrappers folded away, in eval mode.

        look: called after each of the steps `looks`, with its number; it may look at `snapshot()`, or raise to stop.
        """
        begin = checkpoint.restore(self) if checkpoint else 0
        self.history.resumed_at = self.history.steps = begin
        planned = round(self.recipe.epochs * len(self.train_set))
        advance = self.progress.start(self.recipe.name, planned) if planned else (lambda count: None)
        advance(round(planned * begin / max(self.total, 1)))
        self.model.train()
        self.loss.train()
        for index in self._batches(begin):
            started = time.perf_counter()
            self.before_step()
            self.history.losses.append(float(self.optimizer.step(self._closure(index, self.history.steps))))
            self.history.steps += 1
            self.selection.after_step(self.model, step=self.history.steps, steps=self.total)
            self.history.seconds += time.perf_counter() - started
            self.history.examples += len(index)
            advance(len(index))
            if checkpoint:
                checkpoint.tick(self)
            if self.history.steps in looks:
                look(self.history.steps)
        model = self._finish(self.model)
        if not self.recipe.after:
            self.history.notes += self.selection.conclude(model, Rehearsal(self))
        return model

    def before_step(self) -> None:
        """What comes before a step: its learning rate, its momentum where the schedule moves that, the selection's own."""
        self.selection.before_step(self.model, step=self.history.steps, steps=self.total)
        recipe = self.recipe
        groups = self.optimizer.param_groups
        set_rates(groups, self.base_rates, recipe.schedule, self.history.steps, self.total, warmup=recipe.warmup)

    def snapshot(self) -> Model:
        """What `run` would return if training ended here; training goes on unchanged."""
        return self._finish(deepcopy(self.model))

    def _batches(self, begin: int) -> Iterator[np.ndarray]:
        """The batches of steps begin, begin + 1, ..., total - 1."""
        per_epoch = self.per_epoch
        for epoch in range(begin // per_epoch, math.ceil(self.total / per_epoch)):
            batches = training_batches(
                self.lengths, self.recipe.batch_size, np.random.default_rng(seed_of(self.seed, EPOCH, epoch))
            )
            first = epoch * per_epoch
            yield from batches[max(begin - first, 0) : self.total - first]

    def _closure(self, index: np.ndarray, number: int) -> Passes:
        batch, reference = self._batch(index), None
        if self.reference is not None:
            reference = Output(
                torch.from_numpy(self.reference.features[index]).to(self.device),
                torch.from_numpy(self.reference.logits[index]).to(self.device),
            )
        parameters = self.optimizer.parameters
        seed = seed_of(self.seed, STEP, number)

        def run(first: bool) -> tuple[Tensor, Step]:
            torch.manual_seed(seed)
            for parameter in parameters:
                parameter.grad = None
            generator = torch.Generator(self.device).manual_seed(seed)
            step = Step(
                batch=batch,
                model=self.model,
                progress=number / self.total,
                generator=generator,
                autocast=self.autocast,
                reference=reference,
                needs=self.loss.needs,
                pairs=self.pairs,
            )
            value = self.loss.backward(step, first=first)
            if self.recipe.clip is not None:
                nn.utils.clip_grad_norm_(parameters, self.recipe.clip, foreach=True)
            return value, step

        return Passes(run)

    def _batch(self, index: np.ndarray) -> Batch:
        where = torch.from_numpy(index)
        weight = torch.from_numpy(self.train_set.weight[index]).float() if self.train_set.weight is not None else None
        return Batch(
            inputs={name: value.to(self.device) for name, value in self.encoded.collate(index).items()},
            labels=self.labels[where].to(self.device),
            index=where.to(self.device),
            group=self.groups[where].to(self.device) if self.groups is not None else None,
            weight=weight.to(self.device) if weight is not None else None,
            prefix=self.prefix.batch(index).to(self.device) if self.prefix is not None else None,
        )

    def _finish(self, model: Model) -> Model:
        self.selection.finish(model)
        self.loss.finish(model)
        self.merges = []  # what follows the training, with what it found
        for spec in self.recipe.after:
            merge = get("merge", spec["name"]).make(**{key: value for key, value in spec.items() if key != "name"})
            merge.setup(model, Rehearsal(self), self.base)
            self.merges.append(merge)
            model.load_state_dict(merge([model.state_dict()], self.base))
        model.frozen = 0
        model.precision = self.recipe.precision
        if self.recipe.max_length is not None and isinstance(model.processor, TextProcessor):
            # What was never trained on is not read later: evaluation, here or from the saved folder, cuts as training did.
            limit = min(self.recipe.max_length, model.processor.max_length)
            model.processor.max_length = limit
        for parameter in model.parameters():
            parameter.requires_grad_(True)
            parameter.grad = None
        return model.eval()
