"""Selections that act on attention heads: LoFiT's offsets, temperatures of heads, of queries and of values."""

from __future__ import annotations

import pytest
import torch
from small_training import SmallTraining, choose, train
from test_kept_selections import gpt2, llama, seen, trained
from test_peft_selections import answers, batch, bert, wrap
from torch import Tensor
from transformers import Qwen3Config, Qwen3Model

from surefoot import Recipe
from surefoot.errors import RecipeError
from surefoot.models.additions import parts
from surefoot.tune.fit import Fit
from surefoot.tune.selections.head_scales import HeadScales
from surefoot.tune.selections.lofit import Amplified, LoFiT, _Rehearsed
from surefoot.tune.selections.sites import all_heads, all_outputs
from surefoot.tune.selections.ssa import SSA

from conftest import examples  # isort: skip

NAME = "backbone.encoder.layer.1.attention"


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tensors this small only wait for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def split(x: Tensor, count: int) -> Tensor:
    """(B, T, heads * size) to (B, heads, T, size)."""
    return x.unflatten(2, (count, -1)).transpose(1, 2)


@pytest.mark.parametrize("make", [bert, llama])
def test_lofit_adds_its_vectors_to_the_heads_outputs(make):
    """Float64 from the paper's equation 2: W_o (z + v) + b, v zero but for the chosen heads; with and without biases."""
    model = trained(LoFiT(heads=[[1, 1], [0, 0]]), make())
    each = list(all_heads(model, asking="test").values())[1]
    found = seen(model, each.output, each.value)
    layer = model.get_submodule(each.output)
    moved = torch.zeros(each.count, each.size, dtype=torch.float64)
    moved[1] = layer.offsets.offsets[0].detach().double()
    plain = make()
    fold = layer.weight.detach().double() @ moved.flatten()
    z = found[each.output][0] if make is bert else None
    bias = 0 if layer.bias is None else layer.bias.detach().double()
    if z is not None:
        # The hook of the test runs after the offsets were added: what it sees is z + v.
        torch.testing.assert_close(
            found[each.output][1], z @ layer.weight.detach().double().T + bias, rtol=1e-5, atol=1e-6
        )
    # Folded into a bias of the output projection, the offsets give the same answers.
    for block, one in zip(plain.layer_names, all_heads(plain, asking="test").values(), strict=True):
        theirs = model.get_submodule(one.output)
        if "offsets" not in theirs._modules:
            continue
        v = torch.zeros(one.count, one.size)
        v[theirs.offsets.which] = theirs.offsets.offsets.detach()
        target = plain.get_submodule(one.output)
        shift = target.weight.detach() @ v.flatten()
        target.bias = torch.nn.Parameter(shift if target.bias is None else target.bias.detach() + shift)
        assert block in one.output
    torch.testing.assert_close(answers(model), answers(plain), rtol=1e-5, atol=1e-6)
    assert fold.abs().max() > 1e-3


def test_lofit_chooses_the_heads_with_the_longest_scales():
    """The first stage again by hand: gradient descent with the L1 term by autograd, then the norms."""
    model, given = bert(), batch()
    first = _Rehearsed(all_outputs(model, asking="test"), l1=0.02)
    SmallTraining(model, given).rehearse(first)
    chosen = LoFiT(share=0.34, l1=0.02)
    choose(chosen, model, given)
    order = sorted(first.norms_, key=lambda each: -each[0])
    assert chosen.heads_ == sorted([layer, head] for _, layer, head in order[:2])
    weight = torch.randn(3, 4, dtype=torch.float64)
    part = Amplified(weight, l1=0.5).double()
    upstream = torch.randn(3, 4, dtype=torch.float64)
    (part(weight) * upstream).sum().backward()
    other = part.scales.detach().clone().requires_grad_()
    ((weight * (1 + other) * upstream).sum() + 0.5 * other.abs().sum()).backward()
    # The penalty's hook was registered before `double`, on the parameter that it keeps.
    torch.testing.assert_close(part.scales.grad, other.grad)


def test_head_scales_are_temperatures():
    """Float64: softmax(lambda_h q k^T / sqrt(d)) v with the q of the pretrained projection."""
    model = bert()
    plain = seen(model, *(f"{NAME}.self.{each}" for each in ("query", "key", "value")))
    selection = HeadScales()
    selection.apply(model)
    scales = model.get_submodule(f"{NAME}.self.query").parametrizations.weight[0].scales
    with torch.no_grad():
        scales.copy_(torch.tensor([1.5, 3.0]))
    found = seen(model, f"{NAME}.output.dense")
    selection.finish(model)
    torch.testing.assert_close(
        seen(model, f"{NAME}.output.dense")[f"{NAME}.output.dense"][0], found[f"{NAME}.output.dense"][0]
    )
    query, key, value = (split(plain[f"{NAME}.self.{each}"][1], 2) for each in ("query", "key", "value"))
    logits = torch.tensor([1.5, 3.0], dtype=torch.float64).view(1, 2, 1, 1) * query @ key.transpose(2, 3) / 8**0.5
    expected = (logits.softmax(3) @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(found[f"{NAME}.output.dense"][0], expected, rtol=1e-5, atol=1e-6)


def test_head_scales_stay_above_their_least(tiny_bert):
    recipe = Recipe(selection={"name": "head_scales"}, optimizer={"name": "adamw", "lr": 0.1}, epochs=1, batch_size=8)
    fit = Fit(recipe, tiny_bert, examples(64))
    fit.selection.finish = lambda model: None
    fit.run()
    scales = torch.cat([each.flatten() for name, each in fit.trained.items() if not name.startswith("head.")])
    assert len(scales) == 4
    assert scales.min() == 1.0
    assert scales.max() > 1.0


def test_scales_of_one_are_the_pretrained_model_to_the_bit():
    model, plain = bert(), bert()
    HeadScales().apply(model)
    assert torch.equal(answers(model), answers(plain))
    LoFiT(heads=[[0, 0]]).apply(plain)
    assert torch.equal(answers(model), answers(plain))


@pytest.mark.parametrize("make", [bert, llama])
def test_temperatures_of_queries_and_values_are_their_formula(make):
    """Float64: (tanh(w . x) + 1 + exp(-exp(beta)) log n) times what the projection gives; n counts what is visible."""
    model = trained(SSA(), make())
    each = list(all_heads(model, asking="test").values())[1]
    mask = batch().inputs["attention_mask"].clone()
    mask[0, 3:] = 0
    given = batch()
    given = type(given)(inputs={**given.inputs, "attention_mask": mask}, labels=given.labels, index=given.index)
    found: dict[str, tuple[Tensor, Tensor]] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: found.__setitem__(name, (args[0].double(), output.double()))
        )
        for name in (each.query, each.value)
    ]
    with torch.no_grad():
        model.eval()(given)
    for handle in handles:
        handle.remove()
    causal = make is llama
    n = mask.cumsum(1) if causal else mask.sum(1, keepdim=True).expand(-1, 6)
    for name, (x, output) in found.items():
        layer = model.get_submodule(name)
        plain = x @ layer.weight.detach().double().T + (0 if layer.bias is None else layer.bias.detach().double())
        part = layer.temperature
        share = torch.exp(-torch.exp(part.beta.detach().double()))
        tau = torch.tanh(x @ part.token.detach().double()) + 1 + share * n.double().log()
        torch.testing.assert_close(output, tau[..., None] * plain, rtol=1e-5, atol=1e-6)


def test_temperatures_start_near_the_pretrained_model():
    model, start = bert(), answers(bert())
    SSA().apply(model)
    torch.testing.assert_close(answers(model), start, rtol=0, atol=1e-3)
    for part in parts(model).values():
        if hasattr(part, "beta"):
            torch.nn.init.constant_(part.beta, 10.0)  # exp(-exp(10)) is 0 in float32
    assert torch.equal(answers(model), start)
    train(model, batch())


def qwen3():
    """A model that normalises its queries."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    return wrap(Qwen3Model(Qwen3Config(vocab_size=40, intermediate_size=24, head_dim=8, **sizes)))


def test_lofit_where_queries_keys_and_values_are_one_layer():
    model, start = gpt2(), answers(gpt2())
    selection = LoFiT(share=0.5)
    choose(selection, model, batch())
    assert len(selection.heads_) == 2
    assert torch.equal(answers(model), start)
    train(model, batch())
    before = answers(model)
    selection.finish(model)
    assert torch.equal(answers(model), before)
    assert not torch.allclose(before, start, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LoFiT(share=0), "`share` is 0"),
        (lambda: LoFiT(l1=-1), "`l1` is -1"),
        (lambda: LoFiT(heads=[1, 2]), "it must be a list of pairs"),
        (lambda: LoFiT().apply(bert()), "call `setup`"),
        (lambda: LoFiT(heads=[[9, 0]]).apply(bert()), "no head 0 in layer 9: the model has 3 layers of 2 heads"),
        (lambda: HeadScales(start=0.5), "scales cannot start below the least"),
        (lambda: HeadScales().apply(gpt2()), "no query and value projections of its own: choose `lora`"),
        (lambda: HeadScales().apply(qwen3()), "normalises its own, which undoes a scale"),
        (lambda: SSA().apply(qwen3()), "normalises its own, which undoes a scale"),
        (lambda: SSA(layers=0), "`layers` is 0"),
        (lambda: SSA(layers=7).apply(bert()), "the model has 3"),
    ],
)
def test_errors(make, message):
    with pytest.raises(RecipeError, match=message):
        make()
