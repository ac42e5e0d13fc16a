"""Documents with sections and links that every machine here has: docstrings of installed libraries, "See Also" included."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

#: Where documented functions are looked for; of classes, their methods too. None of them is searched by a track.
PLACES = {
    "pandas": ("pandas", "pandas.DataFrame", "pandas.Series", "pandas.Index", "pandas.api.types"),
    "networkx": ("networkx",),
}
#: Sections of numpydoc that speak of the function; examples are code.
_TOLD = ("", "Parameters", "Returns", "Notes", "Raises")
_UNDERLINE = re.compile(r"^(?P<name>[A-Z][A-Za-z ]+)\n-{3,}\s*$", re.MULTILINE)
_NAMED = re.compile(r"^(?:\S*:`)?([\w.]+)`?(?:\s*,\s*|\s*:|\s*$)", re.MULTILINE)


@cache
def documents() -> tuple[dict[str, Any], ...]:
    """Functions as documents, sorted by `id` (library.name): `title` (the name in words), `summary` (the first sentence),
    `text`, `sections`, `links` and `cites` (the ids of what they say to see also)."""
    found: dict[str, dict[str, Any]] = {}
    for library, places in PLACES.items():
        for name, thing in _public(places):
            if (document := _document(library, name, thing)) is not None:
                found.setdefault(document["id"], document)
    for document in found.values():
        document["links"] = document["cites"] = [each for each in document["links"] if each in found]
    return tuple(found[name] for name in sorted(found))


def _public(places: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for place in places:
        module, _, attribute = place.rpartition(".")
        holder = getattr(importlib.import_module(module), attribute, None) if module else None
        holder = holder if inspect.isclass(holder) else importlib.import_module(place)
        for name in dir(holder):
            thing = getattr(holder, name, None)
            if not name.startswith("_") and callable(thing) and not inspect.ismodule(thing):
                yield name, thing


def _document(library: str, name: str, thing: Any) -> dict[str, Any] | None:
    text = inspect.getdoc(thing) or ""
    parts = _UNDERLINE.split(text)
    sections = {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=False))}
    head, _, rest = sections[""].partition("\n\n")
    summary = " ".join(head.split())
    told = [" ".join(sections[each].split()) for each in _TOLD[1:] if sections.get(each, "").strip()]
    if len(summary.split()) < 4 or not told:
        return None
    body = [" ".join(each.split()) for each in rest.split("\n\n") if each.strip()]
    names = _NAMED.findall(sections.get("See Also", ""))
    return {
        "id": f"{library}.{name}",
        "title": " ".join(re.sub(r"([a-z])([A-Z])", r"\1 \2", name).replace("_", " ").lower().split()),
        "summary": summary,
        "text": "\n\n".join([summary, *body]),
        "sections": [summary, *body, *told],
        "links": list(dict.fromkeys(f"{library}.{each.rpartition('.')[2]}" for each in names)),
    }
