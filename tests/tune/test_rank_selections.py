"""AdaLoRA and BOFT: against `peft` where it computes them, and by their formulas; what of `peft` is refused, and how."""

from __future__ import annotations

import pytest
import torch
from small_training import train
from test_injected_selections import gpt2, merged, pick
from test_peft_selections import answers, batch, bert
from torch import nn

from surefoot import Recipe
from surefoot.errors import RecipeError
from surefoot.tune.selections.adalora import AdaLoRA, Singular, crooked
from surefoot.tune.selections.boft import BOFT, Butterfly, fitting, order
from surefoot.tune.selections.refused import REFUSED


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tensors this small only wait for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_adalora_is_its_formula():
    """W' = W + (alpha / r_init) P diag(lambda) Q, in float64."""
    before, trained, after = merged(AdaLoRA(r=2, r_init=4, alpha=6))
    expected = before + 1.5 * (pick(trained, "0.p") * pick(trained, "0.values")) @ pick(trained, "0.q")
    torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(after, before, atol=1e-4)


def test_adalora_allots_as_peft_does():
    """The public implementation run side by side: peft's RankAllocator on the same weights and gradients, ten steps."""
    peft = pytest.importorskip("peft")
    from peft.tuners.adalora.layer import RankAllocator

    model, other = bert(), bert()
    selection = AdaLoRA(
        r=2, r_init=4, alpha=8, warmup=0.2, cooldown=0.3, orthogonality=0.0, target_modules=["query", "output.dense"]
    )
    selection.apply(model)
    parts = {name: part for name, part in model.named_modules() if isinstance(part, Singular)}
    targets = [name.removesuffix(".parametrizations.weight.0") for name in parts]
    config = peft.AdaLoraConfig(
        target_r=2, init_r=4, tinit=2, tfinal=3, deltaT=1, total_step=10, lora_alpha=8, target_modules=targets
    )
    peft.inject_adapter_in_model(config, other)
    allocator = RankAllocator(other, config, "default")
    theirs = dict(other.named_parameters())
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 11):
        for name, part in zip(targets, parts.values(), strict=True):
            for mine, their in (("p", "B"), ("q", "A"), ("values", "E")):
                parameter, twin = part.get_parameter(mine), theirs[f"{name}.lora_{their}.default"]
                gradient = torch.randn(parameter.shape, generator=generator)
                with torch.no_grad():
                    parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
                    twin.copy_(parameter.view(twin.shape))
                parameter.grad, twin.grad = gradient, gradient.view(twin.shape)
        selection.after_step(model, step=step, steps=10)
        budget, _ = allocator.update_and_allocate(other, step)
        assert budget == selection.budget(step, 10, layers=len(parts))
        left = 0
        for name, part in zip(targets, parts.values(), strict=True):
            their_values = theirs[f"{name}.lora_E.default"].detach().flatten()
            torch.testing.assert_close(part.values.detach(), their_values)
            left += int((part.values != 0).sum())
        assert left == budget
    assert left == 2 * len(parts)


def test_adaloras_penalty_has_the_gradient_that_autograd_finds():
    """Float64: d / dQ of ||Q Q^T - I||_F^2, and that both hooks add it."""
    q = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    (q @ q.T - torch.eye(3, dtype=torch.float64)).square().sum().backward()
    torch.testing.assert_close(crooked(q.detach()), q.grad)
    part = Singular(nn.Linear(7, 5), r=3, scale=1.0, orthogonality=0.1)
    part(torch.zeros(5, 7)).sum().backward()
    p, q = (each.detach().clone().requires_grad_() for each in (part.p, part.q))
    ((p.T @ p - torch.eye(3)).square().sum() + (q @ q.T - torch.eye(3)).square().sum()).mul(0.1).backward()
    torch.testing.assert_close(part.p.grad, p.grad)  # lambda is zero, so that the penalty is all
    torch.testing.assert_close(part.q.grad, q.grad)


@pytest.mark.parametrize(("d", "block_size", "factors"), [(16, 4, 1), (16, 4, 2), (16, 4, 3), (24, 6, 2), (32, 8, 3)])
def test_boft_is_the_product_of_explicit_butterfly_factors(d, block_size, factors):
    """Float64: W R_m ... R_1 from full matrices; the first two gather as peft's permutations do, and R is orthogonal."""
    layer = pytest.importorskip("peft.tuners.boft.layer").BOFTLayer
    part = Butterfly(d, block_size, factors).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        part.angles.copy_(torch.randn(part.angles.shape, generator=generator, dtype=torch.float64))
    above = torch.triu_indices(block_size, block_size, 1)
    rotation = torch.eye(d, dtype=torch.float64)
    for level in range(factors):
        blocks = []
        for angles in part.angles[level].detach():
            q = torch.zeros(block_size, block_size, dtype=torch.float64)
            q[above[0], above[1]] = angles
            q = q - q.T
            identity = torch.eye(block_size, dtype=torch.float64)
            blocks.append((identity + q) @ torch.linalg.inv(identity - q))
        gather = torch.eye(d, dtype=torch.float64)[:, order(d, block_size, level)]
        rotation = gather @ torch.block_diag(*blocks) @ gather.T @ rotation
        if level < 2:
            theirs = layer.block_butterfly_perm(None, d, d // block_size // 2**level, block_size // 2, factors)
            mine = order(d, block_size, level).view(-1, block_size).sort(1).values
            assert {tuple(row) for row in mine.tolist()} == {
                tuple(row) for row in theirs.view(-1, block_size).sort(1).values.tolist()
            }
    weight = torch.randn(5, d, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(part(weight).detach(), weight @ rotation)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(d, dtype=torch.float64))
    if d == block_size * 2 ** (factors - 1):  # every input reaches every output
        assert (rotation.abs() > 1e-9).all()


def test_boft_keeps_angles_and_starts_at_the_pretrained_model_to_the_bit():
    before, _, after = merged(BOFT(block_size=4))
    torch.testing.assert_close(after @ after.T, before @ before.T, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(after, before, atol=1e-3)
    weight = torch.randn(3, 16)
    assert torch.equal(Butterfly(16, 4, 3)(weight), weight)


@pytest.mark.parametrize("selection", [AdaLoRA(r=2, r_init=3), BOFT(block_size=4)], ids=repr)
def test_gpt2s_transposed_layers_are_merged(selection):
    model = gpt2()
    selection.apply(model)
    train(model, batch())
    before = answers(model)
    selection.finish(model)
    torch.testing.assert_close(answers(model), before, rtol=0, atol=1e-5)


def test_blocks_fit():
    assert fitting(384, 8, 2, layer="x") == (8, 2)
    assert fitting(6, 8, 2, layer="x") == (6, 1)
    assert fitting(24, 10, 3, layer="x") == (6, 3)
    with pytest.raises(RecipeError, match="the 13 inputs of `x` cannot be cut"):
        fitting(13, 8, 2, layer="x")


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_not_here_says_what_to_use(name):
    with pytest.raises(RecipeError, match=f"`{name}` is not here: .*: choose `") as caught:
        Recipe(selection=name)
    suggested = str(caught.value).rpartition("choose `")[2].partition("`")[0]
    Recipe(selection=suggested)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdaLoRA(r=9, r_init=8), "the rank at the start must be at least"),
        (lambda: AdaLoRA(warmup=0.6, cooldown=0.5), "together they must stay below 1"),
        (lambda: AdaLoRA(orthogonality=-1), "`orthogonality` is -1"),
        (lambda: AdaLoRA(target_modules=["querry"]).apply(bert()), "did you mean `query`"),
        (lambda: BOFT(block_size=1), "`block_size` is 1"),
        (lambda: BOFT(factors=0), "`factors` is 0"),
        (lambda: BOFT(layers=9).apply(bert()), "the model has 3"),
    ],
)
def test_errors(make, message):
    with pytest.raises(RecipeError, match=message):
        make()
