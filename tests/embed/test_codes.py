"""Codes: the sparse one against sentence-transformers' autoencoder, by its losses, and kept by saving."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from surefoot.embed.code import Code
from surefoot.embed.codes.csr import CSR, Autoencoder
from surefoot.errors import ModelError
from surefoot.registry import Method, methods

CODES = methods("code")


def vectors(count: int = 256, width: int = 16, seed: int = 0) -> np.ndarray:
    """Mixtures of a few directions, with noise."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(24, width))
    shares = rng.random((count, 24)) * (rng.random((count, 24)) < 0.1)
    return (shares @ directions + 0.05 * rng.normal(size=(count, width))).astype(np.float32)


@pytest.mark.parametrize("method", CODES, ids=lambda method: method.name)
def test_contract(method: Method, tmp_path: Path) -> None:
    """Every registered code: same seed, same codes; kept by saving; ranks a vector nearest to itself; refuses others."""
    first, second = (method.make().fit(vectors(), seed=3) for _ in range(2))
    codes = first.encode(vectors(40, seed=1))
    assert (codes != second.encode(vectors(40, seed=1))).nnz == 0
    first.save(tmp_path / "code")
    again: Code = type(first).load(tmp_path / "code")
    assert (codes != again.encode(vectors(40, seed=1))).nnz == 0
    scores = first.scores(codes, codes)
    np.testing.assert_allclose(scores.diagonal(), 1, atol=1e-5)
    assert (scores.argmax(1) == np.arange(40)).mean() > 0.9
    assert first.decode(codes).shape == (40, 16)
    with pytest.raises(ModelError, match="learned from"):
        first.encode(vectors(3, width=8))
    with pytest.raises(ModelError, match="call `fit`"):
        method.make().encode(vectors(3))
    with pytest.raises(ModelError, match=re.escape(str(tmp_path / "none"))):
        type(first).load(tmp_path / "none")


def test_forward_pass_is_that_of_sentence_transformers() -> None:
    """The same weights in their SparseAutoEncoder: codes, both reconstructions and the dead units' loss."""
    modules = pytest.importorskip("sentence_transformers.sparse_encoder.modules")
    losses = pytest.importorskip("sentence_transformers.sparse_encoder.losses")
    theirs = modules.SparseAutoEncoder(16, 64, k=4, k_aux=64, dead_threshold=30)
    ours = Autoencoder(16, 64, 4, torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours.before.normal_()
        ours.bias.normal_()
        theirs.encoder.weight.copy_(ours.weight)
        theirs.pre_bias.copy_(ours.before)
        theirs.latent_bias.copy_(ours.bias)
    ours.silent += 40 * (torch.arange(64) % 2)
    theirs.stats_last_nonzero += 40 * (torch.arange(64) % 2)
    given = F.normalize(torch.from_numpy(vectors(32)), dim=1)
    found = theirs({"sentence_embedding": given})
    parts = losses.CSRReconstructionLoss(None, beta=1 / 32).compute_loss_from_embeddings([found])
    codes, loss = CSR(k=4)._rebuilding(ours, given)
    torch.testing.assert_close(codes, found["sentence_embedding"])
    torch.testing.assert_close(loss, sum(parts.values()), rtol=1e-4, atol=1e-5)


def test_contrast_by_the_formula() -> None:
    """InfoNCE written out: among positives, and without them among two equal views, as the authors' code has it."""
    network = Autoencoder(16, 64, 4, torch.Generator().manual_seed(0))
    given, others = (F.normalize(torch.from_numpy(vectors(12, seed=seed)), dim=1) for seed in (0, 1))
    for positives in (None, others):
        total, plain = (CSR(k=4, gamma=gamma).loss(network, given, positives) for gamma in (1.0, 0.0))
        units = [F.normalize(CSR(k=4)._rebuilding(network, each)[0], dim=1) for each in (given, others)]
        if positives is None:
            both = torch.cat([units[0], units[0]])
            likeness = (both @ both.T / 0.2).exp().fill_diagonal_(0)
            own = torch.arange(12).repeat(2)
            positive = (own[:, None] == own).float()
            expected = -((likeness * positive).sum(1) / likeness.sum(1)).log().mean()
        else:
            expected = F.cross_entropy(units[0] @ units[1].T / 0.2, torch.arange(12))
        torch.testing.assert_close(total - plain, expected, rtol=1e-4, atol=1e-5)


def test_more_units_rebuild_better() -> None:
    every = vectors(512)
    unit = every / np.linalg.norm(every, axis=1, keepdims=True)
    errors = []
    for k in (2, 8):
        code = CSR(k=k, epochs=60, batch_size=64, lr=4e-3).fit(every)
        codes = code.encode(every)
        assert codes.getnnz(axis=1).max() <= k
        errors.append(float(((code.decode(codes) - unit) ** 2).mean()))
    assert errors[1] < errors[0] < float((unit**2).mean())


@pytest.mark.parametrize("options", [{"k": 0}, {"hidden": 0}, {"gamma": -1.0}, {"lr": 0.0}, {"epochs": 1.5}])
def test_options_out_of_range(options: dict) -> None:
    with pytest.raises(ModelError, match="csr"):
        CSR(**options)


def test_bad_vectors() -> None:
    with pytest.raises(ModelError, match="give some hundreds"):
        CSR().fit(vectors(1))
    with pytest.raises(ModelError, match="finite"):
        CSR().fit(np.full((4, 4), np.nan))
    with pytest.raises(ModelError, match="positives of shape"):
        CSR().fit(vectors(8), vectors(7))
