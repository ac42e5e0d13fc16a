"""Task arithmetic of linearised models: linear in its coefficient, chosen by a pass each, and on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import small_streams
from conftest import examples
from surefoot import Recipe, load
from surefoot.errors import ModelError, RecipeError
from surefoot.merge import tangent_task_arithmetic as merging
from surefoot.merge.checkpoint import open_checkpoint
from surefoot.merge.fit import Seen
from surefoot.merge.fitting import merge_fit
from surefoot.merge.greedy_soup import GreedySoup
from surefoot.merge.tangent_task_arithmetic import TangentTaskArithmetic, is_linear, padded
from surefoot.models.model import Model
from surefoot.tune.selections.tangent import TangentSpace


def linearised(
    tiny_bert: Model, count: int = 2
) -> tuple[Model, list[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """A model with tangents, as many checkpoints of it, and the base without."""
    model = small_streams.bert(tiny_bert)
    model.precision = "float32"
    base = {name: value.clone() for name, value in model.state_dict().items() if name.startswith("backbone.")}
    TangentSpace(layers=1).apply(model)
    generator, found = torch.Generator().manual_seed(4), []
    for _ in range(count):
        state = {name: value.clone() for name, value in model.state_dict().items() if name.startswith("backbone.")}
        for name, value in state.items():
            if merging.MARK in name:
                value.copy_(0.2 * torch.randn(value.shape, generator=generator))
        found.append(state)
    return model.requires_grad_(False).eval(), found, base


def test_two_passes_stand_for_all(tiny_bert: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interpolated logits against a pass of the merged model for each of the values."""
    model, tuned, base = linearised(tiny_bert)
    assert is_linear(model)
    seen = [Seen(f"task-{n}", examples(60, n), model, head={k: v.clone() for k, v in model.state_dict().items() if k.startswith("head.")}) for n in range(2)]  # fmt: skip
    quick, slow = TangentTaskArithmetic(), TangentTaskArithmetic()
    quick.fit(model, tuned, base, seen)
    monkeypatch.setattr(merging, "is_linear", lambda model: False)
    slow.fit(model, tuned, base, seen)
    np.testing.assert_allclose(quick.normalised_, slow.normalised_, atol=1 / 60)  # one answer may lie on the edge
    best = max(slow.normalised_)
    assert slow.normalised_[round(20 * (quick.scaling_ or 0))] > best - 1 / 30
    merged = quick(tuned, base)
    for name, value in merged.items():
        start = padded(tuned[0], base)[name]
        expected = start + (quick.scaling_ or 0) * sum(each[name] - start for each in tuned)
        torch.testing.assert_close(value, expected)


def test_weights_around_which_they_are_linear_must_be_the_bases(tiny_bert: Model) -> None:
    model, tuned, base = linearised(tiny_bert)
    name = next(name for name in base if name.endswith("weight"))
    base[name] = base[name] + 1
    with pytest.raises(RecipeError, match="is not the base's"):
        TangentTaskArithmetic().fit(model, tuned, base, [])
    with pytest.raises(RecipeError, match="`points` is 1"):
        TangentTaskArithmetic(points=1)


def test_runs_are_merged_on_disk_and_open_with_every_head(bert_folder: Path, tmp_path: Path) -> None:
    recipe = Recipe(selection={"name": "tangent", "layers": 1}, epochs=1, batch_size=16, precision="float32")
    for number, name in enumerate(("one", "two")):
        recipe.fit(load(bert_folder), examples(48, number), out=tmp_path / name)
    runs, held = [tmp_path / "one", tmp_path / "two"], [examples(24, 7), examples(24, 8)]
    with pytest.raises(ModelError, match="parts beside its weights"):
        open_checkpoint(runs[0])
    with pytest.raises(RecipeError, match="choose tangent_task_arithmetic"):
        merge_fit(runs, GreedySoup(), held, out=tmp_path / "no", base=bert_folder)
    found = merge_fit(runs, TangentTaskArithmetic(), held, out=tmp_path / "both", base=bert_folder)
    assert 0 <= found["scaling"] <= 1
    assert len(found["normalised_accuracy"]) == 21
    own = [load(each).state_dict() for each in runs]
    for name, state in zip(("one", "two"), own, strict=True):
        merged = load(tmp_path / "both" / "model" / "heads" / name)
        for key, value in merged.state_dict().items():
            if merging.MARK in key:
                torch.testing.assert_close(value, found["scaling"] * (own[0][key] + own[1][key]))
            else:
                assert torch.equal(value, state[key])
    assert not (tmp_path / "no").exists()
