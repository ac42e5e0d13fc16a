"""One minibatch, seen lazily: what objectives read, and the only way they run the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from surefoot.models.model import Model
    from surefoot.tune.pairs import Pairs


@dataclass(frozen=True)
class Batch:
    """Model inputs and what is known of each example; every tensor's first dimension is B, the batch size.

    `inputs`: what the model's forward takes (for text `input_ids` (B, T) and `attention_mask` (B, T)).
    `labels`: (B,) class indices. `index`: (B,) positions in the training set. `group`: (B,) group indices.
    `weight`: (B,) example weights. `prefix`: (B, T, D) cached output of the frozen layers, if any.
    """

    inputs: Mapping[str, Tensor]
    labels: Tensor
    index: Tensor
    group: Tensor | None = None
    weight: Tensor | None = None
    prefix: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Output:
    """What one forward pass gives: `features` (B, D), `logits` (B, C) in float32, and the rest when asked for."""

    features: Tensor
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class Step:
    """One minibatch of training. `output` is one forward pass, made on first use and shared by all objectives.

    `progress` runs from 0 to 1 over the training; `generator` is seeded by (seed, step), so that an
    objective that draws noise draws the same noise again after a resume and in both passes of SAM.
    """

    def __init__(
        self,
        *,
        batch: Batch,
        model: Model,
        progress: float,
        generator: torch.Generator,
        autocast: Any,
        reference: Output | None = None,
        needs: frozenset[str] = frozenset(),
        pairs: Pairs | None = None,
    ) -> None:
        self.batch = batch
        self.model = model
        self.progress = progress
        self.generator = generator
        self._autocast = autocast
        self._reference = reference
        self._needs = needs
        self._output: Output | None = None
        self._second_output: Output | None = None
        self._pairs = pairs
        self._members: dict[str, Output] = {}

    @property
    def labels(self) -> Tensor:
        """(B,) class indices."""
        return self.batch.labels

    @property
    def output(self) -> Output:
        """The model's output on the batch, with gradient."""
        if self._output is None:
            with torch.enable_grad():  # The first to ask may be an `update`, which runs without gradient.
                self._output = self.again()
        return self._output

    @property
    def second_output(self) -> Output:
        """Another pass over the batch with dropout drawn anew, with gradient: SimCSE's second view, one for all objectives."""
        if self._second_output is None:
            with torch.enable_grad():
                self._second_output = self.again()
        return self._second_output

    def pair(self, name: str) -> Output:
        """The model's output on the batch's "positive" or "negative" texts, with gradient: one pass each, shared by all
        objectives; only for those that need "pairs"."""
        if name not in self._members:
            batch = self.pairs.batch(name, self.batch.index)
            with torch.enable_grad():
                self._members[name] = self._run(batch, self.model)
        return self._members[name]

    @property
    def pairs(self) -> Pairs:
        """The training set's pairs."""
        if self._pairs is None:
            raise RuntimeError('an objective reads pairs without "pairs" in its needs')
        return self._pairs

    @property
    def pair_scores(self) -> Tensor | None:
        """(B,): how alike anchor and positive are, in the data's own units; None where the data do not say."""
        scores, index = self.pairs.scores, self.batch.index
        return None if scores is None else scores[index.cpu()].to(index.device)

    def text_ids(self, name: str) -> Tensor:
        """(B,) of "anchor", "positive" or "negative": equal where two texts are the same."""
        index = self.batch.index
        return self.pairs.text_ids[name][index.cpu()].to(index.device)

    @property
    def reference(self) -> Output:
        """The output of the model as it was before training, without gradient; only for objectives that need "reference"."""
        if self._reference is None:
            raise RuntimeError('an objective reads step.reference without "reference" in its needs')
        return self._reference

    def again(
        self,
        *,
        embeddings: Tensor | None = None,
        inputs: Mapping[str, Tensor] | None = None,
        model: Model | None = None,
    ) -> Output:
        """Another forward pass: fresh dropout, perturbed input `embeddings` (B, T, D), other `inputs`, or another `model`.

        With other `embeddings` or `inputs` the cached prefix cannot serve: the objective's `needs` must hold "inputs".
        """
        batch = self.batch
        if inputs is not None or embeddings is not None:
            batch = replace(batch, inputs=inputs if inputs is not None else batch.inputs, prefix=None)
        return self._run(batch, model or self.model, embeddings)

    def _run(self, batch: Batch, model: Model, embeddings: Tensor | None = None) -> Output:
        with self._autocast():
            return model(
                batch,
                embeddings=embeddings,
                hidden_states="hidden_states" in self._needs,
                attentions="attentions" in self._needs,
            )

    def embeddings(self) -> Tensor:
        """The batch's word (or patch) embeddings (B, T, D), detached: where perturbations start."""
        with torch.no_grad(), self._autocast():
            return self.model.embed_inputs(self.batch).float()
