"""What every registered objective keeps to that reads tokens, pixels, layers or attention: on a tiny BERT and a tiny ViT."""

from __future__ import annotations

import copy

import pytest
import torch
from test_contract_objectives import ASKED, UNSUITED, same, state
from tiny_problem import move, take
from tiny_transformer import (
    EXAMPLES,
    causal_model,
    context,
    image_batch,
    image_model,
    step_of,
    text_batch,
    text_model,
)

from surefoot.registry import methods

#: Settings beside the defaults that run other code.
VARIANTS: dict[str, list[dict]] = {
    "c_advul": [{"epsilon": 0.5, "steps": 2}, {"epsilon": 0.0}],
    "clear": [{"views": ["delete_words", "substitute"], "mlm": 0.0}],
    "compcse": [{"cut": "random", "compose": "join", "width": 4}],
    "denosent": [{"noise": 0.0}],
    "diffcse": [{"fill": "all", "lambda_rtd": 1.0}],
    "masked_counterfactual": [{"mask": "context", "fill": "multi"}, {"mask": "random"}],
    "masked_thought": [{"p_max": 1.0}, {"p_max": 0.0}],
    "noise_mask": [{"heat": 0.9}],
    "tlm": [{"rate": 0.6}],
}
#: Objectives of images, or of both.
IMAGES = frozenset({"masked_counterfactual", "tlm", "vanishing_gradient"})


def cases() -> list:
    found = []
    for method in methods("objective"):
        for extras in [{}, *VARIANTS.get(method.name, [])]:
            options = {**ASKED.get(method.name, {}), **extras}
            if not method.make(**options).needs & UNSUITED:
                continue
            extra = "-".join(f"{key}={value}" for key, value in options.items())
            needs = method.make(**options).needs
            kinds = ["image" if "pixels" in needs else "causal" if "causal" in needs else "text"]
            kinds += ["image"] if method.name in IMAGES else []
            found += [pytest.param(method.make, options, kind, id=f"{method.name}-{kind}-{extra}") for kind in kinds]
    return found


every_case = pytest.mark.parametrize(("make", "options", "kind"), cases())


class Bench:
    def __init__(self, make, options, kind):
        self.model = {"text": text_model, "causal": causal_model, "image": image_model}[kind]()
        self.batch = image_batch if kind == "image" else text_batch
        torch.manual_seed(0)  # as `setup` of an objective with weights of its own would find it
        self.term = make(**options)
        self.term.setup(context(self.model))

    def step(self, batch, seed=0):
        return step_of(self.model, batch, seed=seed, needs=self.term.needs)

    def value(self, batch, *, update=False):
        if update:
            self.term.update(self.step(batch))
        return self.term(self.step(batch))


@every_case
def test_values_are_of_the_batch_and_repeat(make, options, kind):
    bench = Bench(make, options, kind)
    bench.value(bench.batch(), update=True)
    value = bench.value(bench.batch())
    assert value.shape == ()
    assert value.isfinite()
    assert torch.equal(value, bench.value(bench.batch()))
    if bench.term.is_per_example:
        losses = bench.term.per_example(bench.step(bench.batch()))
        assert losses.shape == (EXAMPLES,)
        assert losses.dtype == torch.float32
        torch.testing.assert_close(losses.mean(), value)


@every_case
@pytest.mark.parametrize("what", ["plain", "one example", "one class", "identical rows", "one word"])
def test_gradients_are_finite(make, options, kind, what):
    bench = Bench(make, options, kind)
    batch = bench.batch()
    if what == "one example":
        batch = take(batch, torch.tensor([0]))
    if what == "one class":
        batch = take(batch, torch.tensor([0, 3, 6, 9]))
    if what == "identical rows":
        batch = take(batch, torch.zeros(6, dtype=torch.long))
    if what == "one word":
        if kind == "image":
            pytest.skip("of texts alone")
        batch = text_batch(length=3, padding=False)
    for _ in range(2):
        value = bench.value(batch, update=True)
        assert value.isfinite()
        if value.requires_grad:
            value.backward()
    gradients = [each.grad for each in [*bench.model.parameters(), *bench.term.parameters()] if each.grad is not None]
    assert gradients
    assert all(each.isfinite().all() for each in gradients)


@every_case
def test_state_moves_in_update_alone_and_the_model_never(make, options, kind):
    bench = Bench(make, options, kind)
    weights, modes = state(bench.model), [module.training for module in bench.model.modules()]
    parameters = copy.deepcopy(dict(bench.model.named_parameters()))
    _ = bench.step(bench.batch()).output  # transformers leaves hooks of its own on the first pass
    hooks = [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in bench.model.modules()]
    bench.term.update(bench.step(bench.batch()))
    assert not any(buffer.requires_grad for buffer in bench.term.buffers())
    assert all(each.grad is None for each in [*bench.model.parameters(), *bench.term.parameters()])
    before = state(bench.term)
    move(bench.model, scale=0.0)
    bench.value(bench.batch(2)).backward()
    assert same(before, state(bench.term))
    assert same(weights, state(bench.model))
    assert same(parameters, dict(bench.model.named_parameters()))
    assert modes == [module.training for module in bench.model.modules()]
    assert hooks == [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in bench.model.modules()]


@every_case
def test_state_survives_a_round_trip(make, options, kind):
    bench = Bench(make, options, kind)
    for seed in range(3):
        bench.value(bench.batch(seed), update=True)
        move(bench.model, seed)
    fresh = Bench(make, options, kind)
    fresh.model.load_state_dict(bench.model.state_dict())
    fresh.term.load_state_dict(bench.term.state_dict())
    assert same(state(bench.term), state(fresh.term))
    assert torch.equal(bench.value(bench.batch(4)), fresh.value(bench.batch(4)))
    twin = copy.deepcopy(bench)
    assert torch.equal(bench.value(bench.batch(4)), twin.value(bench.batch(4)))


@every_case
def test_space_is_sane(make, options, kind):
    for name, space in make.space(context(text_model())).items():
        assert 0 <= space.low < space.high
        assert space.low > 0 or not space.log
        for edge in (space.low, space.high):
            make(**{name: int(edge) if space.integer else edge})
