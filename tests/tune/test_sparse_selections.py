"""Selections that train little of each weight or choose by noise: GIFT-SW, SAFT, DSEE, mask tuning with its optimizer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_training import choose, train
from test_peft_selections import answers, batch, bert
from tiny_problem import passes, tiny_model
from torch import Tensor, nn

from conftest import examples
from surefoot import Recipe
from surefoot.errors import RecipeError
from surefoot.models.model import Model
from surefoot.tune.build import build, build_optimizer
from surefoot.tune.optimizers.gradient_dropout import GradientDropout, stays
from surefoot.tune.optimizers.sgd import SGD
from surefoot.tune.selections import head_names, linear_layers, train_only
from surefoot.tune.selections.dsee import DSEE, Embedded, prune, sparse_support
from surefoot.tune.selections.gift_sw import GIFTSW, Salient
from surefoot.tune.selections.mask_tuning import START, THRESHOLD, Binary, MaskTuning
from surefoot.tune.selections.rounding import rounded, steps
from surefoot.tune.selections.saft import SAFT

KEY = "backbone.encoder.layer.1.attention.self.query"


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tensors this small only wait for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_steps_are_those_of_a_search_in_numpy(bits):
    """The authors' grid (1.00, 0.99, ..., 0.21 of the largest magnitude), written again in float64 numpy."""
    weight = np.random.default_rng(0).standard_t(3, (5, 40))
    most, expected = 2 ** (bits - 1) - 1, []
    for row in weight:
        errors = []
        for share in 1 - np.arange(80) / 100:
            step = share * np.abs(row).max() / most
            levels = np.clip(np.round(row / step), -(2 ** (bits - 1)), most)
            errors.append((np.square(levels * step - row).sum(), step))
        expected.append(min(errors)[1])
    found = steps(torch.from_numpy(weight), bits)
    torch.testing.assert_close(found[:, 0], torch.tensor(expected, dtype=torch.float64))
    assert len(rounded(torch.from_numpy(weight), found, bits)[0].unique()) <= 2**bits


def test_gift_sw_takes_the_columns_of_its_formula():
    """||D_j||_2 max |x_j| in float64, from the inputs that a hook of the test's own sees."""
    model, selection = bert(), GIFTSW(columns=4)
    seen: list[Tensor] = []
    handle = model.get_submodule(KEY).register_forward_hook(lambda m, args, out: seen.append(args[0].flatten(0, 1)))
    answers(model)
    handle.remove()
    choose(selection, model, batch())
    weight = model.get_submodule(KEY).parametrizations.weight.original.detach().double()
    error = weight - rounded(weight, steps(weight, 4), 4)
    scores = error.norm(dim=0) * torch.cat(seen).abs().amax(0).double()
    assert selection.where_[KEY].tolist() == sorted(scores.topk(4).indices.tolist())


def test_noise_of_gift_sw_is_on_the_other_columns_alone_and_in_training_alone():
    torch.manual_seed(0)
    weight, where = torch.randn(6, 8), torch.tensor([1, 5])
    part = Salient(weight, where, 0.5 * steps(weight, 4))
    assert torch.equal(part.eval()(weight), weight)
    part.train()
    with torch.no_grad():
        draws = torch.stack([part(weight) for _ in range(4000)]) - weight
    others = [j for j in range(8) if j not in (1, 5)]
    assert not draws[:, :, where].any()
    ratio = draws[:, :, others].std(0) / (0.5 * steps(weight, 4))
    assert ((ratio - 1).abs() < 0.06).all()
    assert torch.equal(part.result(weight), weight)


def test_gift_sw_of_all_columns_without_noise_trains_the_weights_to_the_bit():
    ends = []
    for whole in (True, False):
        model = bert()
        selection = GIFTSW(noise=0.0, columns=64)
        if whole:
            train_only(
                model, [f"{name}.weight" for name in linear_layers(model, model.layer_names)] + head_names(model)
            )
        else:
            choose(selection, model, batch())
        train(model, batch())
        selection.finish(model)
        ends.append(model.state_dict())
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_saft_scores_are_the_variance_that_noise_has_in_closed_form():
    """Of a layer y = W x + b under noise d_i e_ij: Var = mean_i d_i^2 mean ||x||^2, over that of y; on the first layer."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 8))
    model = Model.from_module(module, dim=8, classes=["a", "b"])
    x = torch.randn(64, 96)
    given = batch()
    given = type(given)(inputs={"features": x}, labels=torch.arange(64) % 2, index=torch.arange(64))
    selection = SAFT(bits=4, noise=0.01)
    choose(selection, model, given)
    weight = module[0].parametrizations.weight.original.detach()
    d = selection.deviation(weight)
    expected_d = (steps(weight, 4) ** 2 / 12 + (0.01 * weight.abs().max()) ** 2).sqrt()
    torch.testing.assert_close(d, expected_d)
    y = x @ weight.T + module[0].bias.detach()
    expected = (d.square().mean() * x.square().sum(1).mean() / y.var()).sqrt()
    assert selection.scores_["backbone.0"] == pytest.approx(float(expected), rel=0.1)


def test_saft_trains_the_most_sensitive_layers_and_leaves_no_noise():
    model, selection = bert(), SAFT(share=0.2)
    choose(selection, model, batch())
    order = sorted(selection.scores_, key=lambda name: -selection.scores_[name])
    trained = {name.partition(".parametrizations")[0].removesuffix(".bias") for name, p in model.named_parameters() if p.requires_grad and name.startswith("backbone")}  # fmt: skip
    assert trained == set(order[:4])
    model.train()
    one, two = (model(batch()).logits for _ in range(2))
    assert not torch.equal(one, two)
    start = bert()
    selection.finish(model)
    assert all(torch.equal(value, start.state_dict()[name]) for name, value in model.state_dict().items())


def test_dsee_finds_what_is_sparse_beside_what_is_low_rank():
    """A known answer: rank 3 plus 20 large entries; their places come back."""
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(40, 3, generator=generator) @ torch.randn(3, 30, generator=generator)
    where = torch.randperm(1200, generator=generator)[:20].sort().values
    weight = (low / 10).flatten().index_add(0, where, torch.full((20,), 3.0)).view(40, 30)
    torch.manual_seed(0)
    assert torch.equal(sparse_support(weight, 20, rank=3), where)


def test_dsee_is_its_formula():
    """Float64: S_1 * W + (alpha / r) (U V + S_2), after pruning half of all frozen weights by one threshold."""
    model, selection = bert(), DSEE(r=3, alpha=6, entries=5, grown=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    choose(selection, model, batch())
    train(model, batch())
    selection.after_step(model, step=1, steps=2)
    part = model.get_submodule(KEY).parametrizations.weight[0]
    assert isinstance(part, Embedded)
    weights = torch.cat([before[f"{name}.weight"].flatten() for name in linear_layers(bert(), bert().layer_names)])
    threshold = weights.abs().sort().values[len(weights) // 2 - 1]
    sparse = torch.zeros(256, dtype=torch.float64).index_copy(0, part.where, part.s2.detach().double()).view(16, 16)
    expected = before[f"{KEY}.weight"].double()
    expected = expected * (expected.abs() > threshold)
    expected = expected + 2 * (part.u.detach().double() @ part.v.detach().double() + sparse)
    selection.finish(model)
    torch.testing.assert_close(model.get_parameter(f"{KEY}.weight").detach().double(), expected, rtol=1e-5, atol=1e-6)
    dense = model.get_parameter("backbone.encoder.layer.1.output.dense.weight")
    zeros = before["backbone.encoder.layer.1.output.dense.weight"].abs() <= threshold
    assert torch.equal(dense == 0, zeros)


def test_dsee_prunes_in_the_middle_of_a_training(tiny_bert: Model):
    recipe = Recipe(selection={"name": "dsee", "grown": 2, "sparsity": 0.25}, epochs=1, batch_size=16)
    model = recipe.fit(tiny_bert, examples(64)).model
    names = [name for name in linear_layers(model, model.layer_names) if not name.endswith(("query", "value"))]
    zero = torch.cat([(model.get_parameter(f"{name}.weight") == 0).flatten() for name in names])
    assert 0.2 < float(zero.float().mean()) < 0.3
    again = recipe.changed(selection={"name": "dsee", "grown": 2, "sparsity": 0.0}).fit(tiny_bert, examples(64)).model
    assert not any((again.get_parameter(f"{name}.weight") == 0).any() for name in names)


def test_pruning_nothing_changes_nothing():
    model = bert()
    choose(DSEE(grown=1), model, batch())
    start = answers(model)
    prune(model, 0.0)
    assert torch.equal(answers(model), start)


def test_scores_of_masks_get_the_gradient_straight_through_and_that_of_their_length():
    """By hand: dL/ds = W * dL/dW_eff + penalty s / ||s||; float64."""
    torch.manual_seed(0)
    weight = torch.randn(4, 5, dtype=torch.float64)
    part = Binary(weight, penalty=0.3)
    with torch.no_grad():
        part.scores[0, 0], part.scores[1, 2] = THRESHOLD, -1.0
    upstream = torch.randn(4, 5, dtype=torch.float64)
    effective = part(weight)
    assert effective[0, 0] == 0
    assert effective[1, 2] == 0
    assert int((effective == 0).sum()) == 2
    effective.backward(upstream)
    length = part.scores.detach().clone().requires_grad_()
    (0.3 * length.norm()).backward()
    torch.testing.assert_close(part.scores.grad, weight * upstream + length.grad)
    assert START > THRESHOLD


def test_masked_weights_are_zero_or_what_they_were():
    model, selection = bert(), MaskTuning()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    choose(selection, model, batch())
    train(model, batch(), steps=3, lr=5e-3)
    selection.finish(model)
    left_out = 0
    for name, value in model.state_dict().items():
        if name.startswith("backbone."):
            assert ((value == before[name]) | (value == 0)).all()
            left_out += int((value != before[name]).sum())
            assert torch.equal(value, before[name]) or "attention" in name
    assert left_out


def test_the_chance_to_stay_is_the_papers_equation():
    """Float64, case by case: 1 where the signs agree, |g| / (|g| + |k|) where they do not."""
    g, k = (torch.randn(500, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    expected = torch.where(g * k >= 0, torch.ones_like(g), g.abs() / (g.abs() + k.abs()))
    drawn = torch.rand(500, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert torch.equal(stays(g, k, drawn.clone()), drawn < expected)
    assert stays(g, torch.zeros_like(g), drawn.clone()).all()


class Drawn:
    """The closure of one minibatch, whose later draws are those of another seed."""

    def __init__(self, model: Model, seed: int) -> None:
        self.passes, self.seed = passes(model), seed

    @property
    def step(self):
        return self.passes.step

    def __call__(self, first: bool) -> Tensor:
        loss = self.passes(first)
        self.step.generator.manual_seed(self.seed)
        return loss


def test_gradient_dropout_drops_as_often_as_it_says():
    """What reaches the inner optimizer, over many draws, against P from gradients that the test takes itself."""
    model = tiny_model()
    parameters = list(model.parameters())
    optimizer = GradientDropout(SGD(parameters, lr=1.0, momentum=0.0))
    with torch.no_grad():  # away from the start
        for i, parameter in enumerate(parameters):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)), alpha=0.3)
    closure = passes(model)
    closure(True)
    gradient = torch.cat([parameter.grad.flatten() for parameter in parameters])
    ours = torch.log_softmax(model(closure.step.batch).logits, dim=1)
    start = tiny_model()(closure.step.batch).logits.softmax(1).detach()
    towards = torch.autograd.grad(-(start * ours).sum(1).mean(), parameters)
    g, k = gradient.double(), torch.cat([each.flatten() for each in towards]).double()
    expected = (1 + g.sign() * (g + k) / (g.abs() + k.abs()).clamp_min(1e-300)) / 2
    expected[g == 0] = 1  # dropped or not, it is 0
    kept = []
    for seed in range(300):
        optimizer.around(Drawn(model, seed), True)
        thinned = torch.cat([parameter.grad.flatten() for parameter in parameters])
        assert ((thinned == gradient) | (thinned == 0)).all()
        kept.append((thinned == gradient).double())
    often = torch.stack(kept).mean(0)
    assert ((often - expected).abs() <= 4.5 * (expected * (1 - expected) / 300).sqrt() + 1e-9).all()
    assert (expected < 0.9).any()


def test_without_strength_gradient_dropout_is_the_inner_optimizer_to_the_bit():
    ends = []
    for spec in ("adamw", {"name": "gradient_dropout", "strength": 0.0, "inner": "adamw"}):
        model = tiny_model()
        optimizer = build_optimizer(spec, list(model.parameters()))
        for seed in range(3):
            optimizer.step(passes(model, seed=seed))
        ends.append(model.state_dict())
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_the_recipe_of_r_amt(tiny_bert: Model):
    recipe = Recipe.named("r_amt", epochs=1, batch_size=16)
    run = recipe.fit(tiny_bert, examples(48))
    assert run.evaluate({"test": examples(40, 1)})["test"].accuracy.value > 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GIFTSW(columns=0), "`columns` is 0"),
        (lambda: GIFTSW(bits=1), "`bits` is 1: it must be a whole number from 2 to 16"),
        (lambda: GIFTSW(noise=-1), "`noise` is -1"),
        (lambda: GIFTSW().apply(bert()), "call `setup`"),
        (lambda: SAFT(share=0), "`share` is 0"),
        (lambda: SAFT(bits=40), "`bits` is 40"),
        (lambda: SAFT().apply(bert()), "call `setup`"),
        (lambda: DSEE(sparsity=1.0), "`sparsity` is 1.0"),
        (lambda: DSEE(r=0), "`r` is 0"),
        (lambda: DSEE(alpha=0), "`alpha` is 0"),
        (lambda: MaskTuning(site="attend"), "`site` is `attend`"),
        (lambda: MaskTuning(penalty=-1), "`penalty` is -1"),
        (lambda: build("selection", {"name": "gift_sw", "colums": 3}), "did you mean `columns`"),
        (lambda: build_optimizer({"name": "gradient_dropout", "strength": 2}, None), "`strength` is 2"),
    ],
)
def test_errors(make, message):
    with pytest.raises(RecipeError, match=message):
        make()
