"""What is particular to each selection."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, MPNetConfig, MPNetModel, OPTConfig, OPTModel

from surefoot.errors import RecipeError
from surefoot.models.model import Model
from surefoot.models.processor import FeatureProcessor
from surefoot.tune.selections import top_names
from surefoot.tune.selections.all import All
from surefoot.tune.selections.head import Head
from surefoot.tune.selections.lora import LoRA
from surefoot.tune.selections.mixout import Mixed, Mixout
from surefoot.tune.selections.top_layers import TopLayers
from surefoot.tune.step import Batch

SMALL = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tensors this small only wait for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def wrap(backbone: nn.Module) -> Model:
    model = Model(backbone, dim=16, processor=FeatureProcessor(), classes=["a", "b"])
    nn.init.normal_(model.head.weight, std=0.2)
    return model


def bert() -> Model:
    torch.manual_seed(0)
    return wrap(BertModel(BertConfig(**SMALL, intermediate_size=24, max_position_embeddings=16)))


def gpt2() -> Model:
    torch.manual_seed(0)
    return wrap(GPT2Model(GPT2Config(vocab_size=40, n_embd=16, n_layer=3, n_head=2, n_positions=16)))


def batch() -> Batch:
    tokens = torch.randint(0, 40, (8, 6), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    return Batch(inputs=inputs, labels=torch.arange(8) % 2, index=torch.arange(8))


def step(model: Model, seed: int = 0, lr: float = 0.1) -> None:
    """One step of gradient descent in train mode."""
    model.train()
    torch.manual_seed(seed)
    model.zero_grad()
    nn.functional.cross_entropy(model(batch()).logits, batch().labels).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= lr * parameter.grad


def answers(model: Model) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(batch()).logits


def trained(model: Model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_depths():
    model = bert()
    Head().apply(model)
    assert trained(model) == {"head.weight", "head.bias"}
    TopLayers(k=0).apply(model)
    assert trained(model) == {"head.weight", "head.bias"}
    TopLayers(k=1).apply(model)
    assert {name.split(".")[3] for name in trained(model) if name.startswith("backbone")} == {"2"}
    TopLayers(k=3).apply(model)
    assert {name for name, _ in model.named_parameters()} - trained(model) == {
        name for name, _ in model.named_parameters() if "embeddings" in name or "pooler" in name
    }
    All().apply(model)
    assert trained(model) == {name for name, _ in model.named_parameters() if "pooler" not in name}


def test_what_runs_above_the_layers_trains_and_shared_positions_do_not():
    assert {"backbone.ln_f.weight", "backbone.ln_f.bias"} <= set(top_names(gpt2(), 1))
    mpnet = wrap(MPNetModel(MPNetConfig(**SMALL, intermediate_size=24, max_position_embeddings=16)))
    assert not [name for name in top_names(mpnet, 1) if "relative" in name or "pooler" in name]
    opt = wrap(OPTModel(OPTConfig(**SMALL, ffn_dim=24, word_embed_proj_dim=16, max_position_embeddings=16)))
    above = [name for name in top_names(opt, 1) if ".layers." not in name]
    assert above == ["backbone.decoder.final_layer_norm.weight", "backbone.decoder.final_layer_norm.bias",
                     "head.weight", "head.bias"]  # fmt: skip


def test_frozen_layers_follow():
    for make in (bert, gpt2):
        model = make()
        for k, frozen in ((0, 4), (1, 2), (2, 1), (3, 0)):
            TopLayers(k=k).apply(model)
            assert model.lowest_trained() == frozen
        Mixout(layers=1).apply(model)
        assert model.lowest_trained() == 2
        Mixout().finish(model)
        LoRA(layers=1).apply(model)
        assert model.lowest_trained() == 2


@pytest.mark.parametrize("selection", [TopLayers(k=4), LoRA(layers=4), Mixout(layers=4)], ids=repr)
def test_too_many_layers(selection):
    with pytest.raises(RecipeError, match=r"the model has 3: `backbone.encoder.layer.0`, `backbone.encoder.layer.1`"):
        selection.apply(bert())
    with pytest.raises(RecipeError, match="the model has 0: none found"):
        selection.apply(Model.from_module(nn.Linear(4, 4), dim=4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TopLayers(k=-1), "`k` is -1"),
        (lambda: TopLayers(k=True), "`k` is True"),
        (lambda: LoRA(r=0), "`r` is 0"),
        (lambda: LoRA(alpha=0), "`alpha` is 0"),
        (lambda: LoRA(dropout=1.0), "`dropout` is 1.0"),
        (lambda: LoRA(target_modules="query"), "must be a list"),
        (lambda: LoRA(layers=0), "`layers` is 0"),
        (lambda: Mixout(p=1.0), "`p` is 1.0"),
        (lambda: LoRA(target_modules=["querry"]).apply(bert()), "named `querry`: did you mean `query`"),
        (lambda: LoRA(target_modules=["self.qury"]).apply(bert()), "named `self.qury`: "),
        (lambda: Mixout().apply(Model.from_module(nn.Conv1d(4, 4, 1), dim=4)), "no linear layer"),
        (lambda: LoRA().apply(Model.from_module(nn.Conv1d(4, 4, 1), dim=4)), "no linear layer"),
    ],
)
def test_errors(make, message):
    with pytest.raises(RecipeError, match=message):
        make()


@pytest.mark.parametrize("first", [LoRA(), Mixout()], ids=repr)
@pytest.mark.parametrize("second", [LoRA(), Mixout()], ids=repr)
def test_wrapping_twice(first, second):
    model = bert()
    first.apply(model)
    with pytest.raises(RecipeError, match="finish that one first"):
        second.apply(model)


@pytest.mark.parametrize("make", [bert, gpt2])
def test_lora_merges(make):
    """W' = W + (alpha / r) B A, and answers stay."""
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    selection = LoRA(r=3, alpha=12, layers=2)
    torch.manual_seed(3)
    selection.apply(model)
    for seed in range(2):
        step(model, seed)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    adapted = answers(model)
    selection.finish(model)
    torch.testing.assert_close(answers(model), adapted, rtol=0, atol=1e-5)
    downs = [name for name in state if ".lora_A." in name]
    assert downs
    assert not any(name.startswith(model.layer_names[0]) for name in downs)
    for name in downs:
        delta = 4 * state[name.replace("lora_A", "lora_B")] @ state[name]
        weight = name.partition(".lora_A.")[0] + ".weight"
        delta = delta.T if make is gpt2 else delta
        torch.testing.assert_close(model.state_dict()[weight], before[weight] + delta)


def test_lora_targets():
    model = bert()
    LoRA(target_modules=["query", "attention.output.dense"]).apply(model)
    names = {name.partition(".lora_")[0].split("layer.")[1][2:] for name in trained(model) if ".lora_" in name}
    assert names == {"attention.self.query", "attention.output.dense"}


def test_mixout_without_mixing_is_plain_fine_tuning_to_the_bit():
    ends = []
    for selection in (All(), Mixout(p=0.0)):
        model = bert()
        selection.apply(model)
        for seed in range(3):
            step(model, seed)
        selection.finish(model)
        ends.append(model.state_dict())
    assert list(ends[0]) == list(ends[1])
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_mixout_formula_expectation_and_gradient():
    torch.manual_seed(0)
    start, p = torch.randn(4, 5), 0.7
    weight = nn.Parameter(start + torch.randn(4, 5))
    mixed = Mixed(start, p, inputs=1)
    torch.manual_seed(1)
    result = mixed(weight)
    torch.manual_seed(1)
    mask = (nn.functional.dropout(torch.ones(1, 5), p) > 0).float()
    torch.testing.assert_close(result, (mask * weight + (1 - mask) * start - p * start) / (1 - p))
    upstream = torch.randn(4, 5)
    result.backward(upstream)
    torch.testing.assert_close(weight.grad, upstream * mask / (1 - p))

    with torch.no_grad():
        draws = torch.stack([mixed(weight) for _ in range(4000)])
        error = draws.std(0) / 4000**0.5
        assert ((draws.mean(0) - weight).abs() < 4.5 * error).all()
        assert torch.equal(mixed.eval()(weight), weight)


def test_mixout_masks_input_units_of_what_trains():
    model = gpt2()
    Mixout(p=0.9, layers=1).apply(model)
    mixers = [name for name, module in model.named_modules() if isinstance(module, Mixed)]
    assert len(mixers) == 4
    assert all(name.startswith("backbone.h.2.") for name in mixers)
    linear = model.layers[2].mlp.c_fc
    with torch.no_grad():
        linear.parametrizations.weight.original.add_(1)
    model.train()
    with torch.no_grad():
        moved = linear.weight - linear.parametrizations.weight[0].start
    assert all(len(row.round(decimals=2).unique()) == 1 for row in moved)
    assert not any("start" in name or "ones" in name for name in model.state_dict())


def test_mixout_applies_without_drawing():
    torch.manual_seed(7)
    expected = torch.rand(1)
    model = bert().train()
    torch.manual_seed(7)
    Mixout().apply(model)
    assert torch.equal(torch.rand(1), expected)
