"""What every registered objective and reducer keeps to."""

from __future__ import annotations

import copy
import inspect
import re
from dataclasses import replace

import pytest
import torch
from tiny_problem import EXAMPLES, move, take, tiny_batch, tiny_context, tiny_model, tiny_step

from surefoot.registry import Method, methods
from surefoot.tune.objective import NEEDS, Objective, WeightObjective
from surefoot.tune.weight_gradients import accumulate

OBJECTIVES = methods("objective")
REDUCERS = methods("reducer")
#: Settings beside the defaults that run other code.
VARIANTS = {
    "alignment": [{"alpha": 1.0}],
    "confidence_minimization": [{"penalize": "confidence"}],
    "elle": [{"adaptive": True}, {"epsilon": 0.0}],
    "flyp": [{"cached": True}, {"positives": "same_example"}],
    "focal": [{"gamma": 0.5}, {"gamma": 0.0}],
    "hinge": [{"violations": "max"}],
    "neural_collapse": [{"ratio": 0.0}],
    "pgd_at": [{"steps": 1}, {"norm": "l2", "epsilon": 0.5}],
    "rank_reduction": [{"spectrum": "singular"}],
    "smart": [{"mu": 0.0}, {"steps": 3, "epsilon": 0.1, "sigma": 0.05, "eta": 0.1}, {"compares": "features"}],
    "trades": [{"steps": 1, "beta": 1.0}, {"norm": "l2", "epsilon": 0.5}],
    "group_dro": [{"eta": 0.5, "adjustment": 1.0}],
}
#: The tiny models have no dropout: what is told apart by it has to be asked to do without. Sixteen layers show no more
#: than one.
ASKED = {"simcse": {"dropout": 0.0}, "diffcse": {"dropout": 0.0}, "denosent": {"layers": 1}}
#: Plain training and its parts have no paper.
WITHOUT_PAPER = {"cross_entropy", "mean"}
#: What the tiny model cannot give; see test_contract_structured_objectives.
UNSUITED = frozenset({"attentions", "hidden_states", "layers", "tokens", "pixels", "causal"})


def cases(found: list[Method]) -> list:
    settings = [
        (method, {**ASKED.get(method.name, {}), **options})
        for method in found
        for options in [{}, *VARIANTS.get(method.name, [])]
    ]
    return [
        pytest.param(method.make, options, id="-".join([method.name, *(f"{k}={v}" for k, v in options.items())]))
        for method, options in settings
        if not method.make(**options).needs & UNSUITED
    ]


every_method = pytest.mark.parametrize("method", OBJECTIVES + REDUCERS, ids=lambda method: method.name)
every_objective = pytest.mark.parametrize(("make", "options"), cases(OBJECTIVES))
every_reducer = pytest.mark.parametrize(("make", "options"), cases(REDUCERS))
every_case = pytest.mark.parametrize(("make", "options"), cases(OBJECTIVES + REDUCERS))
every_weight_objective = pytest.mark.parametrize(
    "make", [m.make for m in OBJECTIVES if issubclass(m.make, WeightObjective)], ids=lambda make: make.__name__
)


class Bench:
    """One objective or reducer on the tiny problem, driven as the trainer drives it."""

    def __init__(self, make, options, model=None):
        self.model = model or tiny_model()
        self.term = make(**options)
        self.term.setup(tiny_context(self.model))

    def losses(self, step):
        return torch.nn.functional.cross_entropy(step.output.logits, step.labels, reduction="none")

    def update(self, step):
        if isinstance(self.term, Objective):
            self.term.update(step)
        else:
            self.term.update(self.losses(step).detach(), step)

    def value(self, batch, *, update=False, seed=0):
        step = tiny_step(self.model, batch, seed=seed)
        if update:
            self.update(step)
        return self.term(step) if isinstance(self.term, Objective) else self.term(self.losses(step), step)

    def backward(self, batch, *, update=False):
        value = self.value(batch, update=update)
        if isinstance(self.term, WeightObjective):
            accumulate([(self.term, 1.0)])
        else:
            value.backward()
        return value


def state(module):
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- what is written


@every_method
def test_documentation_is_complete(method):
    text = inspect.getdoc(method.make) or ""
    assert method.summary.endswith((".", "Z")), "the first line is a sentence or a formula"
    assert re.search(r"[=<|(/]", text), "no formula"
    assert "Gives " in text, "what comes out, its shape and units"
    assert "Raises" in text or not keyword_parameters(method.make), "hyperparameters are validated"
    if method.name not in WITHOUT_PAPER:
        assert "Reference: " in text
        assert method.papers
        assert all(paper.title and paper.authors and 1900 < paper.year < 2100 for paper in method.papers)


def keyword_parameters(make):
    # A class without hyperparameters inherits nn.Module's (*args, **kwargs).
    parameters = inspect.signature(make).parameters.values() if "__init__" in vars(make) else []
    assert all(each.kind is each.KEYWORD_ONLY for each in parameters)
    return {each.name: each.default for each in parameters}


@every_case
def test_hyperparameters_are_kept_under_their_names(make, options):
    term = make(**options)
    for name, default in keyword_parameters(make).items():
        assert getattr(term, name) == options.get(name, default)


@every_case
def test_needs_are_known(make, options):
    assert make(**options).needs <= NEEDS


@every_objective
def test_space_is_sane(make, options):
    for context in (None, tiny_context(tiny_model())):
        for name, space in make.space(context).items():
            assert space.low < space.high
            assert space.low > 0 or not space.log
            assert name in keyword_parameters(make)
            for edge in (space.low, space.high):
                make(**{name: int(edge) if space.integer else edge})


# --- values


@every_objective
def test_terms_follow_the_order_of_the_batch(make, options):
    bench = Bench(make, options)
    batch, order = tiny_batch(), torch.randperm(EXAMPLES, generator=torch.Generator().manual_seed(2))
    if isinstance(bench.term, WeightObjective):
        assert torch.equal(bench.value(batch), bench.value(take(batch, order)))
        return
    bench.value(batch, update=True)
    if not bench.term.is_per_example:
        assert bench.value(batch).shape == ()
        torch.testing.assert_close(bench.value(batch), bench.value(take(batch, order)))
        return
    plain, shuffled = (tiny_step(bench.model, each) for each in (batch, take(batch, order)))
    before = plain.generator.get_state()
    losses = bench.term.per_example(plain)
    assert losses.shape == (EXAMPLES,)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(bench.term(tiny_step(bench.model, batch)), losses.mean())
    if torch.equal(before, plain.generator.get_state()):  # Noise goes by position, so it cannot follow.
        torch.testing.assert_close(bench.term.per_example(shuffled), losses[order])


@every_reducer
def test_reducers_do_not_see_the_order_of_the_batch(make, options):
    batch = tiny_batch()
    for each in (batch, replace(batch, weight=torch.linspace(0.1, 2.0, EXAMPLES))):
        bench = Bench(make, options)
        bench.value(each, update=True)
        shuffled = take(each, torch.arange(EXAMPLES).flip(0))
        value = bench.value(each)
        assert value.shape == ()
        torch.testing.assert_close(value, bench.value(shuffled))


@every_case
def test_same_step_gives_the_same_bits(make, options):
    bench = Bench(make, options)
    bench.value(tiny_batch(), update=True)
    assert torch.equal(bench.value(tiny_batch()), bench.value(tiny_batch()))


def saturated(model, size):
    with torch.no_grad():
        scale = size / model(tiny_batch()).logits.abs().max()
        model.head.weight.mul_(scale)
        model.head.bias.mul_(scale)


def degenerate(model, what):
    batch = tiny_batch()
    if what == "one example":
        return take(batch, torch.tensor([0]))
    if what == "one class":
        return replace(batch, labels=torch.zeros_like(batch.labels))
    if what == "identical rows":
        return replace(batch, inputs={name: value[:1].expand_as(value) for name, value in batch.inputs.items()})
    if what == "no input":
        return replace(batch, inputs={name: torch.zeros_like(value) for name, value in batch.inputs.items()})
    if what == "zero head":
        torch.nn.init.zeros_(model.head.weight)
        torch.nn.init.zeros_(model.head.bias)
    if what in ("extreme logits", "all right and certain"):
        saturated(model, 1e4)
    if what == "all right and certain":
        with torch.no_grad():
            batch = replace(batch, labels=model(batch).logits.argmax(1))
    return batch


@every_case
@pytest.mark.parametrize(
    "what",
    ["one example", "one class", "identical rows", "no input", "zero head", "extreme logits", "all right and certain"],
)
def test_gradients_are_finite_on_degenerate_batches(make, options, what):
    bench = Bench(make, options)
    batch = degenerate(bench.model, what)
    for _ in range(2):
        assert bench.backward(batch, update=True).isfinite()
    for parameter in [*bench.model.parameters(), *bench.term.parameters()]:
        assert parameter.grad is None or parameter.grad.isfinite().all()


# --- state


@every_case
def test_forward_leaves_the_state_alone(make, options):
    bench = Bench(make, options)
    bench.value(tiny_batch(), update=True)
    before = state(bench.term)
    move(bench.model)
    bench.backward(tiny_batch(2))
    assert same(before, state(bench.term))


@every_case
def test_update_is_without_gradient_and_leaves_the_model_alone(make, options):
    bench = Bench(make, options)
    weights, modes = state(bench.model), [module.training for module in bench.model.modules()]
    parameters = copy.deepcopy(dict(bench.model.named_parameters()))
    step = tiny_step(bench.model, tiny_batch())
    assert step.output.logits.requires_grad
    bench.update(step)
    assert not any(buffer.requires_grad for buffer in bench.term.buffers())
    assert all(parameter.grad is None for parameter in [*bench.model.parameters(), *bench.term.parameters()])
    assert same(weights, state(bench.model))
    assert same(parameters, dict(bench.model.named_parameters()))
    assert modes == [module.training for module in bench.model.modules()]
    step.output.logits.sum().backward()


@every_case
def test_state_survives_a_round_trip(make, options):
    bench = Bench(make, options)
    for seed in range(3):
        bench.value(tiny_batch(seed), update=True)
        move(bench.model, seed)
    model = copy.deepcopy(bench.model)
    fresh = Bench(make, options, model=tiny_model())
    fresh.model.load_state_dict(model.state_dict())
    fresh.term.load_state_dict(bench.term.state_dict())
    assert same(state(bench.term), state(fresh.term))
    assert torch.equal(bench.value(tiny_batch(4)), fresh.value(tiny_batch(4)))


@every_case
def test_deep_copy_is_independent(make, options):
    bench = Bench(make, options)
    bench.value(tiny_batch(), update=True)
    twin = copy.deepcopy(bench)
    assert torch.equal(bench.value(tiny_batch()), twin.value(tiny_batch()))
    before = state(bench.term)
    move(twin.model)
    twin.value(tiny_batch(2), update=True)
    assert same(before, state(bench.term))


# --- weights


@every_weight_objective
def test_closed_form_gradient_is_autograd_of_the_value(make):
    bench = Bench(make, {}, model=tiny_model().double())
    move(bench.model, scale=1.0)
    term = bench.term
    for name, parameter, start in zip(term.names_, term.parameters_, term.start_, strict=True):
        (expected,) = torch.autograd.grad(term.value(name, parameter, start), parameter)
        torch.testing.assert_close(term.gradient(name, parameter, start).detach(), expected)
