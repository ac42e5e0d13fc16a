"""What is specific to each objective."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax
from scipy.stats import entropy
from tiny_problem import CLASSES, EXAMPLES, move, tiny_batch, tiny_context, tiny_model, tiny_step
from torch import nn
from torch.nn import functional as F

from surefoot.errors import RecipeError
from surefoot.tune.objective import Norms, WeightObjective
from surefoot.tune.objectives.confidence_minimization import ConfidenceMinimization
from surefoot.tune.objectives.cross_entropy import CrossEntropy
from surefoot.tune.objectives.elr import ELR
from surefoot.tune.objectives.entropy import Entropy
from surefoot.tune.objectives.flyp import FLYP
from surefoot.tune.objectives.focal import Focal
from surefoot.tune.objectives.hinge import Hinge
from surefoot.tune.objectives.kl_reference import KLReference
from surefoot.tune.objectives.l2_sp import L2SP
from surefoot.tune.objectives.label_smoothing import LabelSmoothing
from surefoot.tune.objectives.smart import SMART
from surefoot.tune.objectives.weight_norms import L1Start, L1Zero, L2Start, L2Zero
from surefoot.tune.weight_gradients import BLOCK, accumulate, add_norms


@pytest.fixture
def model():
    return tiny_model()


@pytest.fixture
def step(model):
    return tiny_step(model, tiny_batch())


def float64(tensor):
    return tensor.detach().double().numpy()


def ready(objective, model):
    objective.setup(tiny_context(model))
    return objective


def close(tensor, expected, tolerance=1e-5):
    np.testing.assert_allclose(float64(tensor), expected, rtol=tolerance, atol=tolerance * 1e-1)


# --- losses of the logits


def test_focal(step):
    plain = CrossEntropy().per_example(step)
    assert torch.equal(Focal(gamma=0.0).per_example(step), plain)
    p = np.exp(-float64(plain))
    close(Focal(gamma=2.0).per_example(step), (1 - p) ** 2 * -np.log(p))


def test_focal_gradient_by_finite_differences(model):
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    step = tiny_step(model, tiny_batch(size=4))

    def loss(z):
        step._output = replace(step.output, logits=z)
        return Focal(gamma=1.5).per_example(step)

    assert torch.autograd.gradcheck(loss, (logits,))


def test_hinge(step):
    z, y = float64(step.output.logits), step.labels.numpy()
    margins = np.maximum(0, 1 + z - z[np.arange(len(y)), y][:, None])
    margins[np.arange(len(y)), y] = 0
    close(Hinge().per_example(step), margins.sum(1))
    close(Hinge(violations="max").per_example(step), margins.max(1))
    reference = F.multi_margin_loss(step.output.logits, step.labels, reduction="none") * len(CLASSES)
    torch.testing.assert_close(Hinge().per_example(step), reference)


def test_label_smoothing(step):
    assert torch.equal(LabelSmoothing(epsilon=0.0).per_example(step), CrossEntropy().per_example(step))
    log_p = log_softmax(float64(step.output.logits), axis=1)
    target = 0.8 * np.eye(3)[step.labels.numpy()] + 0.2 / 3
    close(LabelSmoothing(epsilon=0.2).per_example(step), -(target * log_p).sum(1))


def test_entropy(step):
    close(Entropy().per_example(step), entropy(softmax(float64(step.output.logits), axis=1), axis=1))


def test_confidence_minimization_looks_at_errors_only(step):
    z = float64(step.output.logits)
    wrong = z.argmax(1) != step.labels.numpy()
    assert 0 < wrong.sum() < len(wrong)
    close(ConfidenceMinimization().per_example(step), wrong * entropy(softmax(z, axis=1), axis=1))
    to_uniform = -log_softmax(z, axis=1).mean(1)
    close(ConfidenceMinimization(penalize="confidence").per_example(step), wrong * to_uniform)


@pytest.mark.parametrize(("penalize", "grows"), [("entropy", True), ("confidence", False)])
def test_confidence_minimization_has_the_sign_that_it_documents(model, step, penalize, grows):
    ConfidenceMinimization(penalize=penalize)(step).backward()
    with torch.no_grad():
        wrong = step.output.logits.argmax(1) != step.labels
        before = step.output.logits[wrong].softmax(1).amax(1).mean()
        for parameter in model.parameters():
            parameter -= 0.01 * parameter.grad
        after = model(step.batch).logits[wrong].softmax(1).amax(1).mean()
    assert (after > before) == grows


def test_kl_reference(model, step):
    p, q = (softmax(float64(z.logits) / 2.0, axis=1) for z in (step.reference, step.output))
    close(KLReference().per_example(step), 4 * rel_entr(p, q).sum(1))
    step._reference = step.output
    loss = KLReference(temperature=0.7)(step)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert all(parameter.grad.abs().max() < 1e-6 for parameter in model.parameters())


# --- early-learning regularisation


def test_elr_follows_the_paper(model, step):
    elr = ready(ELR(beta=0.7), model)
    p = softmax(float64(step.output.logits), axis=1).clip(1e-4, 1 - 1e-4)
    target = np.zeros_like(p)
    for _ in range(3):
        elr.update(step)
        target = 0.7 * target + 0.3 * p / p.sum(1, keepdims=True)
    close(elr.targets[step.batch.index], target)
    close(elr.per_example(step), np.log(1 - (target * p).sum(1)))


def test_elr_without_momentum_takes_the_present_prediction(model, step):
    elr = ready(ELR(beta=0.0), model)
    elr.targets.fill_(0.3)
    elr.update(step)
    p = step.output.logits.softmax(1).detach()
    torch.testing.assert_close(elr.targets[step.batch.index], p, atol=2e-4, rtol=0)
    torch.testing.assert_close(elr(step), torch.log(1 - p.square().sum(1)).mean(), atol=1e-3, rtol=0)


def test_elr_moves_only_the_batch(model):
    elr = ready(ELR(), model)
    batch = tiny_batch(size=4)
    elr.update(tiny_step(model, batch))
    assert set(elr.targets.sum(1).nonzero().flatten().tolist()) == set(batch.index.tolist())


def test_elr_starts_without_effect(model, step):
    assert ready(ELR(), model)(step) == 0


# --- SMART

WIDE = {"epsilon": 0.1, "sigma": 0.05, "eta": 0.2}


def test_smart_with_radius_zero_is_zero(model, step):
    loss = ready(SMART(epsilon=0.0), model)(step)
    loss.backward()
    assert loss == 0
    assert all(parameter.grad.abs().max() == 0 for parameter in model.parameters())


def test_smart_finds_worse_noise_than_chance(model):
    def loss(smart):
        return ready(smart, model)(tiny_step(model, tiny_batch())).item()

    still = SMART(**WIDE | {"eta": 1e-12}, mu=0.0)
    once, thrice = SMART(**WIDE, mu=0.0), SMART(**WIDE, steps=3, mu=0.0)
    assert 0 < loss(still) < loss(once) <= loss(thrice) * 1.001


def test_smart_keeps_within_the_radius_and_leaves_gradients_alone(model, step):
    noise = ready(SMART(**WIDE), model)._worst_noise(step, step.output.logits.detach())
    assert noise.abs().max() <= np.float32(0.1)
    assert not noise.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_smart_smoothness_is_the_symmetric_divergence(model, step):
    smart = ready(SMART(**WIDE, mu=0.0), model)
    value = smart.per_example(tiny_step(model, step.batch))
    noise = smart._worst_noise(tiny_step(model, step.batch), step.output.logits.detach())
    moved = step.again(embeddings=step.embeddings() + noise)
    p, q = (softmax(float64(z), axis=1) for z in (step.output.logits, moved.logits))
    close(value, (rel_entr(p, q) + rel_entr(q, p)).sum(1), tolerance=1e-3)


def test_smart_average_follows_the_paper(model):
    smart = ready(SMART(beta=0.9, late_beta=0.99), model)
    expected = {name: parameter.detach().double().clone() for name, parameter in model.named_parameters()}
    for number, (progress, beta) in enumerate([(0.0, 0.9), (0.09, 0.9), (0.1, 0.99), (0.9, 0.99)]):
        move(model, seed=number)
        smart.update(tiny_step(model, tiny_batch(), progress=progress))
        for name, parameter in model.named_parameters():
            expected[name] = beta * expected[name] + (1 - beta) * parameter.detach().double()
    for name, value in expected.items():
        close(smart.get_buffer("average/" + name.replace(".", "/")), value.numpy())


def test_smart_proximal_term_is_the_divergence_from_the_average(model):
    start, batch = tiny_model(), tiny_batch()
    smart = ready(SMART(epsilon=0.0, mu=2.0), model)
    move(model)
    with torch.no_grad():
        p, q = (softmax(float64(each(batch).logits), axis=1) for each in (model, start))
    value = smart.per_example(tiny_step(model, batch))
    close(value, 2 * (rel_entr(p, q) + rel_entr(q, p)).sum(1), tolerance=1e-4)


def test_smart_average_runs_without_dropout_and_restores_the_modes():
    model = tiny_model(dropout=0.5).train()
    model.backbone[1].eval()
    modes = [module.training for module in model.modules()]
    smart = ready(SMART(), model)
    step = tiny_step(model, tiny_batch())
    assert torch.equal(smart._average(step), smart._average(step))
    assert modes == [module.training for module in model.modules()]


def test_smart_without_proximal_term_keeps_no_average(model):
    assert not ready(SMART(mu=0.0), model).state_dict()


# --- FLYP


def normalised(model, step):
    context = tiny_context(model)
    texts = step.again(inputs=context.label_inputs).features
    return tuple(F.normalize(float64_tensor(each), dim=1) for each in (step.output.features, texts))


def float64_tensor(tensor):
    return tensor.detach().double()


def test_flyp_same_example_is_the_loss_of_the_papers_code(model, step):
    images, texts = normalised(model, step)
    pairs = images @ texts[step.labels].T / 0.07
    own = torch.arange(EXAMPLES)
    expected = (F.cross_entropy(pairs, own) + F.cross_entropy(pairs.T, own)) / 2
    value = ready(FLYP(positives="same_example"), model)(step)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    equal = (step.labels[:, None] == step.labels).double()
    spread = equal / equal.sum(1, keepdim=True)
    soft = (F.cross_entropy(pairs, spread) + F.cross_entropy(pairs.T, spread)) / 2
    assert value.item() == pytest.approx(soft.item(), rel=1e-5), "spreading the target changes nothing"


def test_flyp_same_class_leaves_friends_out(model, step):
    images, texts = normalised(model, step)
    scores = (images @ texts.T / 0.07).numpy()
    labels = step.labels.numpy()
    expected = []
    for i, y in enumerate(labels):
        along_texts = np.log(np.exp(scores[i]).sum()) - scores[i, y]
        rivals = [i, *np.flatnonzero(labels != y)]
        along_examples = np.log(np.exp(scores[rivals, y]).sum()) - scores[i, y]
        expected.append((along_texts + along_examples) / 2)
    close(ready(FLYP(), model).per_example(step), expected)


def test_flyp_without_repeated_classes_and_one_text_each_agree(model):
    step = tiny_step(model, tiny_batch(size=len(CLASSES)))
    losses = [ready(FLYP(positives=each), model)(step) for each in ("same_class", "same_example")]
    torch.testing.assert_close(*losses)


def test_flyp_trains_the_text_side_unless_cached(model):
    def gradient(cached):
        model.zero_grad()
        ready(FLYP(cached=cached), model)(tiny_step(model, tiny_batch())).backward()
        return model.backbone[0].weight.grad.clone()

    assert not torch.allclose(gradient(True), gradient(False))
    model.zero_grad()
    flyp = ready(FLYP(), model)
    flyp(tiny_step(model, tiny_batch())).backward()
    assert flyp.logit_scale.grad.abs() > 0
    assert model.head.weight.grad is None


def test_flyp_scale_is_at_most_that_of_clip():
    flyp = FLYP()
    assert flyp.scale.item() == pytest.approx(1 / 0.07)
    nn.init.constant_(flyp.logit_scale, 9.0)
    assert flyp.scale == 100


@pytest.mark.parametrize("cached", [False, True])
def test_flyp_finishes_with_the_zero_shot_head(model, step, cached):
    flyp = ready(FLYP(cached=cached), model)
    images, texts = normalised(model, step)
    flyp.finish(model)
    assert model.normalize
    close(model(step.batch).logits, (images @ texts.T / 0.07).numpy(), tolerance=1e-4)


def test_flyp_leaves_the_head_to_cross_entropy(model):
    before = model.head.weight.clone()
    ready(FLYP(write_head=False), model).finish(model)
    assert torch.equal(before, model.head.weight)
    assert not model.normalize


def test_flyp_needs_texts(model):
    context = tiny_context(model)
    with pytest.raises(RecipeError, match="name in words"):
        FLYP().setup(replace(context, label_inputs=None))
    with pytest.raises(RecipeError, match="one label text"):
        FLYP().setup(replace(context, classes=("a", "b")))


# --- weights


def flat(tensors):
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])


def test_weight_norms_are_autofts(model, step):
    context = tiny_context(model)
    move(model)
    w, w0 = flat(model.parameters()), flat(context.start.values())
    expected = {L1Zero: w.abs(), L2Zero: w**2, L1Start: (w - w0).abs(), L2Start: (w - w0) ** 2}
    for make, terms in expected.items():
        objective = make()
        objective.setup(context)
        assert objective(step).item() == pytest.approx(terms.mean().item(), rel=1e-6)


def test_weight_objectives_leave_frozen_parameters_alone(model, step):
    model.backbone.requires_grad_(False)
    norm = ready(L2Zero(), model)
    accumulate([(norm, 1.0)])
    assert norm.count_ == sum(parameter.numel() for parameter in model.head.parameters())
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert norm(step).item() == pytest.approx((flat(model.head.parameters()) ** 2).mean().item(), rel=1e-6)


def test_l2_sp_pulls_the_backbone_to_the_start_and_the_head_to_zero(model, step):
    context = tiny_context(model)
    term = L2SP(alpha=0.3, beta=0.2)
    term.setup(context)
    accumulate([(term, 1.0)])
    assert all(parameter.grad.abs().max() == 0 for parameter in model.backbone.parameters())
    torch.testing.assert_close(model.head.weight.grad, 0.2 * model.head.weight.detach())
    head = flat(model.head.parameters())
    assert term(step).item() == pytest.approx(0.1 * head.square().sum().item(), rel=1e-6)
    move(model)
    shift = flat(model.backbone.parameters()) - flat(
        value for name, value in context.start.items() if name.startswith("backbone")
    )
    expected = 0.15 * shift.square().sum() + 0.1 * flat(model.head.parameters()).square().sum()
    assert term(step).item() == pytest.approx(expected.item(), rel=1e-5)


class Cubic(WeightObjective):
    """A term that no norm expresses: sum w^4 / 4."""

    def value(self, name, parameter, start):
        return parameter.pow(4).sum() / 4

    def gradient(self, name, parameter, start):
        return parameter.detach() ** 3


def test_accumulate_adds_every_gradient_once(model):
    context = tiny_context(model)
    move(model)
    terms = [(L1Zero(), 2.0), (L2Zero(), 0.5), (L1Start(), 3.0), (L2Start(), 1.5), (L2SP(), 0.7), (Cubic(), 0.1)]
    terms += [(L2Zero(), 0.0), (L1Zero(), 1.0)]
    for term, _ in terms:
        term.setup(context)
    given = {name: torch.randn_like(parameter) for name, parameter in list(model.named_parameters())[1:]}
    for name, parameter in model.named_parameters():
        parameter.grad = given[name].clone() if name in given else None
    accumulate(terms, scale=0.5)
    for name, parameter in model.named_parameters():
        expected = given.get(name, torch.zeros(())).double()
        for term, weight in terms:
            gradient = term.gradient(name, parameter.detach().double(), context.start[name].double())
            expected = expected + 0.5 * weight * gradient
        torch.testing.assert_close(parameter.grad.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", ["flat", "transposed"])
def test_add_norms_over_many_blocks(layout):
    generator = torch.Generator().manual_seed(0)
    shape = (2 * torch.get_num_threads() + 1, BLOCK - 7)  # Three blocks, the last one short.
    gradient, weight, start = (torch.randn(shape, generator=generator) for _ in range(3))
    start[0] = weight[0]
    weight[1, ::2] = 0
    if layout == "transposed":
        gradient = gradient.T.contiguous().T
    norms = Norms(l1=0.3, l2=0.2, l1_start=0.1, l2_start=0.4)
    wide, w0 = weight.double(), start.double()
    expected = gradient.double() + 0.3 * wide.sign() + 0.4 * wide + 0.1 * (wide - w0).sign() + 0.8 * (wide - w0)
    again = gradient.clone()
    add_norms(gradient, weight, start, norms)
    add_norms(again, weight, start, norms)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(gradient, again)


# --- refusals


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (Focal, {"gamma": -1.0}),
        (Focal, {"gamma": float("inf")}),
        (Hinge, {"margin": 0.0}),
        (Hinge, {"violations": "mean"}),
        (LabelSmoothing, {"epsilon": 1.0}),
        (ConfidenceMinimization, {"penalize": "all"}),
        (KLReference, {"temperature": 0}),
        (ELR, {"beta": 1.0}),
        (SMART, {"epsilon": -1e-5}),
        (SMART, {"steps": 0}),
        (SMART, {"steps": 1.5}),
        (SMART, {"beta": 1.0}),
        (FLYP, {"positives": "same"}),
        (FLYP, {"temperature": -0.1}),
        (L2SP, {"alpha": -1.0}),
        (L2SP, {"beta": "0.1"}),
    ],
)
def test_bad_hyperparameters_are_refused_at_once(make, options):
    with pytest.raises(RecipeError, match=f"`{next(iter(options))}`"):
        make(**options)
