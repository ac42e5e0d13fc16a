"""Contrastive sparse representation: a dense vector as a few active units of many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F

from surefoot.embed.code import Code
from surefoot.errors import ModelError
from surefoot.files import atomic_folder, write_json
from surefoot.progress import Progress, Silent
from surefoot.registry import Paper, register

WEIGHTS, CARD = "code.safetensors", "code.json"
#: Weights of the wider reconstruction and of the dead units' one in the loss; steps after which a silent unit is dead.
WIDER, AUXILIARY, DEAD_AFTER = 1 / 8, 1 / 32, 30
#: Of the contrast.
TEMPERATURE = 0.2
ROWS = 65_536


@register(
    "csr",
    kind="code",
    family="sparse",
    papers=[
        Paper(
            "Beyond Matryoshka: Revisiting Sparse Coding for Adaptive Representation",
            "Wen et al.",
            2025,
            arxiv="2503.01776",
        )
    ],
)
class CSR(Code):
    """z = ReLU(TopK(W (v - b) + b_e)), v' = W^T z + b: k active units of h stand for a frozen vector v (D,).

    Trained on mse(v, v'_k) + mse(v, v'_4k) / 8 + aux / 32 + gamma * contrast. aux: the 512 largest of the units silent for
    30 steps rebuild what v'_k leaves over, mse over the target's variance. contrast: InfoNCE at temperature 0.2 of the
    unit-length z of each vector against that of its positive among the batch; without positives it is its own, and the
    others' are pushed away, each met twice. With positives both sides are rebuilt, and the mean counts.

    k: active units, 32, from 1. hidden: h, in multiples of D, 4. gamma: 0.1, at least 0. epochs: 10. batch_size: 4096, or
    all there are. lr: 4e-4 of Adam. All but k, which they vary, are the authors'. Vectors are scaled to unit length first.

    `encode` gives a (M, h) scipy CSR matrix, about 2 k numbers a row; `scores` the cosines of such rows, as an inverted
    index counts them. Raises ModelError for options out of range, fewer than two vectors, and vectors of another width.
    Reference: Wen et al. 2025, section 3; neilwen987/CSR_Adaptive_Rep;
    sentence_transformers' SparseAutoEncoder has the same forward pass.
    """

    def __init__(
        self,
        *,
        k: int = 32,
        hidden: int = 4,
        gamma: float = 0.1,
        epochs: int = 10,
        batch_size: int = 4096,
        lr: float = 4e-4,
    ) -> None:
        for name, value in (("k", k), ("hidden", hidden), ("epochs", epochs), ("batch_size", batch_size)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ModelError(f"csr: `{name}` is {value!r}: a whole number of at least 1 is wanted")
        if not (gamma >= 0 and lr > 0):
            raise ModelError(f"csr: `gamma` is {gamma} and `lr` {lr}: they are at least 0 and above 0")
        self.k, self.hidden, self.gamma, self.epochs, self.batch_size, self.lr = (
            k,
            hidden,
            gamma,
            epochs,
            batch_size,
            lr,
        )
        self.network: Autoencoder | None = None

    def fit(
        self,
        vectors: np.ndarray,
        positives: np.ndarray | None = None,
        *,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Self:
        every = _unit(vectors)
        others = None if positives is None else _unit(positives)
        if len(every) < 2:
            raise ModelError(f"csr: {len(every)} vectors to learn from: give some hundreds")
        if others is not None and others.shape != every.shape:
            raise ModelError(f"csr: positives of shape {tuple(others.shape)} for vectors of {tuple(every.shape)}")
        generator = torch.Generator().manual_seed(seed)
        network = Autoencoder(every.shape[1], self.hidden * every.shape[1], self.k, generator)
        optimizer = torch.optim.Adam(network.parameters(), lr=self.lr)
        size = min(self.batch_size, len(every))
        steps = max(1, len(every) // size)
        advance = (progress or Silent()).start("steps", self.epochs * steps)
        for _ in range(self.epochs):
            order = torch.randperm(len(every), generator=generator)
            for part in torch.split(order[: steps * size], size):
                optimizer.zero_grad()
                loss: Any = self.loss(network, every[part], None if others is None else others[part])
                loss.backward()
                optimizer.step()
                advance(1)
        self.network = network.eval()
        return self

    def loss(self, network: Autoencoder, vectors: Tensor, positives: Tensor | None) -> Tensor:
        """The training loss of a batch: a scalar."""
        few, total = self._rebuilding(network, vectors)
        if positives is not None:
            others, theirs = self._rebuilding(network, positives)
            total = (total + theirs) / 2
        if self.gamma:
            unit = F.normalize(few, dim=1)
            scores = unit @ (unit if positives is None else F.normalize(others, dim=1)).T / TEMPERATURE
            if positives is None:  # every other vector is met twice, as two views of it that are the same
                scores = scores + np.log(2) * (1 - torch.eye(len(scores)))
            total = total + self.gamma * F.cross_entropy(scores, torch.arange(len(scores)))
        return total

    @staticmethod
    def _rebuilding(network: Autoencoder, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (B, h) and how badly they rebuild the vectors: a scalar."""
        units = network.units(vectors)
        few = top(units, network.k)
        network.count(few)
        rebuilt = network.decode(few)
        total = F.mse_loss(rebuilt, vectors) + WIDER * F.mse_loss(network.decode(top(units, 4 * network.k)), vectors)
        left = vectors - rebuilt.detach()
        dead = top(units * (network.silent > DEAD_AFTER), min(512, units.shape[1]))
        spread = (left - left.mean(0)).square().mean()
        return few, total + AUXILIARY * F.mse_loss(dead @ network.weight, left) / spread.clamp_min(1e-12)

    @torch.no_grad()
    def encode(self, vectors: np.ndarray) -> sparse.csr_matrix:
        network, every = self._learned(), _unit(vectors)
        if every.shape[1] != network.weight.shape[1]:
            raise ModelError(f"csr: vectors of {every.shape[1]} numbers, and it learned from {network.weight.shape[1]}")
        rows = [sparse.csr_matrix(top(network.units(part), network.k).numpy()) for part in torch.split(every, ROWS)]
        return sparse.vstack(rows, format="csr")

    @torch.no_grad()
    def decode(self, codes: Any) -> np.ndarray:
        dense = torch.from_numpy(np.asarray(codes.todense(), dtype=np.float32))
        found: np.ndarray = self._learned().decode(dense).numpy()
        return found

    def scores(self, queries: Any, documents: Any) -> np.ndarray:
        return np.asarray((_scaled(queries) @ _scaled(documents).T).todense())

    def _learned(self) -> Autoencoder:
        if self.network is None:
            raise ModelError("csr has learned from no vectors yet: call `fit`")
        return self.network

    def save(self, folder: Path) -> None:
        network = self._learned()
        options = {name: getattr(self, name) for name in ("k", "hidden", "gamma", "epochs", "batch_size", "lr")}
        with atomic_folder(folder) as partial:
            save_file({name: each.contiguous() for name, each in network.state_dict().items()}, partial / WEIGHTS)
            write_json(partial / CARD, {"code": "csr", "width": network.weight.shape[1], "options": options})

    @classmethod
    def load(cls, folder: Path) -> Self:
        try:
            card = json.loads((folder / CARD).read_text("utf8"))
            code = cls(**card["options"])
            network = Autoencoder(card["width"], code.hidden * card["width"], code.k, torch.Generator())
            network.load_state_dict(load_file(folder / WEIGHTS))
        except Exception as error:  # a file that is missing, cut short, or of something else
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{folder}: no code can be opened there ({reason}): save it again") from error
        code.network = network.eval()
        return code

    def __repr__(self) -> str:
        return f"CSR(k={self.k}, hidden={self.hidden})"


class Autoencoder(nn.Module):
    """W (h, D) for both ways, biases of both ends, and how many steps each unit has been silent (h,)."""

    silent: Tensor

    def __init__(self, width: int, units: int, k: int, generator: torch.Generator) -> None:
        super().__init__()
        self.k = k
        # torch's own start of a linear layer, drawn with our seed.
        bound = width**-0.5
        self.weight = nn.Parameter(torch.empty(units, width).uniform_(-bound, bound, generator=generator))
        self.before = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(units))
        self.register_buffer("silent", torch.zeros(units, dtype=torch.long))

    def units(self, vectors: Tensor) -> Tensor:
        """(B, h), before any is silenced."""
        return F.linear(vectors - self.before, self.weight, self.bias)

    def decode(self, codes: Tensor) -> Tensor:
        return codes @ self.weight + self.before

    @torch.no_grad()
    def count(self, codes: Tensor) -> None:
        self.silent += 1
        self.silent[(codes > 1e-5).any(0)] = 0


def top(units: Tensor, k: int) -> Tensor:
    """(B, h): the k largest of each row that are above 0, the others 0."""
    values, places = units.topk(min(k, units.shape[1]), dim=1)
    return torch.zeros_like(units).scatter(1, places, values.relu())


def _unit(vectors: np.ndarray) -> Tensor:
    given = torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32))
    if given.ndim != 2 or not torch.isfinite(given).all():
        raise ModelError(f"csr: vectors of shape {tuple(given.shape)}: a finite (N, D) is wanted")
    return F.normalize(given, dim=1)


def _scaled(codes: Any) -> Any:
    norms = np.sqrt(np.asarray(codes.multiply(codes).sum(1)).ravel())
    return sparse.diags(1 / np.maximum(norms, 1e-12)) @ codes
