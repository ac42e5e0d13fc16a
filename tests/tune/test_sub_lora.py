"""SubLoRA: its projection and its weights against dense float64 algebra, its certificate by hand and by chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_training import SmallTraining, train
from test_injected_selections import gpt2
from test_peft_selections import batch, bert, llama
from torch import Tensor

from surefoot.assess.analyses.compression_bound import CompressionBound, message_bits
from surefoot.errors import RecipeError
from surefoot.models.model import Model
from surefoot.tune.selections.sub_lora import LowRank, SubLoRA, Subspace

#: A matrix that is adapted by default, and its (out, in) place in the model.
ADAPTED = {
    bert: "backbone.encoder.layer.0.attention.self.query",
    llama: "backbone.layers.0.self_attn.q_proj",
    gpt2: "backbone.h.0.attn.c_attn",
}


def dense(d: int, size: int) -> Tensor:
    """P (size, d), column by column."""
    space = Subspace(d, size)
    columns = []
    for place in range(d):
        with torch.no_grad():
            space.w.zero_()[place] = 1
        columns.append(space().detach().double())
    return torch.stack(columns, 1)


@pytest.mark.parametrize(("d", "size"), [(12, 144), (7, 200), (50, 51)])
def test_the_columns_are_orthogonal_and_of_one_length(d, size):
    """P^T P = (size / d) I, but for what the last, partly used row of Q1 leaves out."""
    gram = dense(d, size).T @ dense(d, size) * d / size
    if math.isqrt(size) ** 2 == size:
        torch.testing.assert_close(gram, torch.eye(d, dtype=torch.float64), rtol=0, atol=1e-5)
    else:
        assert (gram - torch.eye(d, dtype=torch.float64)).abs().max() < 0.5
    assert torch.linalg.matrix_rank(gram) == d


@pytest.mark.parametrize("make", list(ADAPTED), ids=lambda make: make.__name__)
def test_weights_are_the_formulas(make):
    """W + (alpha / r) B (A_0 + A) with A and B cut from P w, and the head's from what follows: dense, in float64."""
    model, bare, selection = make(), make(), SubLoRA(d=30, r=2, alpha=8.0)
    selection.apply(model)
    first = next(each for each in model.modules() if isinstance(each, LowRank))
    start = first.start.double()
    train(model, batch(), steps=3, lr=0.1)
    selection.finish(model)
    space = first.subspace
    numbers = dense(30, space.size) @ space.w.detach().double()
    weight = bare.get_parameter(f"{ADAPTED[make]}.weight").double()
    out, wide = weight.shape[::-1] if make is gpt2 else weight.shape
    a, b = numbers[: 2 * wide].view(2, wide), numbers[2 * wide : 2 * (wide + out)].view(out, 2)
    change = 4 * b @ (start + a)
    expected = weight + (change.T if make is gpt2 else change)
    torch.testing.assert_close(model.get_parameter(f"{ADAPTED[make]}.weight").double(), expected, rtol=1e-4, atol=1e-6)
    head = torch.cat([model.head.weight.flatten(), model.head.bias]).detach().double()
    torch.testing.assert_close(head, numbers[-len(head) :], rtol=1e-4, atol=1e-6)
    assert list(model.state_dict()) == list(bare.state_dict())
    assert not [name for name, each in model.named_modules() if isinstance(each, Subspace)]


def test_only_w_trains_and_it_is_there_once():
    model = bert()
    SubLoRA(d=30).apply(model)
    [(name, w)] = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
    assert name.endswith("subspace.w")
    assert w.shape == (30,)
    assert sum("subspace.w" in key for key in model.state_dict()) == 1


def test_there_are_no_more_numbers_than_are_made_of_them():
    model = bert()
    SubLoRA(d=100_000).apply(model)
    space = next(each for each in model.modules() if isinstance(each, Subspace))
    assert len(space.w) == space.size < 1000


def test_w_is_rounded_to_its_levels():
    model, selection = bert(), SubLoRA(d=40, levels=3)
    selection.apply(model)
    train(model, batch(), steps=3, lr=0.1)
    w = next(each for each in model.modules() if isinstance(each, Subspace)).w
    before = w.detach().clone()
    selection.after_step(model, step=2, steps=3)
    assert torch.equal(w, before)
    selection.after_step(model, step=3, steps=3)
    selection.finish(model)
    values, symbols = torch.unique(w.detach(), return_inverse=True)
    assert len(values) == 3
    assert torch.equal(values, values.to(torch.float16).float())
    assert selection.message_ == message_bits(symbols.numpy())
    nearest = (before[:, None] - values).abs().argmin(1)
    assert (nearest == symbols).float().mean() > 0.9  # the means of groups, before they are rounded to 16 bits


def test_the_certificate_is_the_bound_of_what_the_model_gets_wrong():
    """Reference: the formula by hand, over the finished model's own answers."""
    model, selection, some = bert(), SubLoRA(d=20), batch(40)
    selection.apply(model)
    train(model, some, steps=5, lr=0.1)
    selection.after_step(model, step=5, steps=5)
    selection.finish(model)
    model.eval()
    [said] = selection.conclude(model, SmallTraining(model, some))
    with torch.no_grad():
        wrong = int((model(some).logits.argmax(-1) != some.labels).sum())
    k = selection.message_ + 2 * math.log2(selection.message_) + 7
    expected = wrong / 40 + math.sqrt((k * math.log(2) + math.log(20)) / 80)
    assert selection.certificate_.bound == pytest.approx(expected)
    assert f"at most {100 * expected:.1f}%" in said
    assert "smaller `d`" in said  # 40 examples certify nothing


def test_a_bound_of_errors_holds_for_the_best_of_many_guesses():
    """By chance: of 2^10 classifiers that all guess, the one that does best on 200 examples is written in 10 bits, and its
    bound is above its true error, a half, in at least 95 of 100 draws."""
    generator, held = np.random.default_rng(0), 0
    for _ in range(100):
        wrong = int(generator.binomial(200, 0.5, size=1024).min())
        found = CompressionBound(choices=0.0).of_errors(wrong=wrong, examples=200, classes=2, message=10.0)
        held += found.bound >= 0.5
    assert held >= 95


def test_what_cannot_be_is_refused():
    with pytest.raises(RecipeError, match="`d` is 1"):
        SubLoRA(d=1)
    with pytest.raises(RecipeError, match="`levels` is 1"):
        SubLoRA(levels=1)
    other: Model = bert()
    with pytest.raises(RecipeError, match="no linear layer is named `querry`"):
        SubLoRA(target_modules=["querry"]).apply(other)
