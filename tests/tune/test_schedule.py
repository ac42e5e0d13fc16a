"""Schedules: 1cycle against torch's own, where momentum goes, and what cannot be."""

from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from conftest import examples
from surefoot import Recipe
from surefoot.errors import RecipeError
from surefoot.models.model import Model
from surefoot.tune.fit import Fit
from surefoot.tune.schedule import momentum_at, rate_factor, set_rates

FORMS = {
    "one_cycle": {"three_phase": True, "anneal_strategy": "linear"},
    "one_cycle_cosine": {"three_phase": False, "anneal_strategy": "cos"},
}


@pytest.mark.parametrize("total", [20, 63, 100])
@pytest.mark.parametrize("rise", [0.1, 0.3, 0.45, 0.5])
@pytest.mark.parametrize("name", FORMS)
def test_one_cycle_is_torchs_own(name: str, rise: float, total: int) -> None:
    """Rate and momentum of every step against `torch.optim.lr_scheduler.OneCycleLR` (2.13), to 1e-12."""
    if name == "one_cycle" and 2 * rise * total - 2 >= total - 1:
        pytest.skip("torch divides by zero where no step is left for the end")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.3, momentum=0.9)
    schedule = OneCycleLR(optimizer, 0.3, total_steps=total, pct_start=rise, **FORMS[name])
    for step in range(total):
        group = optimizer.param_groups[0]
        assert abs(0.3 * rate_factor(name, step, total, warmup=rise) - group["lr"]) < 1e-12
        assert abs(momentum_at(name, step, total, warmup=rise) - group["momentum"]) < 1e-12
        optimizer.step()
        if step < total - 1:
            schedule.step()


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("total", [1, 2, 3, 5])
def test_a_training_of_a_few_steps_has_rates_all_the_same(name: str, total: int) -> None:
    for step in range(total):
        assert 0 < rate_factor(name, step, total) <= 1
        assert 0.85 <= momentum_at(name, step, total) <= 0.95


def test_groups_keep_their_proportions_and_momentum_goes_where_there_is_some() -> None:
    groups = [{"lr": 0.0, "betas": (0.9, 0.999)}, {"lr": 0.0, "momentum": 0.9}, {"lr": 0.0, "momentum": 0}, {"lr": 0.0}]
    set_rates(groups, [1.0, 2.0, 3.0, 4.0], "one_cycle", 4, 10, warmup=0.5)
    assert [group["lr"] for group in groups] == [1.0, 2.0, 3.0, 4.0]
    assert groups[0]["betas"] == (pytest.approx(0.85), 0.999)
    assert groups[1]["momentum"] == pytest.approx(0.85)
    assert groups[2]["momentum"] == 0
    before = {"lr": 0.0, "betas": (0.9, 0.999)}
    set_rates([before], [1.0], "linear", 0, 10, warmup=0.0)
    assert before["betas"] == (0.9, 0.999), "other schedules leave it alone"


def test_a_recipe_trains_by_it(tiny_bert: Model) -> None:
    fit = Fit(Recipe.named("one_cycle", epochs=2, batch_size=8, precision="float32"), tiny_bert, examples(80))
    seen: list[tuple[float, float]] = []
    plain = fit.before_step

    def watched() -> None:
        plain()
        seen.append((fit.optimizer.param_groups[0]["lr"], fit.optimizer.param_groups[0]["betas"][0]))

    fit.before_step = watched  # type: ignore[method-assign]
    fit.run()
    assert seen == [
        (pytest.approx(5e-5 * rate_factor("one_cycle", step, 20)), pytest.approx(momentum_at("one_cycle", step, 20)))
        for step in range(20)
    ]
    assert max(seen)[0] == pytest.approx(5e-5)


def test_a_cycle_that_does_not_fit_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"must be 0\.5 at most"):
        Recipe(schedule="one_cycle", warmup=0.6)
    assert Recipe(schedule="one_cycle_cosine", warmup=0.6).warmup == 0.6
