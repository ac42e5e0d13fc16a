"""The linearised model: against torch's own jvp, finite differences and what linear means."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_training import train
from test_contract_selections import answers, batch_for, bert, plain
from test_kept_selections import gpt2, llama
from tiny_transformer import text_batch, text_model
from torch import Tensor
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from surefoot.errors import RecipeError
from surefoot.models.additions import inside, parts, remove
from surefoot.models.model import Model
from surefoot.tune.selections.tangent import TangentSpace


def tangents(model: Model) -> dict[str, Tensor]:
    """tau by the names of the weights that it belongs to."""
    found = {name: value for name, value in model.named_parameters() if name in inside(model, [name])}
    return {name.replace(".tangent.", "."): value for name, value in found.items()}


def linearised(model: Model, *, seed: int = 0, scale: float = 0.1, layers: int | None = None) -> Model:
    """With a tau of some length."""
    generator = torch.Generator().manual_seed(seed)
    selection = TangentSpace(layers=layers)
    selection.apply(model)
    with torch.no_grad():
        for value in tangents(model).values():
            value.copy_(scale * torch.randn(value.shape, generator=generator, dtype=value.dtype))
    selection.finish(model)
    return model.eval()


def states(model: Model, weights: dict[str, Tensor] | None = None) -> Tensor:
    """The features (B, D) of the plain model with those weights; words are among the first forty."""
    batch = batch_for(model)
    inputs = {name: value % 40 if name == "input_ids" else value for name, value in batch.inputs.items()}
    with sdpa_kernel(SDPBackend.MATH):
        return functional_call(model, weights or {}, (replace(batch, inputs=inputs),)).features


@pytest.mark.parametrize("make", [bert, plain, gpt2, llama])
def test_the_derivative_is_that_of_torch_func(make):
    """Reference: torch.func.jvp over the whole plain model, all weights at once."""
    model = linearised(make())
    tau = {name: value.detach() for name, value in tangents(model).items()}
    bare = make().eval()
    weights = {name: value.detach() for name, value in bare.named_parameters() if name in tau}
    zero, along = jvp(lambda changed: states(bare, changed), (weights,), (tau,))
    assert along.abs().max() > 0.01
    torch.testing.assert_close(states(model), zero + along, rtol=1e-4, atol=1e-5)


def test_the_derivative_is_the_limit_of_differences():
    """Finite differences: (f(w0 + h tau) - f(w0 - h tau)) / 2h, whose error falls with h squared."""
    model = linearised(bert())
    tau = {name: value.detach() for name, value in tangents(model).items()}
    bare = bert().eval()
    weights = {name: value.detach() for name, value in bare.named_parameters() if name in tau}
    with torch.no_grad():
        along = states(model) - states(bare)
        errors = []
        for h in (0.05, 0.025):
            ends = [states(bare, {name: weights[name] + sign * h * tau[name] for name in tau}) for sign in (1, -1)]
            errors.append(float(((ends[0] - ends[1]) / (2 * h) - along).norm() / along.norm()))
    assert errors[1] < 0.35 * errors[0]
    assert errors[1] < 0.02


def test_answers_are_linear_in_the_coefficients():
    """f_lin of a tau_1 + b tau_2 is f(w0) + a J tau_1 + b J tau_2, the head being one; f itself is far from that."""
    one, two = linearised(bert(), seed=1, scale=0.3), linearised(bert(), seed=2, scale=0.3)
    start, both = answers(bert()), linearised(bert())
    for a, b in ((0.5, 0.5), (1.0, -2.0), (0.3, 0.0)):
        first, second = one.state_dict(), two.state_dict()
        both.load_state_dict({n: a * first[n] + b * second[n] if ".tangent." in n else first[n] for n in first})
        expected = start + a * (answers(one) - start) + b * (answers(two) - start)
        torch.testing.assert_close(answers(both), expected, rtol=1e-4, atol=1e-4)
    assert (answers(one) - start).abs().max() > 0.1


def test_a_tangent_of_zero_is_the_pretrained_model():
    model = bert()
    start = answers(model)
    TangentSpace().apply(model)
    torch.testing.assert_close(answers(model), start, rtol=0, atol=1e-6)  # other attention kernels, the same sums
    remove(model)
    assert torch.equal(answers(model), start)
    assert not parts(model)


def test_dropout_is_off_and_modes_come_back():
    model = linearised(bert())
    model.train()
    assert torch.equal(states(model), states(model))
    assert all(module.training for module in model.backbone.modules())


def test_frozen_layers_below_are_cached_and_change_nothing():
    model = linearised(text_model(layers=3), layers=1)
    batch = text_batch()
    expected = model(batch).logits
    assert model.lowest_trained() == 2
    model.freeze(2)
    assert torch.equal(model(batch).logits, expected)
    train(model, batch)
    assert not torch.equal(model.eval()(batch).logits, expected)


def test_bfloat16_is_float32_but_for_rounding():
    """Also where what the frozen layers gave comes in bfloat16, as from the cache."""
    model, batch = linearised(text_model(layers=3, attention="sdpa"), layers=2), text_batch()
    expected = model(batch).logits
    model.freeze(1)
    prefix = model.run_prefix(batch, 1).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = model(replace(batch, prefix=prefix)).logits
    found.sum().backward()
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.15)


def test_inference_mode_and_failures_leave_nothing_open():
    model = linearised(bert())
    expected = answers(model)
    with torch.inference_mode():
        assert torch.equal(model(batch_for(model)).logits, expected)
    broken = batch_for(model)
    broken.inputs["input_ids"][0, 0] = 10_000
    with pytest.raises(IndexError):
        model(broken)
    assert torch.equal(answers(model), expected)


def test_what_has_no_tangent_is_refused():
    model = Model.from_module(torch.nn.Flatten(), dim=6, classes=["a", "b"])
    with pytest.raises(RecipeError, match="it has none: choose `head`"):
        TangentSpace().apply(model)
    with pytest.raises(RecipeError, match="`layers` is 0"):
        TangentSpace(layers=0)
