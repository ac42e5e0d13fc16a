"""The demo end to end with the real model on the real reviews, small."""

from __future__ import annotations

import json

import pytest

from command_line import surefoot
from surefoot.models.model import Model


def test_the_demo_prints_every_method_on_every_domain(minilm: Model) -> None:
    result = surefoot("demo", "--train-size", 96, "--test-size", 40, "--seeds", 2, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert set(found["accuracy"]) == {"linear_probe", "fine_tune", "lp_ft", "wise_ft"}
    for by in found["accuracy"].values():
        assert set(by) == {"movies", "amazon", "tweets", "nyt"}
        assert all(0 <= each["low"] <= each["value"] <= each["high"] <= 1 for each in by.values())
    assert found["seeds"] == [0, 1]
    probe = found["accuracy"]["linear_probe"]
    assert sum(each["value"] for each in probe.values()) / 4 == pytest.approx(0.7, abs=0.12)
