"""Which embedding model a budget pays for, and how much of its width a language model uses: against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from surefoot.assess.analyses.compute_optimal import ComputeOptimal, training_flops
from surefoot.assess.analyses.representation_deficiency import RepresentationDeficiency, numerical_rank
from surefoot.errors import DataError, RecipeError

#: Blocks, width: a ladder like Pythia's.
LADDER = ((6, 128), (6, 256), (6, 512), (12, 768), (24, 1024))
BUDGETS = 10.0 ** np.arange(14, 20)


def runs() -> dict:
    """Of every budget, method and model one run. Full: 40 C^-0.1; LoRA: 400 C^-0.15, so that they meet at C = 10^20;
    both are reached where the width is 128 at 10^14 and grows to 1,024 at 10^19, and missed by 20% for each doubling."""
    found: dict[str, list] = {name: [] for name in ("method", "layers", "width", "trained", "tokens", "loss")}
    for method, scale, slope in (("full", 40.0, -0.1), ("lora", 400.0, -0.15)):
        for budget in BUDGETS:
            for layers, width in LADDER:
                best = 128 * (budget / 1e14) ** (np.log(8) / np.log(1e5))
                loss = scale * budget**slope * 1.2 ** abs(np.log2(_nearest(best) / width))
                tokens = budget / float(training_flops(tokens=1.0, width=width, layers=layers, trained=layers))
                for name, value in zip(found, (method, layers, width, layers, tokens, loss), strict=True):
                    found[name].append(value)
    return found


def _nearest(width: float) -> float:
    """Of the ladder's widths, as a ratio."""
    widths = np.array([each for _, each in LADDER], dtype=float)
    return float(widths[np.abs(np.log(widths / width)).argmin()])


def test_computation_is_the_authors():
    """Against the figures of their `calculate_given_budget`: GPT-2, trained whole on 10^9 tokens, is one unit; what a
    quarter of a unit pays for with four of 24 blocks of width 1,024."""
    unit = training_flops(tokens=1.0, width=768, layers=12, trained=12)
    assert unit == 3 * 12 * 768**3
    tokens = 0.25 * (3 * 12 * 768**3) / (2 * 4 + 24) / 1024**3
    assert training_flops(tokens=tokens, width=1024, layers=24, trained=4) == pytest.approx(0.25 * unit)


def test_power_laws_are_found_again():
    """Closed form: log-log lines of known slopes, and where they cross."""
    found = ComputeOptimal()(**runs(), budget=1e16)
    assert found.lines["full"]["slope"] == pytest.approx(-0.1)
    assert np.exp(found.lines["lora"]["intercept"]) == pytest.approx(400.0)
    assert found.lines["lora"]["r2"] == pytest.approx(1.0)
    crossing = (400 / 40) ** (1 / 0.05)
    assert [each["method"] for each in found.changes] == ["full", "lora"]
    assert found.changes[1]["from"] == pytest.approx(crossing)
    assert found.method == "full"
    assert found.loss == pytest.approx(40 * 1e16**-0.1)
    assert ComputeOptimal()(**runs(), budget=10 * crossing).method == "lora"


@pytest.mark.parametrize("held_out", [1e16, 1e17, 1e18, 1e19])
def test_a_budget_that_was_never_run_gets_the_model_that_is_best_there(held_out):
    """Against all runs at that budget, which the lines have not seen: the choice is the best of them, or within 3%."""
    table = {name: np.array(each) for name, each in runs().items()}
    spent = training_flops(**{name: table[name] for name in ("tokens", "width", "layers", "trained")})
    there = np.isclose(spent, held_out)
    found = ComputeOptimal()(**{name: each[~there] for name, each in table.items()}, budget=held_out)
    own = there & (table["method"] == found.method) & (table["width"] == found.width)
    assert table["loss"][own][0] <= 1.03 * table["loss"][there].min()
    assert table["tokens"][own][0] == pytest.approx(found.tokens)
    assert found.loss == pytest.approx(table["loss"][there].min(), rel=1e-6)


def test_three_methods_and_the_envelope_between_them():
    """The lowest of the lines at many budgets, one by one."""
    rng = np.random.default_rng(3)
    table: dict[str, list] = {name: [] for name in ("method", "layers", "width", "trained", "tokens", "loss")}
    for number, slope in enumerate((-0.05, -0.1, -0.2, -0.12)):
        for tokens in (1e6, 1e8):
            c = float(training_flops(tokens=tokens, width=64, layers=4, trained=number))
            loss = (c / 1e13) ** slope * rng.uniform(0.9, 1.1)
            for name, value in zip(table, (f"m{number}", 4, 64, number, tokens, loss), strict=True):
                table[name].append(value)
    for budget in 10.0 ** np.arange(6, 24):
        found = ComputeOptimal()(**table, budget=budget)
        reached = [each["method"] for each in found.changes if each["from"] <= budget]
        assert found.method == reached[-1]


def test_runs_that_say_nothing():
    table = runs()
    one = {name: each[:5] for name, each in table.items()}
    for call, says in (
        ({**table, "budget": 0.0}, "budget 0.0"),
        ({**table, "budget": 1e16, "loss": table["loss"][:-1]}, "one value of each"),
        ({**one, "budget": 1e16}, "two budgets"),
    ):
        with pytest.raises(DataError, match=says):
            ComputeOptimal()(**call)
    with pytest.raises(RecipeError, match="exponent"):
        ComputeOptimal(exponent=0.0)


def test_ranks_are_those_of_states_that_were_made_with_them():
    """Closed form: words in 5 of 12 directions, masks in 2 of those and 3 others, of like size."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    words = rng.normal(size=(500, 5)) @ basis[:5]
    masks = rng.normal(size=(300, 5)) @ basis[[0, 1, 9, 10, 11]]
    found = RepresentationDeficiency()(words=words, masks=masks)
    assert (found.word_rank, found.mask_rank, found.both_rank, found.width) == (5, 5, 8, 12)
    assert found.mask_only == pytest.approx(0.6, abs=0.05)
    assert RepresentationDeficiency()(words=words, masks=words[:100]).mask_only == pytest.approx(0.0, abs=1e-12)


def test_rank_is_the_least_that_keeps_all_but_epsilon():
    """Against the definition, by trying every k."""
    states = np.random.default_rng(1).normal(size=(60, 20)) * np.geomspace(1, 1e-3, 20)
    left, values, right = np.linalg.svd(states, full_matrices=False)
    for epsilon in (0.5, 0.1, 0.01, 1e-4):
        lost = [float(((states - (left[:, :k] * values[:k]) @ right[:k]) ** 2).sum()) for k in range(21)]
        least = next(k for k, each in enumerate(lost) if each <= epsilon * (states**2).sum())
        assert numerical_rank(states, epsilon) == least
    with pytest.raises(RecipeError, match="epsilon"):
        RepresentationDeficiency(epsilon=0.0)
    with pytest.raises(DataError, match="width 3 and 4"):
        RepresentationDeficiency()(words=np.ones((2, 3)), masks=np.ones((2, 4)))
    with pytest.raises(DataError, match="zeros"):
        RepresentationDeficiency()(words=np.ones((2, 3)), masks=np.zeros((2, 3)))
