"""Recipes: published combinations of parts, one YAML file each, with the paper in the file."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from surefoot.errors import RecipeError, nearest
from surefoot.registry import Method, Paper, add


class _Loader(yaml.SafeLoader):
    """YAML in which `5e-5` is a number, as in YAML 1.2; PyYAML follows 1.1, to which it is a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; nothing in it is run."""
    return yaml.load(path.read_text("utf8"), _Loader)


@cache
def _all() -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.yaml")):
        content = read_yaml(path)
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
