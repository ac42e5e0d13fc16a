"""A stream from beginning to end: what is kept, what is taken back, and what is said without labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import small_streams
from conftest import examples
from surefoot.adapt.adapter import TestTimeAdapter
from surefoot.adapt.collapse import CollapseMonitor, classes_in_use
from surefoot.adapt.stream import Family, adapt
from surefoot.adapt.views import by_length, view
from surefoot.data.examples import Examples
from surefoot.errors import DataError
from surefoot.models.model import Model
from surefoot.tune.build import build
from surefoot.tune.step import Batch, Output

CLASSES = ("no", "yes")


def gaussians() -> Model:
    """Bayes' classifier of two Gaussians at -1 and 1, in logits."""
    model = Model.from_module(nn.Identity(), dim=1, classes=CLASSES, name="gaussians")
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[-1.0], [1.0]]))
    return model


def drawn(count: int, seed: int, *, share: float = 0.5, moved: float = 0.0) -> Examples:
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < share).astype(np.int64)
    inputs = (rng.normal(size=count) + 2.0 * labels - 1 + moved)[:, None]
    return Examples(inputs.astype(np.float32), labels, CLASSES, "features", source=f"gaussians-{seed}")


def normed() -> Model:
    """The same behind a batch norm with home's statistics, which a stream of one class misleads."""
    layer = nn.BatchNorm1d(1)
    with torch.no_grad():
        layer.running_var.fill_(2.0)
    model = Model.from_module(layer.eval(), dim=1, classes=CLASSES, name="normed-gaussians")
    with torch.no_grad():
        model.head.weight.copy_(2**0.5 * torch.tensor([[-1.0], [1.0]]))
    return model


class Broken(TestTimeAdapter):
    """Says yes to everything, or nothing that is finite, from the third batch on."""

    def __init__(self, *, value: float) -> None:
        self.value = value

    def prepare(self) -> None:
        self.count = 0

    def adapt(self, batch: Batch) -> Output:
        self.count += 1
        found: Output = self.model(batch)
        logits = torch.tensor([[0.0, self.value]]).expand(len(batch), 2)
        return Output(found.features, logits) if self.count > 2 else found


def test_help_is_kept() -> None:
    """Faint inputs off the middle, which batch statistics bring back: no harm is forecast, and accuracy has risen."""
    plain = drawn(600, 1)
    stream = replace(plain, inputs=np.float32(0.3 * plain.inputs + 0.3))
    found = adapt(normed(), stream, build("test_time_adapter", "norm"), home=drawn(800, 2), batch_size=100)
    assert found.kept == "adapted"
    assert found.verdict.harms is False
    right = [(each.argmax(1) == stream.labels).mean() for each in (found.frozen, found.logits)]
    assert right[1] > right[0] + 0.05


def test_harm_is_taken_back_without_a_look_at_labels() -> None:
    """Batches of nearly one class: their own statistics part them in the middle, and the doubts show it."""
    stream = drawn(600, 1, share=0.03)
    unlabelled = Examples(stream.inputs, None, (), "features", source="stream")
    found = adapt(normed(), unlabelled, build("test_time_adapter", "norm"), home=drawn(800, 2), batch_size=100)
    assert (found.frozen.argmax(1) == stream.labels).mean() > (found.adapted.argmax(1) == stream.labels).mean() + 0.1
    assert found.verdict.harms is True
    assert found.kept == "frozen"
    assert np.array_equal(found.logits, found.frozen)
    kept = adapt(
        normed(), unlabelled, build("test_time_adapter", "norm"), home=drawn(800, 2), batch_size=100, no_harm=False
    )
    assert kept.kept == "adapted"
    assert kept.verdict.harms is True


@pytest.mark.parametrize("value", [50.0, float("nan")])
def test_collapse_stops_and_restores(value: float) -> None:
    """One class for everything, or no answer: the frozen model answers from the window before on."""
    stream = drawn(600, 1)
    adapter = Broken(value=value)
    found = adapt(gaussians(), stream, adapter, batch_size=50)
    assert found.collapsed is not None
    assert np.isfinite(found.logits).all()
    assert np.array_equal(found.adapted[found.collapsed :], found.frozen[found.collapsed :])
    assert found.collapsed <= 300
    assert adapter.count == 0, "reset"


def test_an_adapter_that_changes_no_answer_does_no_harm() -> None:
    found = adapt(gaussians(), drawn(100, 1), build("test_time_adapter", {"name": "t3a", "supports": 0}))
    assert found.verdict.harms is False
    assert found.verdict.why == "both give every example the same class"


def test_without_anything_to_forecast_from_it_says_so() -> None:
    found = adapt(normed(), drawn(300, 1, moved=1.5), build("test_time_adapter", "norm"))
    assert found.verdict.harms is None
    assert "--home FILE" in found.verdict.why
    assert found.kept == "adapted"


def test_a_family_on_a_line_tells_harm() -> None:
    """Members that are right with p at home and q on the stream, errors apart from each other: agreement on the line."""
    rng = np.random.default_rng(0)
    stream = drawn(1000, 1, share=0.03)
    model, adapter = normed(), build("test_time_adapter", "norm")
    labels = drawn(1000, 2).labels
    assert labels is not None
    assert stream.labels is not None

    def member(truth: np.ndarray, right: float) -> np.ndarray:
        said = np.where(rng.random(len(truth)) < right, truth, 1 - truth)
        return 4.0 * np.eye(2)[said]

    shares = np.linspace(0.6, 0.97, 7)
    family = Family(
        labels=labels,
        home=np.stack([member(labels, each) for each in shares]),
        frozen=member(labels, 0.84),
        stream=np.stack([member(stream.labels, each) for each in shares]),
        rows=np.arange(1000),
    )
    found = adapt(model, stream, adapter, family=family, batch_size=100)
    assert found.verdict.harms is True
    assert found.verdict.adapted is not None
    assert found.verdict.adapted.method == "aline_d"
    truth = (found.adapted.argmax(1) == stream.labels).mean()
    assert abs(found.verdict.adapted.value - truth) < 0.15


def test_a_stream_of_one_example_and_bad_input() -> None:
    found = adapt(gaussians(), drawn(1, 1), build("test_time_adapter", "lame"))
    assert found.logits.shape == (1, 2)
    stream = drawn(20, 1)
    stream.inputs[4] = np.inf
    with pytest.raises(DataError, match="row 5 of the stream"):
        adapt(gaussians(), stream, build("test_time_adapter", "lame"))
    bare = Examples(stream.inputs, None, (), "features", source="bare")
    with pytest.raises(DataError, match="home examples need labels"):
        adapt(gaussians(), drawn(20, 1), build("test_time_adapter", "lame"), home=bare)


def test_the_rows_keep_their_order_and_a_single_one_left_over_is_not_alone() -> None:
    """65 rows in batches of 64: batch norm needs company, and answers come in the order of the rows."""
    stream = drawn(65, 1)
    found = adapt(normed(), stream, build("test_time_adapter", "norm"), batch_size=64)
    with torch.no_grad():
        model = normed()
        logits = model(small_streams.batches(model, stream, 65)[0]).logits.numpy()
    assert np.array_equal(found.frozen, logits)


def test_collapse_is_relative_to_the_frozen_model() -> None:
    """A stream of one class is no collapse; two thirds of the classes gone are not yet one."""

    def logits(classes: Any, count: int = 10) -> np.ndarray:
        return np.eye(count)[np.resize(np.asarray(classes), 100)]

    assert not CollapseMonitor().see(logits([3]), logits([3, 3, 3]))
    assert not CollapseMonitor().see(logits(range(4)), logits(range(10)))
    assert CollapseMonitor().see(logits(range(3)), logits(range(10)))
    assert CollapseMonitor().see(logits([1], 2), logits([0, 1], 2))
    assert not CollapseMonitor().see(logits([0] * 9 + [1], 2), logits([0, 1], 2))
    assert classes_in_use(np.arange(10), 10) == pytest.approx(10)


@pytest.mark.parametrize("name", ["t3a", "lame", "label_shift", "label_shift_adapter", "sade"])
def test_adapters_that_leave_the_weights_take_the_frozen_pass_for_theirs(name: str, tiny_bert: Model) -> None:
    """To the bit what they answer with a pass of their own; a pass saved, seen by counting them."""
    model, home = small_streams.bert(tiny_bert), examples(60, 6)
    options = {"steps": 10} if name == "label_shift_adapter" else {}
    adapter = build("test_time_adapter", {"name": name, **options})
    adapter.begin(model, home=small_streams.home_of(model, home))
    own, given = [], []
    passes: list[int] = []
    for kept, shared in ((own, False), (given, True)):
        adapter.reset()
        handle = adapter.model.register_forward_hook(lambda *_: passes.append(1))
        passes.clear()
        for batch in small_streams.batches(model, examples(40, 5)):
            with torch.no_grad():
                frozen = model(batch)
            kept.append(adapter.answer(batch, frozen=frozen if shared else None).logits)
        handle.remove()
        kept.append(torch.tensor(len(passes)))
    assert all(torch.equal(a, b) for a, b in zip(own[:-1], given[:-1], strict=True))
    assert own[-1] - given[-1] == 3  # batches


def test_parts_by_length_are_the_whole(tiny_bert: Model) -> None:
    model = small_streams.bert(tiny_bert)
    batch = view(small_streams.batches(model, examples(40, 5), size=40)[0], torch.Generator().manual_seed(0), name="me")
    whole, parts = model(batch), by_length(model, batch)
    torch.testing.assert_close(parts.features, whole.features, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(parts.logits, whole.logits, rtol=1e-4, atol=1e-4)
