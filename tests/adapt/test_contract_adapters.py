"""What every registered test-time adapter keeps to."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import small_streams
from conftest import examples
from surefoot.adapt.adapter import TestTimeAdapter
from surefoot.data.examples import Examples
from surefoot.errors import DataError, ModelError, RecipeError
from surefoot.models.model import Model
from surefoot.registry import methods
from surefoot.tune.build import build

METHODS = methods("test_time_adapter")
NAMES = [each.name for each in METHODS]
#: Views make a batch a dozen passes, and a net of its own takes seconds: less is enough to see what is to be seen.
FEWER = {"cotta": {"count": 3}, "memo": {"count": 3}, "label_shift_adapter": {"steps": 10}, "itta": {"steps": 2}}
#: Those that work on any features.
NEEDS_NEITHER = {"t3a", "lame", "label_shift", "label_shift_adapter"}
every = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tensors this small only wait for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["network", "bert"])
def place(request: pytest.FixtureRequest, tiny_bert: Model) -> tuple[Model, Examples, Examples]:
    """A model, a stream and home."""
    if request.param == "network":
        return small_streams.network(), small_streams.pictures(40, 5, brighter=0.2), small_streams.pictures(60, 6)
    return small_streams.bert(tiny_bert), examples(40, 5), examples(60, 6)


def begun(name: str, model: Model, home: Examples, *, seed: int = 0, **options: Any) -> TestTimeAdapter:
    """The adapter on the model; skipped where the model has nothing for it, which another test looks at."""
    adapter: TestTimeAdapter = build("test_time_adapter", {"name": name, **FEWER.get(name, {}), **options})
    known = small_streams.home_of(model, home) if adapter.home != "unused" else None
    try:
        return adapter.begin(model, home=known, seed=seed)
    except ModelError as error:
        if "nothing to adapt" not in str(error):
            raise
        pytest.skip(str(error))


def answers(adapter: TestTimeAdapter, model: Model, stream: Examples) -> list[torch.Tensor]:
    return [adapter(batch) for batch in small_streams.batches(model, stream)]


def state(model: Model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: Any, b: Any) -> bool:
    return len(a) == len(b) and all(torch.equal(first, second) for first, second in zip(a, b, strict=True))


@every
def test_options_that_adapt_nothing_give_the_frozen_logits_to_the_bit(name: str, place: Any) -> None:
    model, stream, home = place
    adapter = begun(name, model, home, **next(each for each in METHODS if each.name == name).make.still)
    with torch.no_grad():
        frozen = [model(batch).logits for batch in small_streams.batches(model, stream)]
    assert same(answers(adapter, model, stream), frozen)


@every
def test_it_does_something_and_leaves_the_model_alone(name: str, place: Any) -> None:
    model, stream, home = place
    before = state(model)
    adapter = begun(name, model, home)
    found = answers(adapter, model, stream)
    with torch.no_grad():
        frozen = [model(batch).logits for batch in small_streams.batches(model, stream)]
    assert not same(found, frozen)
    assert all(each.shape == other.shape and not each.requires_grad for each, other in zip(found, frozen, strict=True))
    assert same(list(before.values()), list(model.state_dict().values()))


@every
def test_reset_brings_everything_back_to_the_byte(name: str, place: Any) -> None:
    model, stream, home = place
    adapter = begun(name, model, home)
    first = answers(adapter, model, stream)
    adapter.reset()
    kept = adapter.model.state_dict()
    assert all(torch.equal(kept[key], value) for key, value in model.state_dict().items())
    assert same(answers(adapter, model, stream), first)


@every
def test_the_same_seed_gives_the_same_bytes_and_labels_are_not_read(name: str, place: Any) -> None:
    model, stream, home = place
    first = answers(begun(name, model, home, seed=3), model, stream)
    second = begun(name, model, home, seed=3)
    torch.manual_seed(99)
    other = [replace(batch, labels=torch.ones_like(batch.labels)) for batch in small_streams.batches(model, stream)]
    assert same([second(batch) for batch in other], first)


@every
def test_batches_of_one_work_or_are_refused_in_a_sentence(name: str, place: Any) -> None:
    model, stream, home = place
    adapter = begun(name, model, home)
    found, said = [], ""
    try:
        found = [adapter(batch) for batch in small_streams.batches(model, stream.take(range(6)), size=1)]
    except ModelError as error:
        said = str(error)
    assert "single example" in said or len(found) == 6
    assert all(torch.isfinite(each).all() for each in found)


@every
def test_a_stream_of_one_input_again_and_again_stays_finite(name: str, place: Any) -> None:
    model, stream, home = place
    adapter = begun(name, model, home)
    for _ in range(3):
        assert torch.isfinite(adapter(small_streams.batches(model, stream.take([0] * 16))[0])).all()


@every
def test_what_is_not_finite_is_named_by_its_row(name: str) -> None:
    model, stream = small_streams.network(), small_streams.pictures(16, 5)
    adapter = begun(name, model, small_streams.pictures(60, 6))
    stream.inputs[2, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="row 3 of the stream"):
        adapter(small_streams.batches(model, stream)[0])
    with pytest.raises(DataError, match="an empty batch"):
        adapter(
            small_streams.batches(model, stream.take([0]))[0].__class__(
                inputs={}, labels=torch.zeros(0), index=torch.zeros(0)
            )
        )


@every
def test_a_model_with_nothing_to_adapt_is_refused_in_a_sentence(name: str) -> None:
    """One without norm layers, for which arrays of numbers have no views; what needs neither works."""
    model = small_streams.plain()
    stream = Examples(torch.randn(12, 6).numpy(), None, small_streams.CLASSES, "features")
    home = Examples(torch.randn(60, 6).numpy(), np.arange(60) % 5 % 3, small_streams.CLASSES, "features")
    adapter = build("test_time_adapter", name)
    found, said = None, ""
    try:
        adapter.begin(model, home=small_streams.home_of(model, home))
        found = adapter(small_streams.batches(model, stream)[0])
    except ModelError as error:
        said = str(error)
    if name in NEEDS_NEITHER:
        assert found is not None
        assert found.shape == (12, 3)
    else:
        assert re.search(r"finds nothing to adapt|views of images or texts", said)
        assert f"`{name}`" in said
        assert "\n" not in said


def test_what_cannot_serve_is_refused(tiny_bert: Model) -> None:
    one = small_streams.plain()
    one.set_classes(("only",))
    with pytest.raises(ModelError, match="has 1 classes"):
        build("test_time_adapter", "t3a").begin(one)
    with pytest.raises(DataError, match="--home FILE"):
        build("test_time_adapter", "label_shift").begin(small_streams.plain())
    with pytest.raises(ModelError, match="no batch normalisation"):
        build("test_time_adapter", "norm").begin(small_streams.bert(tiny_bert))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tent", {"lr": -1.0}),
        ("tent", {"steps": 0}),
        ("tent", {"statistics": "both"}),
        ("norm", {"prior": -1}),
        ("sar", {"rho": float("nan")}),
        ("eata", {"redundancy": 0}),
        ("cotta", {"momentum": 1.5}),
        ("t3a", {"supports": -1}),
        ("lame", {"neighbours": 1.5}),
        ("memo", {"count": 0}),
        ("label_shift", {"prior": "guess"}),
        ("label_shift", {"strength": 2}),
        ("tent", {"rate": 0.1}),
        ("sade", {"pull": 0}),
        ("sade", {"tau": -1}),
        ("label_shift_adapter", {"inner": "sade"}),
        ("label_shift_adapter", {"momentum": 1.0}),
        ("itta", {"weight": 0}),
        ("itta", {"depth": 0}),
    ],
)
def test_options_out_of_range_are_refused_when_it_is_made(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        build("test_time_adapter", {"name": name, **options})


@every
def test_documented(name: str) -> None:
    method = next(each for each in METHODS if each.name == name)
    text = inspect.getdoc(method.make) or ""
    assert method.papers
    for word in ("Gives", "Raises", "Reference"):
        assert word in text
    parameters = list(inspect.signature(method.make).parameters.values())
    assert all(each.kind is each.KEYWORD_ONLY for each in parameters)
    assert set(method.make.still) <= {each.name for each in parameters}
    for each in parameters:
        assert each.name in text, f"`{each.name}` is not in the docstring"
