"""The contract of a search strategy: how hyperparameters are looked for.

`surefoot tune` draws whole recipes (AutoFT's outer loop, by TPE). The strategies here are other ways: some move
hyperparameters while one model trains (`Tuning`), some choose among settings that somebody else tries (`Bandit`).

    strategy = build("strategy", {"name": "implicit_differentiation", "tunes": "examples"})
    fit = strategy.fit(Recipe.named("fine_tune"), model, train, {"shop": shop_sample})
    model = fit.run()
    fit.hyperparameters        # what was found
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.errors import DataError
from surefoot.models.predict import encode_inputs
from surefoot.tune.fit import Fit
from surefoot.tune.objective import Space
from surefoot.tune.seeds import seed_of
from surefoot.tune.step import Batch, Output, Step

if TYPE_CHECKING:
    from surefoot.data.examples import Examples
    from surefoot.models.model import Model
    from surefoot.progress import Progress
    from surefoot.tune.recipe import Recipe
    from surefoot.tune.selection import Selection

#: What the draws of judge and training examples for hyperparameters are seeded by, beside the seed and the step.
JUDGE, INNER = 11, 12


class Strategy:
    """A way to look for hyperparameters. Constructor arguments are its own settings, validated there (`RecipeError`)."""

    @classmethod
    def space(cls) -> dict[str, Space]:
        """Settings worth trying."""
        return {}


class Tuning(Strategy):
    """A strategy that moves hyperparameters while one model trains, judged by labelled samples of other domains."""

    def fit(
        self,
        recipe: Recipe,
        model: Model,
        train: Examples,
        judge: Mapping[str, Examples],
        *,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Judged:
        """The training, set up: `run` trains a copy of `model`, `hyperparameters` is then what was found.

        judge: labelled samples by domain, as `surefoot tune` takes them; the judge's loss is the mean over domains of
        cross-entropy. Raises what a `Fit` of the recipe raises, and DataError for a judge without labels.
        """
        raise NotImplementedError


class Judged(Fit):
    """A training with a judge at hand. `hyperparameters`: what was found; `moved`: a row for each update of them."""

    def __init__(
        self,
        recipe: Recipe,
        model: Model,
        train: Examples,
        judge: Mapping[str, Examples],
        *,
        seed: int = 0,
        progress: Progress | None = None,
        selection: Selection | None = None,
    ) -> None:
        super().__init__(recipe, model, train, seed=seed, progress=progress, selection=selection)
        if not judge:
            raise DataError(
                "a strategy needs a judge: give labelled samples of another domain, or held-out ones of home"
            )
        self.judges = {}
        for name, given in judge.items():
            if given.labels is None or not len(given):
                raise DataError(f"{given.source}: the judge `{name}` has no labelled examples: add a column `label`")
            examples = given.with_classes(train.classes)
            encoded = encode_inputs(
                self.model, examples.inputs, examples.modality, source=examples.source, max_length=recipe.max_length
            )
            self.judges[name] = (encoded, torch.from_numpy(np.asarray(examples.labels)))
        self.hyperparameters: dict[str, Any] = {}
        self.moved: list[dict[str, float]] = []
        # What is kept in a checkpoint of the loss is kept of the hyperparameters too.
        self.loss.add_module("tuning", _Tuned(self))

    def tuning_state(self) -> dict[str, Any]:
        """What has to be remembered of the hyperparameters beside `moved`, for a resume."""
        raise NotImplementedError

    def load_tuning_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `tuning_state` gave, and `hyperparameters`."""
        raise NotImplementedError

    def judge_batches(self, most: int) -> Iterator[Batch]:
        """A batch of each domain, of at most so many examples drawn with the seed and the step."""
        for number, (encoded, labels) in enumerate(self.judges.values()):
            rng = np.random.default_rng(seed_of(self.seed, JUDGE, self.history.steps, number))
            index = np.sort(rng.permutation(len(labels))[:most])
            yield Batch(
                inputs={name: value.to(self.device) for name, value in encoded.collate(index).items()},
                labels=labels[torch.from_numpy(index)].to(self.device),
                index=torch.from_numpy(index).to(self.device),
            )

    def judge_loss(self, most: int) -> Tensor:
        """Mean over domains of cross-entropy in float32, with its graph, in whatever mode the model is."""
        losses = [F.cross_entropy(self.model(batch).logits, batch.labels) for batch in self.judge_batches(most)]
        return torch.stack(losses).mean()

    def training_batch(self, most: int) -> Batch:
        """Training examples drawn with the seed and the step, in float32."""
        rng = np.random.default_rng(seed_of(self.seed, INNER, self.history.steps))
        batch = self._batch(np.sort(rng.permutation(len(self.train_set))[:most]))
        if batch.prefix is None:
            return batch
        return Batch(**{**vars(batch), "prefix": batch.prefix.float()})

    def step_on(self, batch: Batch) -> Step:
        """A step outside of training, in float32."""
        generator = torch.Generator(self.device).manual_seed(seed_of(self.seed, INNER, self.history.steps))
        reference = None
        if self.reference is not None:
            index = batch.index.cpu().numpy()
            features, logits = self.reference.features[index], self.reference.logits[index]
            reference = Output(torch.from_numpy(features).to(self.device), torch.from_numpy(logits).to(self.device))
        return Step(
            batch=batch,
            model=self.model,
            progress=self.history.steps / max(self.total, 1),
            generator=generator,
            autocast=nullcontext,
            reference=reference,
            needs=self.loss.needs,
            pairs=self.pairs,
        )


class _Tuned(nn.Module):
    """Puts a training's hyperparameters into the state of the loss."""

    def __init__(self, job: Judged) -> None:
        super().__init__()
        self.__dict__["job"] = job  # not a part of the module

    def get_extra_state(self) -> dict[str, Any]:
        return {"moved": self.__dict__["job"].moved, **self.__dict__["job"].tuning_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        job: Judged = self.__dict__["job"]
        job.moved = [dict(row) for row in state["moved"]]
        job.load_tuning_state(state)
