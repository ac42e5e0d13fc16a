"""Masked counterfactual samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_problem import move, tiny_context, tiny_model
from tiny_transformer import context, image_batch, image_model, step_of, text_batch, text_model

from surefoot.errors import RecipeError
from surefoot.tune.objectives.masked_counterfactual import MaskedCounterfactual, relevance

NEEDS = MaskedCounterfactual.needs


def objective(model, **options):
    term = MaskedCounterfactual(**options)
    term.setup(context(model))
    return term


def reference(step):
    """The authors' map (get_MMCAM), example by example and head by head in float64."""
    model, output = step.model, step.output
    gradients = []
    for each in output.attentions:
        score = output.logits.gather(1, step.labels[:, None]).sum()
        gradients.append(torch.autograd.grad(score, each, retain_graph=True)[0].double().numpy())
    maps = [each.detach().double().numpy() for each in output.attentions]
    found = []
    for i in range(len(step.batch)):
        tokens = maps[0].shape[-1]
        total = np.eye(tokens)
        for attention, gradient in zip(maps, gradients, strict=True):
            heads = [np.maximum(0, attention[i, h] * gradient[i, h]) for h in range(attention.shape[1])]
            total = total + np.mean(heads, axis=0) @ total
        total -= np.eye(tokens)
        if model.pool == "cls":
            found.append(total[0])
        else:
            mask = step.batch.inputs["attention_mask"][i].numpy().astype(bool)
            found.append(total[mask].mean(0))
    return torch.from_numpy(np.stack(found)).float()


@pytest.mark.parametrize("kind", ["text", "image"])
def test_relevance_is_the_authors_map(kind):
    """Against the public implementation's formula, written out in numpy."""
    model, batch = (text_model(), text_batch()) if kind == "text" else (image_model(), image_batch())
    step = step_of(model, batch, needs=NEEDS)
    found = relevance(step)
    torch.testing.assert_close(found, reference(step), rtol=1e-4, atol=1e-7)
    assert (found.amax(1) > 0).all()
    assert not found.requires_grad
    step.output.logits.sum().backward()  # the graph is still there for the other objectives


@pytest.mark.parametrize("kind", ["text", "image"])
@pytest.mark.parametrize("options", [{}, {"mask": "context"}, {"mask": "random", "fill": "multi"}])
def test_before_training_there_is_nothing_to_keep(kind, options):
    model, batch = (text_model(), text_batch()) if kind == "text" else (image_model(), image_batch())
    term = objective(model, **options)
    assert torch.equal(term.per_example(step_of(model, batch, needs=NEEDS)), torch.zeros(len(batch)))
    before = {name: each.clone() for name, each in term.start_.items()}
    move(model)
    step = step_of(model, batch, needs=NEEDS)
    value = term.per_example(step)
    inputs = term.counterfactual(step_of(model, batch, needs=NEEDS))
    teacher = text_model() if kind == "text" else image_model()
    expected = [each(type(batch)(**{**vars(batch), "inputs": inputs})).features for each in (model, teacher)]
    torch.testing.assert_close(value, (expected[0] - expected[1]).square().mean(1))
    assert all(torch.equal(before[name], each) for name, each in term.start_.items())


def test_images_are_filled_patch_by_patch():
    model, batch = image_model(), image_batch()
    images = batch.inputs["pixel_values"]
    for fill in ("single", "multi"):
        term = objective(model, mask="object", fill=fill, threshold=0.5)
        found = term.counterfactual(step_of(model, batch, needs=NEEDS))["pixel_values"]
        step = step_of(model, batch, needs=NEEDS)
        shares = relevance(step)[:, -16:]
        shares = (shares / shares.amax(1, keepdim=True)).view(-1, 4, 4)
        sources = []
        for i in range(len(batch)):
            for row in range(4):
                for column in range(4):
                    where = (slice(None), slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4))
                    owners = [j for j in range(len(batch)) if torch.equal(found[i][where], images[j][where])]
                    assert len(owners) == 1
                    if shares[i, row, column] <= 0.5:
                        assert owners == [i]
                    else:
                        sources.append((i, owners[0]))
        assert sources
        from_one = len(set(sources)) == len({i for i, _ in sources})
        assert from_one == (fill == "single")
        assert fill == "single" or all(i != j for i, j in sources)


def test_texts_are_filled_with_words_or_not_seen():
    model, batch = text_model(), text_batch()
    term = objective(model, mask="random", threshold=1.0)
    found = term.counterfactual(step_of(model, batch))
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    drawn = torch.rand(ids.shape, generator=(again := torch.Generator().manual_seed(0)))
    others = torch.randperm(len(ids), generator=again)
    assert drawn.max() < 1.0
    for i in range(len(ids)):
        last = int(mask[i].sum()) - 1
        end = int(mask[others[i]].sum()) - 1
        for place in range(ids.shape[1]):
            if place == 0 or place >= last:
                assert found["input_ids"][i, place] == ids[i, place]
                assert found["attention_mask"][i, place] == mask[i, place]
            elif place < end:
                assert found["input_ids"][i, place] == ids[others[i], place]
            else:
                assert found["attention_mask"][i, place] == 0


def test_object_and_context_are_complements():
    model, batch = image_model(), image_batch()
    step = step_of(model, batch, needs=NEEDS)
    first, second = (objective(model, mask=mask, threshold=0.4)._masked(step, 16) for mask in ("object", "context"))
    assert torch.equal(first, ~second)
    assert first.any()
    assert second.any()


def test_frozen_blocks_have_no_share():
    model, batch = text_model(), text_batch()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layer.1" in name or name.startswith("head"))
    model.freeze(1)
    step = step_of(model.train(), batch, needs=NEEDS)
    assert [each.requires_grad for each in step.output.attentions] == [False, True]
    assert relevance(step).max() > 0
    assert objective(model).per_example(step).shape == (len(batch),)


def test_what_it_is_not_for():
    with pytest.raises(RecipeError, match="blocks"):
        MaskedCounterfactual().setup(tiny_context(tiny_model()))
    for options in ({"mask": "subject"}, {"fill": "none"}, {"threshold": 1.5}):
        with pytest.raises(RecipeError):
            MaskedCounterfactual(**options)
