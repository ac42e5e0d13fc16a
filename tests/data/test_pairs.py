"""Pair makers one by one: what the papers' constructions give, counted by hand or checked by other means."""

from __future__ import annotations

import random
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import refused, surefoot
from surefoot.data.pairs.abstract_description import AbstractDescriptions
from surefoot.data.pairs.bfs import BodyFirstSelection
from surefoot.data.pairs.cannot import NegatedSentences
from surefoot.data.pairs.co_citation import CoCitation
from surefoot.data.pairs.co_occurrence import CoOccurrence
from surefoot.data.pairs.enterprise import SyntheticQuestions
from surefoot.data.pairs.ict import InverseCloze
from surefoot.data.pairs.label_description import LabelDescriptions
from surefoot.data.pairs.masking import is_card, is_iban, masked
from surefoot.data.pairs.passages import passages, sentences
from surefoot.data.pairs.setfit import SetFitPairs
from surefoot.data.pairs.wlp import WikiLinkPrediction
from surefoot.data.records import Records
from surefoot.errors import AssetError, DataError, RecipeError

PASSAGE = "One is here. Two is there. Three went home. Four came late."
PARTS = ["One is here.", "Two is there.", "Three went home.", "Four came late."]


def test_inverse_cloze_takes_each_sentence_alike_and_keeps_one_in_ten() -> None:
    """Over 4,000 draws: every sentence a quarter of the time, left in the passage in a tenth, within four deviations."""
    found = list(InverseCloze(draws=4000)(Records([{"text": PASSAGE}]), seed=2))
    counts = Counter(pair.anchor for pair in found)
    assert set(counts) == set(PARTS)
    assert all(abs(count - 1000) < 4 * np.sqrt(4000 * 0.25 * 0.75) for count in counts.values())
    kept = sum(pair.positive == PASSAGE for pair in found)
    assert abs(kept - 400) < 4 * np.sqrt(4000 * 0.1 * 0.9)
    for pair in found:
        rest = [each for each in PARTS if each != pair.anchor]
        assert pair.positive in (PASSAGE, " ".join(rest))


def test_inverse_cloze_at_the_ends_of_keep() -> None:
    """keep 0 never leaves the sentence in, keep 1 gives the passage as it is."""
    out, whole = (list(InverseCloze(keep=keep, draws=50)(Records([{"text": PASSAGE}]))) for keep in (0.0, 1.0))
    assert not any(pair.anchor in pair.positive for pair in out)
    assert {pair.positive for pair in whole} == {PASSAGE}


def test_body_first_selection_never_asks_for_the_section_it_asks_from() -> None:
    rows = [{"sections": ["First one. First two.", "Body one.", {"text": "Body two."}], "text": "ignored"}]
    found = {(pair.anchor, pair.positive) for pair in BodyFirstSelection(draws=200)(Records(rows))}
    assert found == {(a, b) for a in ("First one.", "First two.") for b in ("Body one.", "Body two.")}


def test_link_prediction_follows_every_link_of_the_corpus_once() -> None:
    rows = [
        {"id": n, "text": f"About {n}.", "links": [m for m in range(6) if m != n and (n + m) % 2]} for n in range(5)
    ]
    found = Counter((pair.anchor, pair.positive) for pair in WikiLinkPrediction()(Records(rows)))
    links = [(m, row["id"]) for row in rows for m in row["links"] if m < 5]  # type: ignore[attr-defined]
    assert found == Counter((f"About {to}.", f"About {of}.") for to, of in links)


def test_co_citations_are_those_of_a_plain_count() -> None:
    """Beside itertools over the same lists: every two that some document cites both, once, and nothing else."""
    rng = random.Random(3)
    rows = [
        {"id": str(n), "text": f"Text {n}.", "cites": [str(m) for m in rng.sample(range(14), 4)]} for n in range(12)
    ]
    expected = {
        frozenset(two) for row in rows for two in combinations([m for m in row["cites"] if int(m) < 12], 2)
    }  # fmt: skip
    found = [
        frozenset(each.split()[1].strip(".") for each in (p.anchor, p.positive)) for p in CoCitation()(Records(rows))
    ]
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert len(list(CoCitation(most=1)(Records(rows)))) <= len(rows)


def test_lists_of_a_record_are_joined_or_taken_one_by_one() -> None:
    rows = [{"title": "Cook", "skills": ["salt", "heat"]}, {"title": "", "skills": ["x"]}]
    assert [pair.positive for pair in CoOccurrence()(Records(rows))] == ["salt, heat"]
    assert [pair.positive for pair in CoOccurrence(each=True)(Records(rows))] == ["salt", "heat"]
    with pytest.raises(RecipeError, match="two columns"):
        CoOccurrence(anchor="a", positive="a")


@pytest.mark.parametrize(("strategy", "count"), [("oversampling", 144), ("undersampling", 128), ("unique", 136)])
def test_setfit_makes_as_many_pairs_as_its_library(strategy: str, count: int) -> None:
    """Of two classes of eight, by the closed form of the library's sampler: 2 * 8 * 9 / 2 = 72 alike, 64 unlike; the
    larger side twice, the smaller twice, or both."""
    rows = [{"text": f"t{n}", "label": n % 2} for n in range(16)]
    found = list(SetFitPairs(strategy=strategy)(Records(rows)))
    assert len(found) == count
    for pair in found:
        assert pair.score == float(int(pair.anchor[1:]) % 2 == int(pair.positive[1:]) % 2)
    drawn = list(SetFitPairs(iterations=5)(Records(rows)))
    assert [pair.score for pair in drawn] == [1.0, 0.0] * (5 * 16)


def test_label_descriptions_balance_right_and_wrong() -> None:
    """Of a text with one of five labels: 1 + 4 + 3 pairs, four of either score; with two of five, 2 + 3 + 2."""
    rows: list[dict[str, Any]] = [{"text": f"t{n}", "label": f"l_{n}"} for n in range(5)]
    scores = [pair.score for pair in LabelDescriptions()(Records(rows)) if pair.anchor == "t0"]
    assert sorted(scores) == [0.0] * 4 + [1.0] * 4  # type: ignore[type-var]
    rows[0]["label"] = ["l_0", "l_1"]
    found = [pair for pair in LabelDescriptions()(Records(rows)) if pair.anchor == "t0"]
    assert Counter(pair.score for pair in found) == {1.0: 4, 0.0: 3}
    assert {pair.positive for pair in found if pair.score} == {"l 0", "l 1"}


#: What the public module `negate` says of these in its README, without contractions of its own: its rules read a parse.
NEGATED = [
    ("I should.", "I shouldn't."),
    ("I can do it.", "I can't do it."),
    ("She has been excited.", "She hasn't been excited."),
    ("I would have done it.", "I wouldn't have done it."),
    ("He loves hiking.", "He doesn't love hiking."),
    ("I really liked the food.", "I really didn't like the food."),
    ("She doesn't think it's true.", "She thinks it's true."),
    ("I cannot do it.", "I can do it."),
    ("I do not expect everything to be ready.", "I expect everything to be ready."),
]


@pytest.mark.parametrize(("sentence", "opposite"), NEGATED)
def test_sentences_are_negated_as_english_does(sentence: str, opposite: str) -> None:
    pytest.importorskip("lemminflect")
    [pair] = NegatedSentences()(Records([{"text": sentence}]))
    assert (pair.positive, pair.negative) == (sentence, opposite)


@pytest.mark.parametrize(
    "sentence", ["Is it true?", "Nobody came.", "No way.", "Although it is late, we eat.", "Fast food"]
)
def test_what_the_rules_do_not_know_gives_nothing(sentence: str) -> None:
    pytest.importorskip("lemminflect")
    with pytest.raises(DataError, match="negate none"):
        list(NegatedSentences()(Records([{"text": sentence}])))


def test_check_digits_are_those_of_the_standards() -> None:
    """The examples of ISO 13616's registry and of ISO/IEC 7812; one digit off, and the text stays as it is."""
    assert is_iban("GB29 NWBK 6016 1331 9268 19")
    assert is_card([int(each) for each in "4111111111111111"])
    kept = "GB29NWBK60161331926818 and 4111 1111 1111 1112 in 2024-11-05, version 1.2.3.999"
    assert masked(kept) == kept
    hidden = masked("GB29 NWBK 6016 1331 9268 19, 4111 1111 1111 1111, a.b@c.org, 10.0.0.1, (020) 7946 0958 12")
    assert not any(each.isalnum() for each in hidden)


def test_passages_are_whole_sentences_and_all_of_them() -> None:
    text = "A b c. D e f g h i j. K. L m n o p q r s t u v w."
    found = list(passages(text, words=4))
    assert [each for passage in found for each in passage] == sentences(text)
    assert all(len(passage) == 1 or sum(len(each.split()) for each in passage) <= 4 for passage in found)


def test_a_language_model_writes_questions_and_descriptions() -> None:
    """SmolLM2 itself, on one passage: what is kept has to do with it."""
    rows = [{"text": "The Eiffel Tower in Paris was completed in March 1889 and is 330 metres tall."}]
    try:
        questions = SyntheticQuestions(max_tokens=12)
        [pair] = questions(Records(rows))
    except AssetError as error:
        pytest.skip(str(error))
    assert pair.positive == rows[0]["text"]
    assert "tower" in pair.anchor.lower()
    maker = AbstractDescriptions(max_tokens=12)
    maker._writer = questions._writer  # opened once
    for found in maker.pairs(Records(rows), 0):
        assert found.anchor == rows[0]["text"]
        assert found.positive != found.negative


def test_the_command_writes_counts_and_shows(tmp_path: Path) -> None:
    path = tmp_path / "corpus.csv"
    path.write_text(f'abstract\n"{PASSAGE}"\n"{PASSAGE} More of it."\n')
    argv = ["pairs", "ict", "--input", path, "--output", tmp_path / "out.jsonl", "--column", "abstract=text"]
    result = surefoot(*argv)
    assert result.exit_code == 0, result.output
    assert "2 pairs of 2 rows" in result.stdout
    assert "anchor" in result.stdout
    first = (tmp_path / "out.jsonl").read_bytes()
    assert surefoot(*argv).exit_code == 0
    assert (tmp_path / "out.jsonl").read_bytes() == first


@pytest.mark.parametrize(
    ("name", "content", "fragments"),
    [
        ("a.csv", "text\n", ["no rows"]),
        ("a.csv", "other\nx\n", ["no column `text`", "--column NAME=text"]),
        ("a.csv", 'text\n"x\n', ["quotation mark"]),
        ("a.csv", "text,b\nx\n", ["line 2", "1 cells where the header has 2"]),
        ("a.jsonl", '{"text": 1}\n', ["row 1", "column `text`", "write it as a string"]),
        ("a.jsonl", "{\n", ["line 1", "not JSON"]),
        ("a.jsonl", "[1]\n", ["line 1", "not an object"]),
        ("a.jsonl", '{"text": "One."}\n', ["no passage has two sentences"]),
        ("a.parquet", "x", ["not a whole parquet file"]),
        ("a.xyz", "x", ["ending `.xyz`"]),
        ("a.csv", "", ["empty"]),
    ],
)
def test_bad_files_get_one_sentence(tmp_path: Path, name: str, content: str, fragments: list[str]) -> None:
    path, out = tmp_path / name, tmp_path / "out"
    path.write_text(content)
    refused(["pairs", "ict", "--input", path, "--output", out / "pairs.parquet"], fragments, out=out, late=True)


def test_what_is_not_there_gets_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text\ncaf\xe9\n")
    target = ["--output", tmp_path / "out.parquet"]
    refused(["pairs", "ict", "--input", path, *target], ["row 1", "not UTF-8"], late=True)
    refused(["pairs", "ict", "--input", tmp_path / "none.csv", *target], ["no such file"], late=True)
    refused(["pairs", "itc", "--input", path, *target], ["unknown pairs `itc`", "did you mean `ict`"])
    refused(["pairs", "ict", "--input", path, "--option", "keep=2", *target], ["keep"])
    path.write_text("id,text\na,x\na,y\n")
    refused(["pairs", "wlp", "--input", path, *target], ["row 2", "already used"], late=True)
    path.write_text("label,text\na,x\n,y\n")
    refused(["pairs", "setfit", "--input", path, *target], ["row 2", "label is missing"], late=True)
    path.write_text("label,text\na,x\na,y\n")
    refused(["pairs", "setfit", "--input", path, *target], ["at least two"], late=True)
    assert not (tmp_path / "out.parquet").exists()
