"""Recipes: published combinations of parts, one YAML file each, with the paper in the file."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from surefoot.errors import RecipeError, nearest
from surefoot.registry import Method, Paper, add


@cache
def _all() -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.yaml")):
        content = yaml.safe_load(path.read_text("utf8"))
        found[path.stem] = content
        papers = tuple(Paper(**paper) for paper in content["papers"])
        add(Method(path.stem, "recipe", content["family"], path, content["summary"], f"{__name__}/{path.name}", papers))
    return found


def read(name: str) -> dict[str, Any]:
    """The fields of a registered recipe."""
    if name not in _all():
        raise RecipeError(f"unknown recipe `{name}`: {nearest(name, _all())}")
    return {**_all()[name]["recipe"], "name": name}


_all()
