"""Early and late dropout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_problem import tiny_batch, tiny_model
from tiny_transformer import text_model
from torch import nn

from conftest import examples
from surefoot import Recipe
from surefoot.errors import RecipeError
from surefoot.models.model import Model
from surefoot.tune.checkpoint import Checkpoint
from surefoot.tune.fit import Fit
from surefoot.tune.selections.early_dropout import EarlyDropout
from surefoot.tune.selections.late_dropout import LateDropout


def rates(model: nn.Module) -> set[float]:
    return {each.p for each in model.modules() if isinstance(each, nn.Dropout)}


def test_rates_are_the_authors_schedule():
    """Against the public scheduler's numbers: linspace(p, 0, n) and then zeros, or zeros and then p."""
    early, late = EarlyDropout(p=0.3, until=0.4), LateDropout(p=0.3, since=0.4)
    expected = np.concatenate([np.linspace(0.3, 0, 8), np.zeros(12)])
    np.testing.assert_allclose([early.rate(step, 20) for step in range(20)], expected, atol=1e-12)
    assert [late.rate(step, 20) for step in range(20)] == [0.0] * 8 + [0.3] * 12
    constant = EarlyDropout(p=0.3, until=0.4, decay="constant")
    assert [constant.rate(step, 20) for step in range(20)] == [0.3] * 8 + [0.0] * 12


@pytest.mark.parametrize("selection", [EarlyDropout(p=0.4, until=0.5), LateDropout(p=0.4, since=0.5)])
def test_modules_follow_and_return(selection):
    model = text_model(dropout=0.1)
    selection.apply(model)
    for step in range(10):
        selection.before_step(model, step=step, steps=10)
        assert rates(model) == {selection.rate(step, 10)}
    selection.finish(model)
    assert rates(model) == {0.1}


def test_where_there_is_none_inputs_are_dropped_out():
    """By the law of dropout: the mean over draws is the pass without it, and shares of exact zeros are p."""
    model = tiny_model().train()
    del model.backbone[2]
    selection = EarlyDropout(p=0.25, until=1.0, decay="constant")
    selection.apply(model)
    read = []
    model.head.register_forward_hook(lambda module, args, output: read.append(args[0].detach()))
    selection.before_step(model, step=0, steps=1)
    torch.manual_seed(0)
    for _ in range(400):
        model(tiny_batch())
    assert float((torch.stack(read) == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    model.eval()
    plain = model(tiny_batch()).logits
    selection.finish(model)
    assert torch.equal(model(tiny_batch()).logits, plain)
    assert not any(each._forward_pre_hooks for each in model.modules())


def test_no_rate_is_training_without_dropout_to_the_bit(tiny_bert: Model):
    train = examples(48)
    ends = []
    for selection in ({"name": "early_dropout", "p": 0.0}, {"name": "late_dropout", "p": 0.0}, "all"):
        recipe = Recipe(selection=selection, epochs=1, batch_size=16, precision="float32")
        model = tiny_bert
        if selection == "all":
            from copy import deepcopy

            model = deepcopy(tiny_bert)
            for each in model.modules():
                if isinstance(each, nn.Dropout):
                    each.p = 0.0
        ends.append(Fit(recipe, model, train, seed=1).run().state_dict())
    assert all(torch.equal(ends[0][key], other[key]) for other in ends[1:] for key in ends[0])


@pytest.mark.parametrize("name", ["early_dropout", "late_dropout"])
def test_a_resumed_training_has_the_rate_of_its_step(name: str, tiny_bert: Model, tmp_path: Path):
    train = examples(48)
    recipe = Recipe(selection={"name": name, "p": 0.4}, epochs=4, batch_size=16, precision="float32")
    whole = Fit(recipe, tiny_bert, train, seed=1).run().state_dict()

    class Killed(Exception):
        pass

    class Dying(Checkpoint):
        def tick(self, fit: Fit) -> None:
            if fit.history.steps == 5:
                self.save(fit)
                raise Killed

    with pytest.raises(Killed):
        Fit(recipe, tiny_bert, train, seed=1).run(checkpoint=Dying(tmp_path / "state"))
    again = Fit(recipe, tiny_bert, train, seed=1)
    resumed = again.run(checkpoint=Checkpoint(tmp_path / "state"))
    assert again.history.resumed_at == 5
    assert all(torch.equal(whole[key], value) for key, value in resumed.state_dict().items())
    assert rates(resumed) == rates(tiny_bert)


def test_out_of_range():
    for make in (lambda: EarlyDropout(p=1.0), lambda: EarlyDropout(until=0.0), lambda: LateDropout(since=1.0)):
        with pytest.raises(RecipeError):
            make()
