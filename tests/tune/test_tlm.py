"""TLM."""

from __future__ import annotations

import pytest
import torch
from tiny_problem import tiny_context, tiny_model
from tiny_transformer import context, step_of, text_batch, text_model
from torch.nn import functional as F
from transformers import GPT2Config, GPT2Model

from surefoot.errors import RecipeError
from surefoot.models.model import Model
from surefoot.tune.objectives.tlm import TLM, draw, masked


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_rate_zero_is_cross_entropy_to_the_bit():
    step = step_of(text_model(dropout=0.3), text_batch())
    expected = F.cross_entropy(step.output.logits, step.labels, reduction="none")
    assert torch.equal(TLM(rate=0.0).per_example(step), expected)


def test_masks_follow_the_rule():
    """Against loops written from the paper's rule, from the same numbers."""
    chosen, alone = torch.rand(2, 5, 7, generator=generator()).numpy()
    drawn = draw((5, 7), 0.4, generator()).numpy()
    for example in range(5):
        for row in range(7):
            for column in range(7):
                if chosen[example, row] < 0.4:
                    seen = row == column if alone[example, row] < 0.5 else row != column
                else:
                    seen = chosen[example, column] >= 0.4
                assert drawn[example, row, column] == seen


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("padding", [False, True])
def test_a_pass_is_transformers_with_that_mask(attention, padding):
    """Against transformers itself, which takes a mask (B, 1, T, T): a model of one block."""
    model, batch = text_model(attention=attention, layers=1), text_batch(padding=padding)
    with masked(model, 0.4, generator(3)):
        found = model(batch).features
    drawn = draw(batch.inputs["input_ids"].shape, 0.4, generator(3))
    seen = drawn & batch.inputs["attention_mask"].bool()[:, None]
    itself = torch.eye(seen.shape[1], dtype=torch.bool)
    seen = (seen | (itself & ~seen.any(2, keepdim=True)))[:, None]
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    states = model.backbone(input_ids=batch.inputs["input_ids"], attention_mask=mask).last_hidden_state
    weights = batch.inputs["attention_mask"][:, :, None].float()
    torch.testing.assert_close(found, (states * weights).sum(1) / weights.sum(1))
    assert not torch.allclose(found, model(batch).features)


def test_padding_stays_unseen():
    model, batch = text_model(), text_batch()
    ids = batch.inputs["input_ids"]
    other = torch.where(batch.inputs["attention_mask"].bool(), ids, 9)
    answers = []
    for given in (ids, other):
        step = step_of(model, batch)
        with masked(model, 0.5, generator(1)):
            answers.append(step.again(inputs={**batch.inputs, "input_ids": given}).logits)
    torch.testing.assert_close(*answers)


def test_frozen_blocks_stay_and_the_cache_serves():
    model, batch = text_model(), text_batch()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layer.1" in name or name.startswith("head"))
    model.freeze(1)
    value = TLM(rate=0.5).per_example(step_of(model.train(), batch))
    cached = type(batch)(**{**vars(batch), "prefix": model.run_prefix(batch, 1)})
    torch.testing.assert_close(TLM(rate=0.5).per_example(step_of(model, cached)), value)


def test_what_it_is_not_for():
    with pytest.raises(RecipeError, match="blocks"):
        TLM().setup(tiny_context(tiny_model()))
    config = GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=16)
    model = Model(GPT2Model(config), dim=16, processor=text_model().processor, pool="last", classes=("a", "b", "c"))
    with pytest.raises(RecipeError, match="both ways"):
        TLM().setup(context(model))
    with pytest.raises(RecipeError):
        TLM(rate=1.0)
