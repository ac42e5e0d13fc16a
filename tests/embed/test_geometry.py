"""Geometry against scipy, closed forms and other definitions; codes against sentence-transformers."""

from __future__ import annotations

import numpy as np
import pytest

from surefoot.embed.geometry import (
    alignment,
    describe_geometry,
    effective_rank,
    hubness,
    isotropy,
    principal_map,
    uniformity,
    unit_length,
)
from surefoot.embed.quantize import quantize, value_ranges
from surefoot.errors import DataError, ModelError

VECTORS = np.random.default_rng(0).normal(size=(200, 12)).astype(np.float32) * np.linspace(0.2, 2, 12, dtype=np.float32)


def test_uniformity_and_alignment_in_torch() -> None:
    """Against the three lines of torch that the paper prints (Wang and Isola 2020, figure 5)."""
    import torch

    x, y = torch.from_numpy(unit_length(VECTORS)), torch.from_numpy(unit_length(VECTORS[::-1].copy()))
    theirs = torch.pdist(x.double()).pow(2).mul(-2).exp().mean().log()
    cosines = unit_length(VECTORS) @ unit_length(VECTORS).T
    assert uniformity(cosines) == pytest.approx(float(theirs), abs=1e-5)
    assert alignment(VECTORS, VECTORS[::-1]) == pytest.approx(float((x - y).norm(dim=1).pow(2).mean()), abs=1e-5)
    assert alignment(VECTORS, 3 * VECTORS) == pytest.approx(0, abs=1e-10)


def test_hubness_by_scikit_learn_and_scipy() -> None:
    """Against scikit-learn's neighbours and scipy's skewness."""
    from scipy.stats import skew
    from sklearn.neighbors import NearestNeighbors

    unit = unit_length(VECTORS)
    near = NearestNeighbors(n_neighbors=6).fit(unit).kneighbors(return_distance=False)[:, :5]
    theirs = skew(np.bincount(near.reshape(-1), minlength=len(unit)))
    assert hubness(unit @ unit.T, k=5) == pytest.approx(theirs, abs=1e-6)
    ring = np.stack([np.cos(np.arange(9) * 2 * np.pi / 9), np.sin(np.arange(9) * 2 * np.pi / 9)], 1)
    assert hubness(ring @ ring.T, k=2) == 0.0


def test_rank_and_isotropy_in_closed_form() -> None:
    """Two directions of equal variance in five: rank 2 exactly, IsoScore* (2^2 / 2 - 1) / 4; a round cloud: D and 1."""
    points = np.zeros((4, 5))
    points[:, 0], points[:, 1] = [1, -1, 0, 0], [0, 0, 1, -1]
    assert effective_rank(points) == pytest.approx(2)
    assert isotropy(points) == pytest.approx(0.25)
    cross = np.concatenate([np.eye(6), -np.eye(6)])
    assert effective_rank(cross) == pytest.approx(6)
    assert isotropy(cross) == pytest.approx(1)


def test_map_by_scikit_learn() -> None:
    """Against scikit-learn's PCA, up to the sign of a direction."""
    from sklearn.decomposition import PCA

    theirs = PCA(2).fit(VECTORS.astype(np.float64))
    places, share = principal_map(VECTORS)
    np.testing.assert_allclose(np.abs(places), np.abs(theirs.transform(VECTORS.astype(np.float64))), atol=1e-6)
    assert share == pytest.approx(theirs.explained_variance_ratio_.sum())


def test_a_cloud_that_is_none() -> None:
    with pytest.raises(DataError, match="2 vectors and k 10"):
        describe_geometry(VECTORS[:2])
    found = describe_geometry(VECTORS, pairs=(VECTORS, VECTORS), k=5)
    assert found.alignment == 0
    assert found.vectors == 200


@pytest.mark.parametrize("how", ["int8", "uint8", "binary", "ubinary"])
def test_codes_of_sentence_transformers(how: str) -> None:
    """Against sentence_transformers.quantize_embeddings, with ranges of other vectors: equal to the byte."""
    from sentence_transformers.util.quantization import quantize_embeddings

    ranges = value_ranges(VECTORS[:50])
    theirs = quantize_embeddings(VECTORS, precision=how, ranges=ranges)
    ours = quantize(VECTORS, how, ranges=ranges)  # type: ignore[arg-type]
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


def test_codes_that_cannot_be() -> None:
    with pytest.raises(ModelError, match="unknown quantization `int4`"):
        quantize(VECTORS, "int4")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="one vector does not show"):
        quantize(VECTORS[:1], "int8")


def test_a_cloud_that_is_one_point_and_rows_of_zeros() -> None:
    assert isotropy(np.ones((5, 4))) == 0.0
    np.testing.assert_array_equal(unit_length(np.zeros((1, 3), np.float16)), np.zeros((1, 3)))
