"""The tables of docs/embed.md and README.md are what the benchmarks wrote."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def embedding_page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    monkeypatch.delitem(sys.modules, "embedding_page", raising=False)
    return importlib.import_module("embedding_page")


def test_the_pages_have_what_was_measured(embedding_page: ModuleType) -> None:
    for each in embedding_page.PAGES:
        written = each.read_text("utf8")
        assert "<!-- embedding tuning:" in written
        assert embedding_page.page(written) == written, f"{each}: run `make readme`"


def test_a_figure_that_changes_changes_its_page(embedding_page: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """What plain tuning loses is said as it is: nothing, or a share of it."""
    found = embedding_page.read("embedding_tuning")
    found["summary"] |= {"share_of_away_loss": 0.2, "share_of_home_gain": 0.913}
    monkeypatch.setattr(embedding_page, "read", lambda name: found)
    assert "keeps 91% (" in embedding_page.tuning()
    assert "has 20% of its loss away" in embedding_page.tuning()
    found["summary"]["share_of_away_loss"] = None
    assert "loses nothing away" in embedding_page.tuning()


def test_what_was_not_measured_is_called_so(embedding_page: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_page, "read", lambda name: {})
    pages = [embedding_page.page(each.read_text("utf8")) for each in embedding_page.PAGES]
    assert [each.count("Not measured yet.") for each in pages] == [4, 1]
