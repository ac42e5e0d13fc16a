"""What every registered selection promises, on a transformer and on a plain module."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import small_training
import torch
from torch import nn
from transformers import BertConfig, BertModel

from surefoot.errors import RecipeError
from surefoot.models.additions import inside, parts
from surefoot.models.model import Model
from surefoot.models.processor import FeatureProcessor
from surefoot.registry import methods
from surefoot.tune.build import build
from surefoot.tune.selection import Selection
from surefoot.tune.step import Batch

NAMES = [method.name for method in methods("selection")]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tensors this small only wait for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def bert() -> Model:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=16,
    )  # fmt: skip
    return with_head(Model(BertModel(config), dim=16, processor=FeatureProcessor(), classes=["a", "b", "c"]))


def with_head(model: Model) -> Model:
    nn.init.normal_(model.head.weight, std=0.2)
    return model


def plain() -> Model:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16))
    return with_head(Model.from_module(module, dim=16, classes=["a", "b", "c"]))


def batch_for(model: Model, size: int = 12) -> Batch:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (size,), generator=generator)
    if model.layers:
        tokens = torch.randint(0, 50, (size, 7), generator=generator)
        inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    else:
        inputs = {"features": torch.randn(size, 6, generator=generator)}
    return Batch(inputs=inputs, labels=labels, index=torch.arange(size))


def train(model: Model) -> None:
    small_training.train(model, batch_for(model))


def choose(selection: Selection, model: Model) -> None:
    small_training.choose(selection, model, batch_for(model))


def answers(model: Model) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(batch_for(model)).logits


def options(name: str, model: Model) -> dict:
    small = {"robust_critical": {"epochs": 1, "examples": 6}, "routed_experts": {"domains": [5, 6]}}.get(name, {})
    small = {"length": 3} if name in ("prompt_tuning", "p_tuning") else small
    return {"name": name, "k": 0} if name == "top_layers" and not model.layers else {"name": name, **small}


#: Selections that choose one module of the whole model.
HEAD_MAY_STAY = {"robust_critical"}
#: Selections of which one vector, held by the first layer, makes what all others add.
ONE_FOR_ALL = {"sub_lora"}
#: Selections that act on something a plain module does not have: blocks, attention heads.
BLOCKS_ONLY = {
    "adapter",
    "head_scales",
    "iaa",
    "levi",
    "lofit",
    "mam",
    "norms",
    "p_tuning",
    "prefix_tuning",
    "prompt_tuning",
    "routed_experts",
    "sentence_adapter",
    "ssa",
}
cases = pytest.mark.parametrize(
    ("name", "make"), [(n, m) for n in NAMES for m in (bert, plain) if m is bert or n not in BLOCKS_ONLY]
)


@pytest.mark.parametrize("name", sorted(BLOCKS_ONLY))
def test_what_has_no_blocks_is_refused_and_left_as_it_was(name):
    model = plain()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(RecipeError, match=r"has none: choose .*transformer"):
        choose(build("selection", name), model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@cases
def test_apply_train_finish(name, make):
    model = make()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modules = [(path, type(module)) for path, module in model.named_modules()]
    order = [key for key, _ in model.named_parameters()]
    attributes = set(vars(model))
    start = answers(model)
    selection = build("selection", options(name, model))

    choose(selection, model)
    if selection.starts_there:
        torch.testing.assert_close(answers(model), start)
    trainable = {key for key, p in model.named_parameters() if p.requires_grad}
    may_change = {key for key in order if key in trainable or any(_computes(each, key, modules) for each in trainable)}
    frozen = {key for key, p in model.named_parameters() if not p.requires_grad}
    held = {key: p.detach().clone() for key, p in model.named_parameters() if key in frozen}
    train(model)
    assert all(torch.equal(held[key], p) for key, p in model.named_parameters() if key in frozen)

    wrapped = answers(model)
    assert not torch.allclose(wrapped, start)
    selection.finish(model)
    torch.testing.assert_close(answers(model), wrapped, rtol=0, atol=1e-5)
    assert bool(parts(model)) == bool(model.additions) == selection.keeps
    assert _own(model, model.state_dict()) == list(before)
    assert _own(model, [key for key, _ in model.named_parameters()]) == order
    known = set(_own(model, [path for path, _ in model.named_modules()]))
    assert [(path, type(module)) for path, module in model.named_modules() if path in known] == modules
    assert set(vars(model)) == attributes
    changed = {key for key in order if not torch.equal(before[key], model.state_dict()[key])}
    assert changed <= may_change or name in ONE_FOR_ALL
    assert name in HEAD_MAY_STAY or {"head.weight", "head.bias"} <= changed
    assert not selection.keeps or changed == {"head.weight", "head.bias"}


def _own(model: Model, names: Iterable[str]) -> list[str]:
    """Those of the names that do not belong to parts which the model keeps."""
    added = inside(model, names) | set(parts(model))
    return [name for name in names if name not in added]


def _computes(trained: str, key: str, modules: list[tuple[str, type]]) -> bool:
    """Whether `trained` is a part of what wraps the layer that holds the parameter `key`."""
    paths = [path for path, _ in modules if trained.startswith(f"{path}.")]
    return max(paths, key=len) == key.rpartition(".")[0] and trained.rpartition(".")[0] != key.rpartition(".")[0]


@cases
def test_can_be_applied_again_after_another(name, make):
    model = make()
    fresh = make()
    for other in ("head", name):
        selection = build("selection", options(other, model))
        choose(selection, model)
        selection.finish(model)
    choose(selection, model)
    if selection.keeps:  # what is there trains on
        trainable = {key for key, p in model.named_parameters() if p.requires_grad}
        assert trainable == inside(model, model.state_dict()) | {"head.weight", "head.bias"}
        return
    choose(selection if not selection.wraps else build("selection", options(name, fresh)), fresh)
    flags = {key: p.requires_grad for key, p in model.named_parameters()}
    assert flags == {key: p.requires_grad for key, p in fresh.named_parameters()}


@cases
def test_same_seed_same_result(name, make):
    ends = []
    for _ in range(2):
        model = make()
        selection = build("selection", options(name, model))
        choose(selection, model)
        train(model)
        selection.finish(model)
        ends.append(model.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


@cases
def test_training_state_survives_saving(name, make):
    model = make()
    selection = build("selection", options(name, model))
    choose(selection, model)
    train(model)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    again = make()
    choose(build("selection", options(name, again)), again)
    again.load_state_dict(state)
    for each in (model, again):
        train(each)
    assert torch.equal(answers(model), answers(again))


@pytest.mark.parametrize("name", NAMES)
def test_finish_without_apply_is_nothing(name):
    model = bert()
    start = answers(model)
    build("selection", name).finish(model)
    assert torch.equal(answers(model), start)


@pytest.mark.parametrize("name", NAMES)
def test_documented(name):
    method = next(method for method in methods("selection") if method.name == name)
    assert method.summary
    assert isinstance(method.make.space(), dict)
    assert repr(build("selection", name)).startswith(method.make.__name__)


def test_nothing_trains():
    model = bert()
    model.head = nn.Identity()
    with pytest.raises(Exception, match="nothing trains"):
        build("selection", "head").apply(model)
