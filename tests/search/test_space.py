"""What a search draws from a bank of methods of any kind: conditions, layers, halving, warm starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from small_search import examples, search

from command_line import one_thread, refused
from surefoot.errors import RecipeError, RunError
from surefoot.models.load import load
from surefoot.registry import get
from surefoot.search.bank import AUTOFT, WIDE, Bank
from surefoot.search.journal import Ledger
from surefoot.search.space import propose
from surefoot.search.warm import best_draws, fitting
from surefoot.tune.fit import Fit
from surefoot.tune.recipe import Recipe

#: Of the bank below, the objectives of which a draw takes one or none.
SWITCHED = {"smart", "elr", "focal", "ps_kd", "i_star", "kl_reference"}
STARTS = {name: Recipe.named(name) for name in ("zero_head", "lp_ft", "flyp")}


@pytest.fixture(autouse=True)
def _quiet():  # type: ignore[no-untyped-def]
    with one_thread():
        yield


def drawn(bank: Bank, count: int, **options: Any) -> list[tuple[Any, str, Recipe]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    found = []
    for _ in range(count):
        trial = study.ask()
        found.append((trial, *propose(trial, STARTS, bank=bank, **options)))
    return found


def test_every_draw_of_the_wide_bank_is_a_recipe_and_has_what_was_drawn() -> None:
    used: set[str] = set()
    for trial, start, recipe in drawn(Bank.of(["wide", "group_dro", "i_star", "kl_reference"]), 150):
        params = trial.params
        optimizer, selection = recipe.optimizer["name"], recipe.selection["name"]
        used |= {optimizer, selection, recipe.reducer["name"], *recipe.objectives}
        assert optimizer == params.get("optimizer", "adamw")
        assert ("optimizer" in params) == params["other.optimizer"]
        assert ("sam.rho" in params) == (optimizer == "sam")
        assert ("lora.r" in params) == (selection == "lora")
        assert ("layers" in params) == (selection == "top_layers")
        assert ("weight.smart" in params) == ("smart" in recipe.objectives) == (params.get("objective") == "smart")
        assert SWITCHED & set(recipe.objectives) <= {params.get("objective")}
        assert "kl_reference" not in recipe.objectives or start == "lp_ft", "only a probe has answers to compare with"
        if start == "flyp":
            assert all(name == "flyp" or get("objective", name).make.acts_on == "weights" for name in recipe.objectives)
    assert {*WIDE, "adamw", "top_layers", "group_dro", "mean"} <= used


def test_half_of_the_draws_keep_what_is_usual_and_rates_suit_what_trains() -> None:
    found = drawn(Bank.of(["wide", "adamw", "top_layers"]), 200, layers=(2, 4))
    for kind in ("objective", "optimizer", "selection"):
        usual = [trial for trial, start, _ in found if start != "flyp" and not trial.params[f"other.{kind}"]]
        count = sum(start != "flyp" for _, start, _ in found)
        assert abs(len(usual) - count / 2) < 4 * (count / 4) ** 0.5, kind
    assert all(trial.params.get("optimizer") != "adamw" for trial, *_ in found), "the usual is not drawn twice"
    for trial, _, recipe in found:
        optimizer = recipe.optimizer.get("inner", recipe.optimizer)
        if optimizer["name"] == "adamw":
            times = 10 if recipe.selection["name"] == "lora" else 1
            assert optimizer["lr"] == pytest.approx(times * trial.params["lr"])
        assert ("weight_decay" in trial.params) == (recipe.optimizer["name"] != "lion"), "Lion draws its own"


def test_autofts_bank_is_drawn_as_before() -> None:
    for trial, start, _ in drawn(Bank.of(["autoft"]), 6):
        names = [name for name in AUTOFT[1:] if start != "flyp" or name.startswith(("l1", "l2"))]
        weights = [f"weight.{name}" for name in names]
        options = {f"{name}.{option}" for name in names for option in get("objective", name).make.space()}
        assert [each for each in trial.params if each not in options] == [
            "start",
            *weights,
            "lr",
            "weight_decay",
            "layers",
        ]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "the bank is empty"),
        (["smrt"], "the bank has no `smrt`: did you mean `smart`"),
        (["focal", "adapter"], "`adapter` of the bank puts parts into the model that stay there"),
        (["optimizer/smart"], "unknown optimizer `smart`"),
    ],
)
def test_a_bank_that_cannot_be_drawn_from_is_refused(names: list[str], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Bank.of(names)


def test_groups_that_are_not_there_are_said_before_the_search(bert_folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"`group_dro` of the bank needs groups"):
        search(str(bert_folder), bank=("autoft", "group_dro"))


# --- layers


def test_layers_learn_at_rates_of_their_own(bert_folder: Path) -> None:
    """Side by side with torch.optim.SGD over groups of its own, and a factor of 0 against the layers below frozen."""
    model = load(str(bert_folder))
    plain = {
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0},
        "epochs": 1,
        "batch_size": 16,
        "schedule": "constant",
    }
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit = Fit(Recipe(**plain, layerwise={"lr": [1.0, 0.5, 0.0]}), model, examples(16, 3))
    rates = {fit.model.height(name): 0.1 * [1.0, 0.5, 0.0, 0.0][fit.model.height(name)] for name in fit.trained}
    twin = {name: parameter.detach().clone().requires_grad_() for name, parameter in fit.trained.items()}
    sgd = torch.optim.SGD([{"params": [twin[n]], "lr": rates[fit.model.height(n)]} for n in twin], lr=0.1)
    trained = fit.run()
    probe = Fit(Recipe(**plain), model, examples(16, 3))
    probe.model.train()
    closure = probe._closure(next(iter(probe._batches(0))), 0)
    closure(True)
    for name, parameter in probe.trained.items():
        twin[name].grad = parameter.grad
    sgd.step()
    assert set(rates) == {0, 1, 2, 3}, "head, two layers, embeddings"
    for name, value in trained.state_dict().items():
        if name in twin:
            torch.testing.assert_close(value, twin[name].detach(), rtol=1e-6, atol=1e-7)
        if name in before and rates.get(fit.model.height(name)) == 0.0:
            assert torch.equal(value, before[name])


def test_factors_of_one_change_nothing(bert_folder: Path) -> None:
    plain = {"epochs": 1, "batch_size": 16, "objectives": {"cross_entropy": 1.0, "l2_start": 0.5}}
    layered = {**plain, "objectives": {"cross_entropy": 1.0, "l2_start": {"weight": 0.5, "by_layer": [1.0, 1.0]}}}
    model = load(str(bert_folder))
    one = Fit(Recipe(**plain), model, examples(48, 3)).run().state_dict()
    two = Fit(Recipe(**layered, layerwise={"lr": [1.0, 1.0]}), model, examples(48, 3)).run().state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_norms_weigh_each_layer_by_its_factor(bert_folder: Path) -> None:
    """d/dw of sum_l c_l ||w_l||^2 / P, in closed form: 2 c_l w / P."""
    factors = [0.0, 2.0, 0.5]
    objectives = {"cross_entropy": 1e-12, "l2_zero": {"weight": 1.0, "by_layer": factors}}
    fit = Fit(Recipe(objectives=objectives, epochs=1), load(str(bert_folder)), examples(16, 3))
    fit._closure(next(iter(fit._batches(0))), 0)(True)
    count = sum(parameter.numel() for parameter in fit.trained.values())
    for name, parameter in fit.trained.items():
        wanted = 2 * factors[min(fit.model.height(name), 2)] * parameter.detach() / count
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("layerwise", "words"),
    [
        ({"rate": [1.0]}, "`layerwise` has no `rate`"),
        ({"lr": []}, "list factors from the head downwards"),
        ({"lr": [1.0, -1.0]}, r"`layerwise.lr\[1\]` is -1.0"),
        ([1.0], "write factors"),
    ],
)
def test_bad_factors_are_refused(layerwise: object, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Recipe(layerwise=layerwise)


def test_a_recipe_without_layers_of_its_own_is_the_recipe_it_was() -> None:
    assert "layerwise" not in Recipe().model_dump()
    layered = Recipe(layerwise={"lr": [1.0, 0.9]})
    assert Recipe(**layered.model_dump()) == layered
    assert layered.fingerprint != Recipe().fingerprint


def test_per_layer_draws_a_factor_for_each(bert_folder: Path) -> None:
    for _, start, recipe in drawn(Bank.of(["autoft"]), 8, layers=(1, 2), per_layer=True):
        assert recipe.layerwise.keys() == {"lr", "weight_decay"}
        assert all(len(each) == 3 and each[0] == 1.0 for each in recipe.layerwise.values())
        assert len(recipe.objectives["l2_start"]["by_layer"]) == 3, start
    found = search(str(bert_folder), per_layer=True)
    assert any("lr.layer2" in entry.params for entry in found.trials)


# --- halving and warm starts


def test_halving_keeps_the_best_third_of_each_rung() -> None:
    """The rule of Li et al. 2020: go on if among the best floor(n / 3) of the n that reached the rung, or the best."""
    ledger = Ledger(None, seed=0, pruner="halving")
    values, reached = [5.0, 3.0, 4.0, 1.0, 6.0, 2.0, 0.5, 7.0, 1.5], list[float]()
    for value in values:
        asked = ledger.ask()
        asked.trial.suggest_float("x", 0.0, 1.0)
        asked.report(1, value)
        reached.append(value)
        goes_on = value <= sorted(reached)[max(len(reached) // 3, 1) - 1]
        assert asked.should_prune() != goes_on
        ledger.tell(asked, value if goes_on else None, pruned=not goes_on)


def test_a_search_by_halving_gives_draws_up_within_the_first_epoch(bert_folder: Path) -> None:
    found = search(str(bert_folder), trials=12, pruner="halving", epochs=3)
    reasons = [entry.attrs["reason"] for entry in found.trials if entry.state == "pruned"]
    assert reasons
    assert all("not in the best third after" in reason for reason in reasons)
    again = search(str(bert_folder), trials=12, pruner="halving", epochs=3)
    assert [entry.params for entry in again.trials] == [entry.params for entry in found.trials]


def test_the_best_draws_of_an_earlier_search_come_first(bert_folder: Path, tmp_path: Path) -> None:
    first = search(str(bert_folder), tmp_path / "first", trials=9)
    best = best_draws(tmp_path / "first", most=2)
    scores = {tuple(entry.params.items()): entry.value for entry in first.trials if entry.params}
    assert scores[tuple(best[0].items())] == min(value for value in scores.values() if value is not None)
    second = search(str(bert_folder), trials=8, seed=11, warm_start=tuple(best))
    assert [entry.params for entry in second.trials[6:8]] == best
    narrow = search(str(bert_folder), trials=7, starts=("fine_tune", "linear_probe"), warm_start=tuple(best))
    assert any("2 of the 2 draws to start from lie outside" in note for note in narrow.notes)


def test_a_draw_is_taken_as_far_as_this_search_asks_for_it() -> None:
    def ask(trial: Any) -> None:
        if trial.suggest_categorical("optimizer", ["adamw", "sam"]) == "sam":
            trial.suggest_float("sam.rho", 0.01, 0.5, log=True)
        trial.suggest_int("layers", 1, 4)

    earlier = [{"optimizer": "sam", "sam.rho": 0.1, "lr": 1.0}, {"optimizer": "lion"}, {"layers": 9}, {"lr": 1.0}]
    assert fitting(earlier, ask) == [{"optimizer": "sam", "sam.rho": 0.1}]


def test_a_folder_without_a_finished_search_cannot_start_one(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no finished search to start from"):
        best_draws(tmp_path)
    (tmp_path / "search.json").write_text(
        json.dumps({"leaderboard": [{"state": "complete", "params": {}, "value": 1}]})
    )
    with pytest.raises(RunError, match="none of its 1 trials was drawn"):
        best_draws(tmp_path)


def test_the_command_line_says_what_is_wrong_with_a_bank(bert_folder: Path, tmp_path: Path) -> None:
    for name, count in (("train", 80), ("shop", 40)):
        texts = examples(count, len(name))
        rows = [f"{text},{texts.classes[label]}" for text, label in zip(texts.inputs, texts.labels, strict=True)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    start = ["tune", "--model", bert_folder, "--train", tmp_path / "train.csv", "--judge", tmp_path / "shop.csv"]
    out = tmp_path / "run"
    refused([*start, "--out", out, "--bank", "smart,l2_spp"], ["the bank has no `l2_spp`"], out=out)
    refused([*start, "--out", out, "--warm-start", tmp_path], ["no finished search to start from"], out=out)
    refused([*start, "--out", out, "--pruner", "luck"], ["pruner"], out=out)
