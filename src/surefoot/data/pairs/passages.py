"""What a document is made of: sections, sentences, and passages of a few sentences."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from typing import Any

from surefoot.data.records import Record

#: Where one sentence may end and another begin.
_END = re.compile(r"(?<=[.!?])[\"')\]”’]*\s+(?=\S)")
#: What ends in a full stop without ending a sentence.
_SHORT = re.compile(
    r"(?:^|[\s(.])(?:[a-z]|e\.g|i\.e|cf|vs|al|dr|mrs?|ms|figs?|eqs?|no|st|approx|sens?|reps?|gov|gen|inc|corp|co|ltd"
    r"|jan|feb|mar|apr|aug|sept?|oct|nov|dec)\.$",
    re.IGNORECASE,
)
_BLANK = re.compile(r"\n\s*\n")


def sentences(text: str) -> list[str]:
    """The sentences of a text by punctuation, one space between words; common abbreviations and initials go on.

    >>> sentences("It flies, e.g. at Mach 2. Why? See fig. 3.")
    ['It flies, e.g. at Mach 2.', 'Why?', 'See fig. 3.']
    """
    found: list[str] = []
    joined = ""
    for part in _END.split(text):
        joined = f"{joined} {part}" if joined else part
        if not _SHORT.search(joined.rstrip()):
            found.append(joined)
            joined = ""
    whole = [" ".join(each.split()) for each in [*found, joined]]
    # " . " of old corpora leaves sentences of punctuation alone.
    return [each for each in whole if any(mark.isalnum() for mark in each)]


def passages(text: str, *, words: int) -> Iterator[list[str]]:
    """Whole sentences of at most so many words together, as lists of them; a longer sentence is a passage alone."""
    held: list[str] = []
    count = 0
    for sentence in sentences(text):
        length = len(sentence.split())
        if held and count + length > words:
            yield held
            held, count = [], 0
        held.append(sentence)
        count += length
    if held:
        yield held


def sections(record: Record) -> list[str]:
    """The sections of a document, in order.

    Its column `sections` (a list of texts, or of objects with `text`); else `text`, with a `title` before it as a section
    of its own, cut at blank lines. A text that begins with its title does not say it twice. Nothing where the text is
    empty.
    """
    given = record.values.get("sections")
    if isinstance(given, Sequence) and not isinstance(given, str):
        found = [_section(record, each) for each in given]
        return [each for each in found if each]
    text, title = record.text("text"), record.optional("title")
    parts = [part.strip() for part in _BLANK.split(text) if part.strip()]
    if title is None or not parts:
        return parts
    if parts[0].startswith(title):
        parts[0] = parts[0].removeprefix(title).strip()
    return [title, *[part for part in parts if part]]


def identifier(record: Record, *, known: Container[str] = ()) -> str:
    """What a document is called: its `id`, or `_id`. Raises DataError where it has none, or one of those in `known`."""
    column = "id" if "id" in record.values else "_id"
    name = record.name(column)
    if name is None:
        raise record.error("id", "no id; this method finds documents by it, so give each one")
    if name in known:
        raise record.error(column, f"the id `{name}` was already used; ids must differ")
    return name


def _section(record: Record, value: Any) -> str:
    text = value.get("text") if isinstance(value, dict) else value
    if text is None:
        return ""
    if not isinstance(text, str):
        raise record.error("sections", f"a section is a {type(text).__name__}; write a text or an object with `text`")
    return text.strip()
