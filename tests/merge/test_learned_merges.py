"""Merges that learn from data, against closed forms, autograd and plain definitions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from surefoot.data.examples import Examples
from surefoot.errors import DataError, RecipeError
from surefoot.merge.adamerging import AdaMerging, trimmed
from surefoot.merge.atlas import ATLAS
from surefoot.merge.fisher import Fisher
from surefoot.merge.fit import Fit, Seen
from surefoot.merge.greedy_soup import GreedySoup
from surefoot.merge.learned_soup import LearnedSoup
from surefoot.merge.regmean import RegMean
from surefoot.merge.self_positioning import SelfPositioning, direction
from surefoot.models.model import Model
from surefoot.registry import methods
from surefoot.tune.build import build

CLASSES = ("a", "b", "c")
LEARNED = [method.name for method in methods("merge") if issubclass(method.make, Fit)]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def linear_model() -> Model:
    """Features W x, W (3, 5), read by a head."""
    torch.manual_seed(0)
    model = Model.from_module(nn.Linear(5, 3, bias=False), dim=3, classes=CLASSES)
    nn.init.normal_(model.head.weight)
    model.precision = "float32"
    return model


def examples(count: int, seed: int) -> Examples:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    features = rng.normal(size=(count, 5)).astype(np.float32) + labels[:, None] * 0.5
    return Examples(features.astype(np.float32), labels, CLASSES, modality="features", source=f"made-{seed}")


def world(count: int = 3) -> tuple[Model, list[dict[str, Tensor]], dict[str, Tensor], list[Seen]]:
    """A model, checkpoints tuned from a base, and a set with a head of its own for each."""
    model = linear_model()
    base = {"backbone.weight": model.backbone.weight.detach().clone()}
    generator = torch.Generator().manual_seed(3)
    tuned = [
        {"backbone.weight": base["backbone.weight"] + torch.randn(3, 5, generator=generator)} for _ in range(count)
    ]
    heads = [
        {"head.weight": torch.randn(3, 3, generator=generator), "head.bias": torch.randn(3, generator=generator)}
        for _ in range(count)
    ]
    seen = [Seen(f"t{n}", examples(24, n), model, head=head) for n, head in enumerate(heads)]
    return model, tuned, base, seen


def fitted(name: str, **options: object) -> Fit:
    method = build("merge", {"name": name, **options})
    model, tuned, base, seen = world()
    if method.sees == "judge":
        tuned, seen = with_heads(tuned, seen)
    method.fit(model, tuned, base, seen)
    return method


def with_heads(tuned: list[dict[str, Tensor]], seen: list[Seen]) -> tuple[list[dict[str, Tensor]], list[Seen]]:
    """One task: heads are merged too."""
    whole = [{**weights, **each.head} for weights, each in zip(tuned, seen, strict=True)]
    for each in seen:
        each.head = {}
    return whole, seen[:1]


@pytest.mark.parametrize("name", LEARNED)
def test_the_contract_of_merges_that_learn(name: str) -> None:
    """Refuses to merge before it has learned; leaves model and checkpoints alone; the same seed gives the same bits."""
    method = build("merge", name)
    few = {"steps": 3} if hasattr(method, "steps") else {}
    model, tuned, base, seen = world()
    if method.sees == "judge":
        tuned, seen = with_heads(tuned, seen)
    with pytest.raises(RecipeError, match="fit it first"):
        method(tuned, base)
    with pytest.raises(RecipeError, match="use `surefoot merge`"):
        method.setup(model, None, base)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    kept = [{key: value.clone() for key, value in each.items()} for each in tuned]
    ends = []
    for chance in (1, 2):
        torch.manual_seed(chance)
        method = build("merge", {"name": name, **few})
        method.fit(model, tuned, base, seen, seed=4)
        ends.append(method(tuned, base))
        assert method.facts()
    assert set(ends[0]) == set(tuned[0])
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(each[key], old[key]) for each, old in zip(tuned, kept, strict=True) for key in each)
    assert method.__doc__
    assert "Raises" in method.__doc__


def test_adamerging_follows_autograd() -> None:
    """Adam on the entropy with autograd through theta_0 + sum lambda_k tau_k, in place of the closed-form gradient."""
    model, tuned, base, seen = world()
    method = AdaMerging(steps=6, lr=0.05, batch_size=24)
    method.fit(model, tuned, base, seen, seed=0)
    name = "backbone.weight"
    raw = torch.full((3,), 0.3, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.05)
    for _ in range(6):
        values = raw.clamp(0, 1)
        weights = {name: base[name] + sum(values[k] * (tuned[k][name] - base[name]) for k in range(3))}
        total = torch.zeros(())
        for each in seen:
            logits = functional_call(model, {**weights, **each.head}, (each.batch(np.arange(24)),)).logits
            p = logits.softmax(1)
            total = total - (p * p.log()).sum(1).mean()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    torch.testing.assert_close(method.coefficients_[name], raw.detach().clamp(0, 1), rtol=0, atol=1e-5)
    assert method.losses_[-1] < method.losses_[0]


def test_without_steps_nothing_is_learned() -> None:
    """AdaMerging is task arithmetic with 0.3, aTLAS the base to the bit, the learned soup the uniform one."""
    _, tuned, base, seen = world()
    plain = build("merge", "task_arithmetic")(tuned, base)["backbone.weight"]
    torch.testing.assert_close(fitted("adamerging", steps=0)(tuned, base)["backbone.weight"], plain)
    assert torch.equal(fitted("atlas", steps=0)(tuned, base)["backbone.weight"], base["backbone.weight"])
    whole, _ = with_heads(tuned, seen)
    soup, mean = fitted("learned_soup", steps=0)(whole, None), build("merge", "uniform_soup")(whole, None)
    for key in mean:
        torch.testing.assert_close(soup[key], mean[key])


@pytest.mark.parametrize("method", [ATLAS(steps=20, lr=0.1), LearnedSoup(steps=20), LearnedSoup(steps=20, by="layer")])
def test_labelled_losses_go_down(method: ATLAS | LearnedSoup) -> None:
    model, tuned, base, seen = world()
    if method.sees == "judge":
        tuned, seen = with_heads(tuned, seen)
    method.batch_size = 24
    method.fit(model, tuned, base, seen)
    assert method.losses_[-1] < method.losses_[0]
    if isinstance(method, LearnedSoup):
        rows = torch.stack(list(method.coefficients_.values()))
        torch.testing.assert_close(rows.sum(1), torch.ones(len(rows)))
        assert len(rows.unique(dim=0)) == (3 if method.by == "layer" else 1)


def test_adamerging_pp_trims_over_the_whole_model() -> None:
    """The authors' order of things on two small tensors: top share over both, elect, drop what disagrees."""
    vectors = [
        {"a": torch.tensor([3.0, -0.1, 2.0]), "b": torch.tensor([0.2, -5.0])},
        {"a": torch.tensor([-1.0, 4.0, 0.3]), "b": torch.tensor([0.1, 6.0])},
    ]
    first, second = trimmed(vectors, 0.6)
    assert first["a"].tolist() == [3.0, 0.0, 2.0]
    assert first["b"].tolist() == [0.0, 0.0]
    assert second["a"].tolist() == [0.0, 4.0, 0.0]
    assert second["b"].tolist() == [0.0, 6.0]


def test_fisher_against_the_closed_form() -> None:
    """For logits H W x + b the gradient of log p_y by W is H^T (e_y - p) x^T: its expected square, in float64."""
    model, tuned, base, seen = world(2)
    method = Fisher(examples=24)
    method.fit(model, tuned, base, seen)
    sums = []
    for weights, each in zip(tuned, seen, strict=True):
        head, bias = each.head["head.weight"].double(), each.head["head.bias"].double()
        x = torch.from_numpy(np.asarray(each.examples.inputs)).double()
        p = (x @ weights["backbone.weight"].double().T @ head.T + bias).softmax(1)
        total = torch.zeros(3, 5, dtype=torch.float64)
        for row in range(24):
            for label in range(3):
                slope = head.T @ (torch.eye(3, dtype=torch.float64)[label] - p[row])
                total += p[row, label] * torch.outer(slope, x[row]).square()
        sums.append(total / 24)
    for found, expected in zip(method.fishers_, sums, strict=True):
        torch.testing.assert_close(found["backbone.weight"].double(), expected, rtol=1e-4, atol=1e-6)
    weighed = sum(f * w["backbone.weight"].double() for f, w in zip(sums, tuned, strict=True)) / sum(sums)
    torch.testing.assert_close(method(tuned, base)["backbone.weight"].double(), weighed, rtol=1e-4, atol=1e-5)


def test_regmean_is_least_squares() -> None:
    """With alpha 1 the solution of X_k W = X_k W_k for all k, by numpy's least squares; with 0 a weighted mean."""
    model, tuned, base, seen = world(2)
    inputs = [np.asarray(each.examples.inputs, dtype=np.float64) for each in seen]
    weights = [each["backbone.weight"].double().numpy() for each in tuned]
    method = RegMean(alpha=1.0)
    method.fit(model, tuned, base, seen)
    targets = [x @ w.T for x, w in zip(inputs, weights, strict=True)]
    expected = np.linalg.lstsq(np.concatenate(inputs), np.concatenate(targets), rcond=None)[0].T
    np.testing.assert_allclose(method(tuned, base)["backbone.weight"].double().numpy(), expected, atol=1e-5)
    plain = RegMean(alpha=0.0)
    plain.fit(model, tuned, base, seen)
    sizes = [(x**2).sum(0) for x in inputs]
    expected = sum(w * s for w, s in zip(weights, sizes, strict=True)) / sum(sizes)
    np.testing.assert_allclose(plain(tuned, base)["backbone.weight"].double().numpy(), expected, atol=1e-5)


def test_the_greedy_soup_is_the_paper_s_recipe() -> None:
    """Recipe 1 of the paper, written out, on ten members."""
    model, tuned, _, seen = world(10)
    whole, judge = with_heads(tuned, seen)
    method = GreedySoup()
    method.fit(model, whole, None, judge)

    def accuracy(members: list[int]) -> float:
        weights = {key: torch.stack([whole[each][key] for each in members]).mean(0) for key in whole[0]}
        batch = judge[0].batch(np.arange(24))
        return float((functional_call(model, weights, (batch,)).logits.argmax(1) == batch.labels).double().mean())

    single = [accuracy([number]) for number in range(10)]
    soup: list[int] = []
    for number in sorted(range(10), key=lambda each: -single[each]):
        if not soup or accuracy([*soup, number]) >= accuracy(soup):
            soup.append(number)
    assert method.members_ == soup
    assert method.accuracy_ == pytest.approx(accuracy(soup))
    assert method.accuracy_ >= max(single)
    best = GreedySoup(size=1)
    best.fit(model, whole, None, judge)
    assert (best.members_, best.accuracy_) == ([int(np.argmax(single))], max(single))


def test_self_positioning_is_iterated_slerp() -> None:
    """The direction from inner products alone, against slerp on whole vectors in float64."""
    rng = np.random.default_rng(0)
    vectors, a = rng.normal(size=(4, 60)) + 0.3, np.array([1.0, 0.4, 2.0, 0.7])

    def slerp(u: np.ndarray, v: np.ndarray, one: float, other: float) -> np.ndarray:
        angle = np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
        share = one / (one + other)
        return (np.sin(angle * share) * u + np.sin(angle * (1 - share)) * v) / np.sin(angle)

    expected = vectors[0]
    for before, number in pairwise(range(4)):
        expected = slerp(expected, vectors[number], a[: before + 1].mean(), a[number])
    found = direction(torch.from_numpy(a), torch.from_numpy(vectors @ vectors.T))
    np.testing.assert_allclose(found.numpy() @ vectors, expected, rtol=1e-9, atol=1e-12)


def test_self_positioning_needs_pairs() -> None:
    model, tuned, base, _ = world()
    single = examples(3, 0)
    with pytest.raises(DataError, match="fewer than two classes have two examples"):
        SelfPositioning(steps=1).fit(
            model, tuned, base, [Seen("one", single, model, head={"head.weight": torch.eye(3)})]
        )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "adamerging", "by": "block"}, "`by` is `block`"),
        ({"name": "adamerging", "lr": 0}, "`lr` is 0"),
        ({"name": "atlas", "steps": -1}, "`steps` is -1"),
        ({"name": "learned_soup", "by": "task"}, "`by` is `task`"),
        ({"name": "self_positioning", "temperature": 0}, "`temperature` is 0"),
        ({"name": "fisher", "floor": 0}, "`floor` is 0"),
        ({"name": "regmean", "alpha": 1.5}, "`alpha` is 1.5"),
    ],
)
def test_bad_options(spec: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build("merge", spec)
