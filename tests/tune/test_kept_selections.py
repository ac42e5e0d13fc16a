"""Adapters, prefixes and chains: their papers' formulas, saved and loaded, put in and taken out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import train
from test_peft_selections import answers, batch, bert, wrap
from torch import Tensor, nn
from transformers import AutoModel, GPT2Config, GPT2Model, LlamaConfig, LlamaModel

from conftest import examples
from surefoot import Recipe, load
from surefoot.data.examples import Examples
from surefoot.errors import ModelError, RecipeError
from surefoot.models.additions import load_additions, parts, remove, save_additions, weights
from surefoot.models.model import Model
from surefoot.models.processor import FeatureProcessor
from surefoot.tune.build import build
from surefoot.tune.run import Run
from surefoot.tune.selections.adapter import Adapter
from surefoot.tune.selections.iaa import IAA, Link
from surefoot.tune.selections.mam import MAM
from surefoot.tune.selections.p_tuning import PTuning
from surefoot.tune.selections.prefix_tuning import PrefixTuning
from surefoot.tune.selections.prompt_tuning import PromptTuning
from surefoot.tune.selections.sentence_adapter import SentenceAdapter
from surefoot.tune.selections.top_layers import TopLayers

KEPT = ["adapter", "iaa", "levi", "lofit", "mam", "prefix_tuning", "sentence_adapter", "ssa", "tangent"]
PROMPTS = ["prompt_tuning", "p_tuning"]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tensors this small only wait for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def gpt2() -> Model:
    torch.manual_seed(0)
    return wrap(GPT2Model(GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=16)))


def llama() -> Model:
    """Two heads for queries share one for keys and values."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    return wrap(LlamaModel(LlamaConfig(vocab_size=40, intermediate_size=24, max_position_embeddings=32, **sizes)))


def seen(model: Model, *names: str) -> dict[str, tuple[Tensor, Tensor]]:
    """In eval mode: input and output of modules of those names, in float64."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name):
        return lambda module, args, output: found.__setitem__(
            name, tuple((each[0] if isinstance(each, tuple) else each).detach().double() for each in (args, output))
        )

    handles = [model.get_submodule(name).register_forward_hook(note(name)) for name in names]
    answers(model)
    for handle in handles:
        handle.remove()
    return found


def trained(selection, model: Model) -> Model:
    """With parts whose weights are far from where they start, as a long training would leave them."""
    torch.manual_seed(1)
    selection.apply(model)
    with torch.no_grad():
        for part in parts(model).values():
            for parameter in part.parameters():
                parameter.normal_(std=0.3)
    selection.finish(model)
    return model


def double(layer: nn.Module, x: Tensor) -> Tensor:
    return x @ layer.weight.detach().double().T + (layer.bias.detach().double() if layer.bias is not None else 0)


@pytest.mark.parametrize("form", ["bottleneck", "low_rank"])
@pytest.mark.parametrize("insertion", ["parallel", "sequential"])
@pytest.mark.parametrize("where", ["attention", "feed_forward"])
def test_an_adapter_is_its_formula(form, insertion, where):
    """Float64 from table 1 of the unified view: h + s W_up f(W_down x), x before or after the sub-layer."""
    model = trained(Adapter(form=form, insertion=insertion, site=where, width=3, scale=2.5), bert())
    block = "backbone.encoder.layer.1"
    first, last = {
        "attention": ("attention.self.query", "attention.output.dense"),
        "feed_forward": ("intermediate.dense", "output.dense"),
    }[where]
    found = seen(model, f"{block}.{first}", f"{block}.{last}")
    layer = model.get_submodule(f"{block}.{last}")
    plain = double(layer, found[f"{block}.{last}"][0])
    x = plain if insertion == "sequential" else found[f"{block}.{first}"][0]
    inner = double(layer.adapter.down, x)
    added = double(layer.adapter.up, inner.relu() if form == "bottleneck" else inner)
    torch.testing.assert_close(found[f"{block}.{last}"][1], plain + 2.5 * added, rtol=1e-5, atol=1e-5)
    assert (2.5 * added).abs().max() > 1e-3


def test_a_prefix_is_a_gate_between_attention_and_a_function_of_the_query():
    """Float64 from equation 5 of the unified view: (1 - lambda(x)) Attn(x) + lambda(x) softmax(x W_q P_k^T) P_v."""
    model = trained(PrefixTuning(length=3, width=None), bert())
    name = "backbone.encoder.layer.1.attention.self"
    attention = model.get_submodule(name)
    found = seen(model, *(f"{name}.{each}" for each in ("query", "key", "value")), name.replace("self", "output.dense"))
    query, key, value = (
        found[f"{name}.{each}"][1].unflatten(2, (2, 8)).transpose(1, 2) for each in ("query", "key", "value")
    )
    keys, values = (each.detach().double() for each in attention.prefix.pair())
    to_prefix = (query @ keys.transpose(1, 2) / 8**0.5).exp()
    to_tokens = (query @ key.transpose(2, 3) / 8**0.5).exp()
    share = to_prefix.sum(3) / (to_prefix.sum(3) + to_tokens.sum(3))
    plain = to_tokens / to_tokens.sum(3, keepdim=True) @ value
    added = to_prefix / to_prefix.sum(3, keepdim=True) @ values
    expected = (1 - share)[..., None] * plain + share[..., None] * added
    result = found[name.replace("self", "output.dense")][0]
    torch.testing.assert_close(result, expected.transpose(1, 2).flatten(2), rtol=1e-5, atol=1e-6)


def test_prefixes_are_those_of_peft():
    """The public implementation run side by side: peft's PrefixTuning of a Llama with the same keys and values.

    peft counts the tokens' positions from behind the prefix, which rotary positions show, so ours get them too.
    """
    peft = pytest.importorskip("peft")
    model, other = llama(), llama()
    model = trained(PrefixTuning(length=3, width=None), model)
    config = peft.PrefixTuningConfig(num_virtual_tokens=3, task_type="FEATURE_EXTRACTION")
    theirs = peft.get_peft_model(other.backbone, config)
    table = theirs.prompt_encoder["default"].embedding.weight
    rows = [each for block in model.layers for each in block.self_attn.prefix.pair()]  # keys and values, layer by layer
    with torch.no_grad():
        table.copy_(torch.cat([each.permute(1, 0, 2).flatten(1) for each in rows], dim=1))
        expected = theirs.eval()(**batch().inputs).last_hidden_state
        states = model.eval().backbone(**batch().inputs, position_ids=torch.arange(3, 9)[None]).last_hidden_state
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [bert, llama])
def test_prompts_are_those_of_peft(make):
    """The public implementation run side by side: peft's PromptTuning with the same embeddings, behind the prompt."""
    peft = pytest.importorskip("peft")
    model, other = trained(PromptTuning(length=3), make()), make()
    config = peft.PromptTuningConfig(num_virtual_tokens=3, task_type="FEATURE_EXTRACTION")
    theirs = peft.get_peft_model(other.backbone, config)
    with torch.no_grad():
        theirs.prompt_encoder["default"].embedding.weight.copy_(model.backbone.prompt_embeddings.rows)
        expected = theirs.eval()(**batch().inputs).last_hidden_state[:, 3:]
        states = model.eval().backbone(**batch().inputs).last_hidden_state
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-5)


def test_the_prompt_encoder_is_that_of_peft():
    """Side by side with peft's encoder of P-tuning (LSTM), and the same states when `finish` has left it out."""
    peft = pytest.importorskip("peft")
    model = bert()
    selection = PTuning(length=3, width=5)
    torch.manual_seed(1)
    selection.apply(model)
    part = model.backbone.prompt_embeddings
    theirs = peft.PromptEncoder(
        peft.PromptEncoderConfig(
            num_virtual_tokens=3,
            token_dim=16,
            encoder_hidden_size=5,
            encoder_reparameterization_type="LSTM",
            num_transformer_submodules=1,
            task_type="FEATURE_EXTRACTION",
        )
    ).eval()
    with torch.no_grad():
        theirs.embedding.weight.copy_(part.rows)
    theirs.lstm_head.load_state_dict(part.lstm.state_dict())
    theirs.mlp_head.load_state_dict(part.net.state_dict())
    torch.testing.assert_close(part.made(), theirs(torch.arange(3)[None])[0])
    train(model, batch(), steps=2)
    trained_ = answers(model)
    selection.finish(model)
    torch.testing.assert_close(answers(model), trained_)
    assert list(weights(model)) == ["backbone.prompt_embeddings.rows"]


def test_a_prompt_takes_its_places_from_the_text(bert_folder):
    """Texts are read shorter where positions are few, a prompt that leaves none is refused, and padding is not seen."""
    model = load(bert_folder)
    places = model.backbone.config.max_position_embeddings
    model.processor.max_length = places
    PromptTuning(length=5).apply(model)
    assert model.processor.max_length == places - 5
    long = Examples([" ".join(["good"] * 2 * places)] * 16, np.arange(16) % 2, ("bad", "good"))
    recipe = {"epochs": 1, "batch_size": 8, "precision": "float32"}
    whole = load(bert_folder, max_length=places)
    run = Recipe(selection={"name": "prompt_tuning", "length": 5}, **recipe).fit(whole, long)
    assert run.model.processor.max_length == places - 5
    assert whole.processor.max_length == places, "the model that came in is as it was"
    with pytest.raises(RecipeError, match=f"leaves 1 of the {places} places"):
        Recipe(selection={"name": "prompt_tuning", "length": places - 1}, **recipe).fit(whole, long)
    with pytest.raises(RecipeError, match="attention maps"):
        Recipe(
            selection={"name": "p_tuning", "length": 2}, objectives=["cross_entropy", "masked_counterfactual"], **recipe
        ).fit(whole, long)


@pytest.mark.parametrize("make", [lambda: PrefixTuning(length=3), lambda: PromptTuning(length=3)])
def test_padding_is_not_seen_beside_a_prefix(make):
    model = trained(make(), bert())
    short = {name: value[:, :4] for name, value in batch().inputs.items()}
    padded = {name: torch.cat([value, torch.zeros_like(value[:, :2])], dim=1) for name, value in short.items()}
    with torch.no_grad():
        states = [model.eval().backbone(**each).last_hidden_state for each in (short, padded)]
    torch.testing.assert_close(states[0], states[1][:, :4], rtol=1e-5, atol=1e-6)


def test_the_chain_of_iaa_is_its_recursion():
    """Float64: c_l = c_(l-1) + ReLU(A h_l + B c_(l-1) + b), and h_L + U c_L + u at the top."""
    model = trained(IAA(width=3, aside=5), bert())
    layers = model.layers
    ends = [f"{name}.output.LayerNorm" for name in model.layer_names]
    found = seen(model, *ends, model.layer_names[-1])
    state = torch.zeros(8, 6, 5, dtype=torch.float64)
    for end, layer in zip(ends, layers, strict=True):
        link = layer.alongside
        along = 0 if link.along is None else double(link.along, state)
        state = state + (double(link.across, found[end][1]) + along).relu()
    expected = found[ends[-1]][1] + double(layers[-1].alongside.out, state)
    torch.testing.assert_close(found[model.layer_names[-1]][1], expected, rtol=1e-5, atol=1e-5)
    assert [type(each).__name__ for each in model.modules()].count(Link.__name__) == len(layers)


def test_no_frozen_layer_is_cached_under_a_chain_that_it_feeds():
    model = trained(IAA(), bert())
    TopLayers(k=1).apply(model)
    assert model.lowest_trained() == 0
    model = trained(Adapter(), bert())
    TopLayers(k=1).apply(model)
    assert model.lowest_trained() == len(model.layers) - 1


@pytest.mark.parametrize("make", [gpt2, llama])
@pytest.mark.parametrize("name", ["adapter", "iaa", "sentence_adapter", "mam", "prefix_tuning", *PROMPTS])
def test_other_architectures(make, name):
    model = make()
    start = answers(model)
    selection = build("selection", {"name": name, "length": 3} if name in PROMPTS else name)
    if make is gpt2 and name in ("mam", "prefix_tuning"):
        with pytest.raises(RecipeError, match="no query and value projections of its own: choose `lora`"):
            selection.apply(model)
        assert torch.equal(answers(model), start)
        return
    trained(selection, model)
    assert not torch.allclose(answers(model), start, atol=1e-3)
    remove(model)
    model.head.load_state_dict(make().head.state_dict())
    assert torch.equal(answers(model), start)


@pytest.mark.parametrize("name", KEPT + PROMPTS)
def test_a_saved_run_opens_whole_and_without_its_parts_in_transformers(name, bert_folder, tmp_path):
    model = load(bert_folder)
    options = {"length": 3} if name in PROMPTS else {} if name == "lofit" else {"layers": 1}
    recipe = Recipe(selection={"name": name, **options}, epochs=1, batch_size=16, precision="float32")
    run = recipe.fit(model, examples(32), out=tmp_path / "run")
    again = Run.load(tmp_path / "run")
    test = {"test": examples(24, 1)}
    run.evaluate(test), again.evaluate(test)
    assert (run.predictions["test"].logits == again.predictions["test"].logits).all()
    assert again.model.additions == run.model.additions
    assert any("surefoot opens it whole" in note for note in run.history.notes)
    opened, info = AutoModel.from_pretrained(tmp_path / "run" / "model", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert all(torch.equal(value, model.backbone.state_dict()[key]) for key, value in opened.state_dict().items())


def test_one_base_model_serves_a_domain_at_a_time(tmp_path):
    base = bert()
    plain = answers(base)
    said = {}
    for seed, domain in enumerate(("law", "sport")):
        model = bert()
        torch.manual_seed(seed)
        selection = SentenceAdapter(width=2 + seed)
        selection.apply(model)
        train(model, batch(), steps=2)
        selection.finish(model)
        model.head.load_state_dict(base.head.state_dict())
        said[domain] = answers(model)
        save_additions(model, tmp_path / domain)
        assert sum(each.stat().st_size for each in (tmp_path / domain).iterdir()) < 20_000
    for domain in ("law", "sport", "law"):
        load_additions(base, tmp_path / domain)
        assert torch.equal(answers(base), said[domain])
    remove(base)
    assert torch.equal(answers(base), plain)
    assert not parts(base)


def test_without_their_last_matrix_adapters_are_the_pretrained_model_to_the_bit():
    model = bert()
    start = answers(model)
    for selection in (Adapter(), SentenceAdapter(), IAA()):
        model = bert()
        selection.apply(model)
        assert torch.equal(answers(model), start)


def broken(folder: Path) -> Path:
    folder.mkdir()
    (folder / "additions.json").write_text('{"additions": [{"name": "adapter"}]}')
    return folder


def test_errors(tmp_path):
    for make, message in (
        (lambda: Adapter(form="prefix"), "`form` is `prefix`"),
        (lambda: Adapter(site="feedforward"), "did you mean `feed_forward`"),
        (lambda: Adapter(scale=0), "`scale` is 0"),
        (lambda: MAM(length=0), "`length` is 0"),
        (lambda: IAA(aside=0), "`aside` is 0"),
        (lambda: Adapter(layers=9).apply(bert()), "the model has 3"),
        (lambda: IAA().apply(trained(Adapter(), bert())), "additions of `adapter` already: choose"),
        (lambda: Recipe(selection="adapter", after=["wise_ft"]), "leave `after` out"),
    ):
        with pytest.raises(RecipeError, match=message):
            make()
    model = trained(Adapter(), bert())
    save_additions(model, tmp_path / "one")
    with pytest.raises(ModelError, match="made for another model"):
        load_additions(llama(), tmp_path / "one")
    with pytest.raises(ModelError, match="missing or damaged"):
        load_additions(bert(), broken(tmp_path / "two"))
    with pytest.raises(ModelError, match="has no additions"):
        save_additions(bert(), tmp_path / "three")
    assert weights(model)


def test_attention_maps_and_prefixes(bert_folder):
    needs = Model(load(bert_folder).backbone, dim=32, processor=FeatureProcessor())
    assert not needs.has_prefixes
    PrefixTuning(length=2).apply(needs)
    assert needs.has_prefixes
    remove(needs)
    assert not needs.has_prefixes
