"""What every registered merge promises that is arithmetic on tensors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from surefoot.errors import RecipeError
from surefoot.merge.combine import Combine, Piece
from surefoot.merge.fit import Fit
from surefoot.registry import methods
from surefoot.tune.build import build

#: Those that look at a training's data before they merge: tested where that is.
LEARNED = {"grafting", "robust_line_search", "straggler_pruning"}
REGISTERED = methods("merge")
NAMES = [method.name for method in REGISTERED if method.name not in LEARNED and not issubclass(method.make, Fit)]
#: Options by which a method gives one of its inputs to the bit: the base, or else the first model.
LIMITS = {
    **{key: {"scaling": 0} for key in ("task_arithmetic", "ties", "dare", "dare_ties", "breadcrumbs", "della")},
    **{"wise_ft": {"alpha": 0}, "slerp": {"t": 0}, "robust_weight_signatures": {"scaling": 0}},
}


def models(count: int = 3, *, scale: float = 0.1, shape: tuple[int, ...] = (24, 50)) -> tuple[list[Tensor], Tensor]:
    """Tensors tuned from one base."""
    generator = torch.Generator().manual_seed(5)
    base = torch.randn(shape, generator=generator)
    return [base + scale * torch.randn(shape, generator=generator) for _ in range(count)], base


def given(method: Combine, tuned: list[Tensor], base: Tensor) -> tuple[list[Tensor], Tensor | None]:
    """As many as it takes, and the base if it does."""
    return tuned[: method.most], base if method.needs_base else None


@pytest.mark.parametrize("name", NAMES)
def test_parts_give_what_the_whole_gives(name: str) -> None:
    """Large tensors are merged part by part, of any size, with the same result; inputs are left as they are."""
    method = build("merge", name)
    tuned, base = given(method, *models())
    kept = [each.clone() for each in tuned]
    whole = method.tensor(tuned, base, name="w")
    assert whole.shape == tuned[0].shape
    assert all(torch.equal(one, other) for one, other in zip(tuned, kept, strict=True))
    if not method.by_pieces:
        return
    flat, start = [each.flatten() for each in tuned], None if base is None else base.flatten()

    def pieces() -> Iterator[Piece]:
        for begin in range(0, 1200, 500):
            yield [each[begin : begin + 500] for each in flat], None if start is None else start[begin : begin + 500]

    measured = method.measure(pieces, name="w")
    found = torch.cat([method.piece(*each, measured) for each in pieces()])
    torch.testing.assert_close(found, whole.flatten(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_where_nothing_moved_nothing_changes(name: str) -> None:
    method = build("merge", name)
    tuned, base = given(method, *models(scale=0.0))
    torch.testing.assert_close(method.tensor(tuned, base, name="w"), tuned[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bits(name: str) -> None:
    tuned, base = models()
    ends = []
    for seed in (1, 2):
        torch.manual_seed(seed)  # what is drawn is drawn from the method's own seed
        method = build("merge", name)
        ends.append(method.tensor(*given(method, tuned, base), name="w"))
    assert torch.equal(*ends)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_computed_in_float32(name: str) -> None:
    method = build("merge", name)
    tuned, base = given(method, *models())
    half = [each.bfloat16() for each in tuned]
    start = None if base is None else base.bfloat16()
    found = method.tensor(half, start, name="w")
    assert found.dtype == torch.bfloat16
    exact = method.tensor([each.float() for each in half], None if start is None else start.float(), name="w")
    assert torch.equal(found, exact.bfloat16())


@pytest.mark.parametrize(("name", "options"), LIMITS.items())
def test_the_limit_is_the_plain_thing_to_the_bit(name: str, options: dict[str, float]) -> None:
    method = build("merge", {"name": name, **options})
    tuned, base = given(method, *models())
    plain = tuned[0] if base is None or name == "robust_weight_signatures" else base
    assert torch.equal(method.tensor(tuned, base, name="w"), plain)


@pytest.mark.parametrize("name", NAMES)
def test_the_count_of_models_is_checked(name: str) -> None:
    method = build("merge", name)
    if method.least > 1:
        with pytest.raises(RecipeError, match="name more"):
            method.check(method.least - 1)
    if method.most is not None:
        with pytest.raises(RecipeError, match="name fewer"):
            method.check(method.most + 1)
    method.check(max(method.least, min(3, method.most or 3)))


@pytest.mark.parametrize("method", REGISTERED, ids=lambda method: method.name)
def test_the_docstring_says_what_users_ask(method) -> None:
    text = method.make.__doc__
    assert "theta" in text
    assert method.name in {"uniform_soup", "wise_ft"} or "Raises" in text
    assert method.papers or method.name == "passthrough"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "linear", "weights": [0.5, 0.4]}, "sum to 0.9"),
        ({"name": "linear", "weights": [1, -1], "normalize": True}, "sum to 0"),
        ({"name": "linear", "weights": [0.5, "x"]}, "`weights` holds 'x'"),
        ({"name": "linear", "weights": 0.5}, "`weights` is 0.5"),
        ({"name": "task_arithmetic", "scaling": float("nan")}, "`scaling` is nan"),
        ({"name": "ties", "density": 0}, "`density` is 0"),
        ({"name": "dare", "density": 1.5}, "`density` is 1.5"),
        ({"name": "dare", "rescale": "l2"}, "`rescale` is `l2`"),
        ({"name": "breadcrumbs", "density": 0.99, "gamma": 0.5}, "sum to more than 1"),
        ({"name": "della", "density": 0.9}, "lower epsilon"),
        ({"name": "slerp", "t": 1.1}, "`t` is 1.1"),
        ({"name": "passthrough", "scale": float("inf")}, "`scale` is inf"),
    ],
)
def test_bad_options(spec: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build("merge", spec)


def test_as_many_weights_as_models() -> None:
    with pytest.raises(RecipeError, match="2 values of `weights` for 3 checkpoints"):
        build("merge", {"name": "ties", "weights": [0.5, 0.5]}).check(3)


@pytest.mark.parametrize(("count", "sample"), [(3001, "whole"), (150_001, "good"), (150_001, "misleading")])
def test_ties_keeps_the_largest_shares_exactly(count: int, sample: str) -> None:
    """The threshold against a full sort, for magnitudes over many decades and with zeros among them: small tensors, large
    ones, and large ones of which every element that is looked at first is zero."""
    from surefoot.merge.thresholds import _STRIDE, thresholds

    generator = torch.Generator().manual_seed(0)
    base, size = torch.zeros(count), count // 4
    tuned = [torch.randn(count, generator=generator) * 10.0 ** torch.randint(-8, 4, (count,), generator=generator)]
    tuned[0][: count // 8] = 0
    if sample == "misleading":
        for begin in range(0, count, size):
            tuned[0][begin : begin + size : _STRIDE] = 0

    def pieces() -> Iterator[Piece]:
        for begin in range(0, count, size):
            yield [tuned[0][begin : begin + size]], base[begin : begin + size]

    ranks = [1, 2, count // 5, count // 2, 5 * count // 6, 29 * count // 30, count]
    ordered = tuned[0].abs().sort(descending=True).values
    assert thresholds(pieces, lambda number, count: ranks) == [[float(ordered[rank - 1]) for rank in ranks]]


def test_model_stock_finds_the_centre_of_tuned_weights() -> None:
    """Equation 7 of the paper for two models, and its geometry in float64: moves of one length at one angle around a
    centre; the merged weights are where the perpendicular from the centre meets the plane of base and models."""
    generator = torch.Generator().manual_seed(0)
    centre, noise = torch.zeros(4000).double(), torch.randn(3, 4000, generator=generator).double()
    noise = torch.linalg.qr(noise.T).Q.T * 2.0
    centre[:] = torch.randn(4000, generator=generator)
    outside = centre - noise.T @ (noise @ centre) / 4.0
    base = torch.zeros(4000).double()
    models = [outside + each for each in noise]
    merged = build("merge", "model_stock").tensor(models, base, name="w")
    plane = torch.stack(models)
    error = plane @ (outside - merged)
    assert float(error.abs().max()) < 1e-6 * float(outside.norm()) ** 2
    cosine = float(torch.cosine_similarity(models[0], models[1], dim=0))
    pair = build("merge", "model_stock").tensor(models[:2], base, name="w")
    ratio = 2 * cosine / (1 + cosine)
    torch.testing.assert_close(pair, ratio * (models[0] + models[1]) / 2, rtol=1e-6, atol=1e-9)


def test_a_signature_is_at_right_angles_to_the_clean_move() -> None:
    """The authors' projection, in float64 from the paper's formula, for two corruptions with weights."""
    (clean, *robust), base = models()
    found = build("merge", {"name": "robust_weight_signatures", "weights": [0.7, -0.2]}).tensor(
        [clean, *robust], base, name="layers.0.w"
    )
    v = (clean - base).double().flatten()
    expected = clean.double().flatten()
    for weight, each in zip([0.7, -0.2], robust, strict=True):
        u = (each - base).double().flatten()
        signature = u - (u @ v) / (v @ v) * v
        assert abs(float(signature @ v)) < 1e-9
        expected = expected + weight * signature
    torch.testing.assert_close(found.double().flatten(), expected, rtol=0, atol=1e-6)
    low = build("merge", {"name": "robust_weight_signatures", "layers": 1})
    assert torch.equal(low.tensor([clean, *robust], base, name="layers.1.w"), clean)
    assert not torch.equal(low.tensor([clean, *robust], base, name="layers.0.w"), clean)
