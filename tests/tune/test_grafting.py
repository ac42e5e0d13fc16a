"""Skill grafting against autograd in float64, and its limits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tiny_problem import move, take, tiny_batch, tiny_model
from torch.func import functional_call
from torch.nn import functional as F

from conftest import examples
from surefoot import Recipe
from surefoot.errors import RecipeError
from surefoot.merge.grafting import Grafting, overlap
from surefoot.models.model import Model
from surefoot.tune.build import build
from surefoot.tune.step import Batch


class Some:
    """Training examples of the two-layer net, in two batches."""

    def batches(self, examples: int, *, size: int = 6) -> Iterator[Batch]:
        batch = tiny_batch()
        inputs = {"features": batch.inputs["features"].double()}
        batch = Batch(inputs=inputs, labels=batch.labels, index=batch.index, group=batch.group)
        for rows in torch.arange(min(examples, len(batch))).split(size):
            yield take(batch, rows)


def pair() -> tuple[Model, dict[str, torch.Tensor]]:
    """A tuned model and the start it came from."""
    model = tiny_model().double()
    model.head.float()
    base = {name: value.clone() for name, value in model.state_dict().items()}
    move(model, scale=0.5)
    return model, base


def test_the_scores_are_those_of_gradient_descent_by_autograd():
    """Float64, autograd through g(S) of the paper's equation 3 on a two-layer net, over four steps."""
    model, base = pair()
    graft = Grafting(share=0.2, steps=4, examples=12, lr=3e4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graft.setup(model, Some(), base)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    names = list(graft.scores_)
    first = Grafting(share=0.2, steps=0)
    first.setup(model, Some(), base)
    scores = {name: torch.zeros_like(base[name], requires_grad=True) for name in names}
    (batch, *_) = Some().batches(12)
    rest = {name: value for name, value in before.items() if name.startswith("head.")}
    for _ in range(4):
        weights = {}
        for name in names:
            chosen, flip = first.mask_[name].double(), torch.sigmoid(scores[name] - 10)
            g = chosen * (1 - flip) + (1 - chosen) * flip
            weights[name] = base[name] + g * (before[name] - base[name])
        loss = F.cross_entropy(functional_call(model, {**rest, **weights}, (batch,)).logits, batch.labels)
        gradients = torch.autograd.grad(loss, list(scores.values()))
        scores = {
            name: (scores[name] - 3e4 * each).detach().requires_grad_()
            for name, each in zip(names, gradients, strict=True)
        }
    for name in names:
        torch.testing.assert_close(graft.scores_[name], scores[name].detach(), rtol=1e-6, atol=1e-6)
    assert max(float(each.detach().abs().max()) for each in scores.values()) > 0.1


def test_the_first_mask_is_one_threshold_for_all_weights():
    model, base = pair()
    graft = Grafting(share=0.25, steps=0)
    graft.setup(model, Some(), base)
    merged = graft([model.state_dict()], base)
    moves = {name: (model.state_dict()[name] - base[name]).abs() for name in graft.mask_}
    kept = torch.cat([moves[name][mask] for name, mask in graft.mask_.items()])
    left = torch.cat([moves[name][~mask] for name, mask in graft.mask_.items()])
    assert kept.min() >= left.max()
    assert len(kept) == round(0.25 * (len(kept) + len(left)))
    for name, mask in graft.mask_.items():
        assert torch.equal(merged[name], torch.where(mask, model.state_dict()[name], base[name]))
    assert torch.equal(merged["head.weight"], model.state_dict()["head.weight"])
    assert overlap(graft.mask_, graft.mask_) == 1.0
    assert overlap({name: ~mask for name, mask in graft.mask_.items()}, graft.mask_) == 0.0


def test_everything_grafted_is_the_tuned_model_to_the_bit(tiny_bert: Model) -> None:
    recipe = Recipe(epochs=1, batch_size=16, precision="float32", selection={"name": "top_layers", "k": 1})
    plain = recipe.fit(tiny_bert, examples(48)).model
    whole = recipe.changed(after=[{"name": "grafting", "share": 1.0, "steps": 0}]).fit(tiny_bert, examples(48)).model
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in whole.state_dict().items())


def test_a_learned_graft_in_a_recipe_changes_few_weights(tiny_bert: Model) -> None:
    after = [{"name": "grafting", "share": 1e-3, "steps": 2, "lr": 1e5}]
    recipe = Recipe(epochs=1, batch_size=16, precision="float32", optimizer={"name": "adamw", "lr": 1e-3}, after=after)
    model = recipe.fit(tiny_bert, examples(48)).model
    before = tiny_bert.state_dict()
    changed = [
        (value != before[name]).float().mean()
        for name, value in model.state_dict().items()
        if name in before and not name.startswith("head.")
    ]
    assert max(changed) > 0
    assert sum(changed) / len(changed) < 0.2
    again = recipe.fit(tiny_bert, examples(48)).model
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.0}, "`share` is 0"),
        ({"steps": -1}, "`steps` is -1"),
        ({"lr": 0}, "`lr` is 0"),
        ({"offset": -1}, "`offset` is -1"),
        ({"examples": 0}, "`examples` is 0"),
    ],
)
def test_errors(options, message):
    with pytest.raises(RecipeError, match=message):
        build("merge", {"name": "grafting", **options})


def test_where_the_head_alone_moved_nothing_is_grafted(tiny_bert: Model) -> None:
    recipe = Recipe(epochs=1, batch_size=16, selection="head", after=["grafting"])
    plain = recipe.changed(after=[]).fit(tiny_bert, examples(24)).model.state_dict()
    assert all(
        torch.equal(value, plain[name])
        for name, value in recipe.fit(tiny_bert, examples(24)).model.state_dict().items()
    )
