"""The report of a search: well-formed, self-contained, honest about what the judge cannot tell, and never NaN."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from facts import BASELINES, FOUND, HOSTILE, WHY, value

from surefoot.report.blend import curves
from surefoot.report.figures import intervals
from surefoot.report.history import Trial, scores
from surefoot.report.html import Reading
from surefoot.report.search import write_report

VOID = {"meta", "img"}
SECTIONS = [
    "answer",
    "accuracy",
    "changes",
    "slices",
    "forecasts",
    "priors",
    "reliability",
    "path",
    "members",
    "trials",
    "notes",
    "limits",
    "recipe",
]


class Reader(HTMLParser):
    """Keeps the ids of sections and headings, all text, and every mark; fails on a tag that is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def sections(self) -> list[str | None]:
        return [attrs["id"] for tag, attrs in self.tags if tag == "section"]

    def marks(self, key: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag == "g" and key in attrs]

    def words(self) -> str:
        return " ".join("".join(self.text).split())


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def report(folder: Path, found: dict, **options: object) -> tuple[str, Reader]:
    path = write_report(folder / "report.html", found, **options)
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\b(nan|NaN|inf|None|null)\b", re.sub(r"<style>.*</style>", "", text, flags=re.S))
    for forbidden in ("http://", "https://", "<script", "url(", "@import", ' src="h', "<link", "<iframe"):
        assert forbidden not in text
    page = read(text)
    anchors = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert anchors == [f"#{name}" for name in page.sections()]
    return text, page


def whole(folder: Path, found: dict | None = None, why: dict | None = None, **options: object) -> tuple[str, Reader]:
    """A page with every section."""
    files = {"recipe.yaml": "name: flyp\n", "plan.yaml": "trials: 5\n"}
    options = {"home": "films", "classes": ["bad", "good"], "files": files, "environment": {"python": "3"}} | options
    return report(folder, (found or FOUND) | {"why": why if why is not None else WHY}, **options)


def test_the_whole_page(tmp_path: Path) -> None:
    text, page = whole(tmp_path, baselines=BASELINES)
    assert page.sections() == SECTIONS
    words = page.words()
    for piece in (
        "“best 2 of flyp” (the weights of trials 4 and 5 averaged, 75% of the way from their start), chosen among 3",
        "after 5 trials",
        "right on 76.0% (95% interval 68.0% to 84.0%)",
        "+5.0 [+1.0, +9.0] points of accuracy against LP-FT: better",
        "against WiSE-FT: the interval includes zero, so the judge cannot tell them apart",
        "1 of 2 folds",
        "73.0% [70.0, 76.0], below the forecast's interval",
        "Not trusted.",
        "Passed over with a lower score: 1 candidate.",
        "good: 75.0% [60.0, 85.0]",
        "“bad” goes from 50.0% to 25.0%; the interval leaves the judge's share out, so it has shifted. "
        "The test set has 30.0%, inside the interval.",
        "one note & another",
    ):
        assert piece in words, piece
    assert "prefers-color-scheme: dark" in text
    assert list(tmp_path.iterdir()) == [tmp_path / "report.html"]


def test_what_the_explanation_adds(tmp_path: Path) -> None:
    words = whole(tmp_path)[1].words()
    for piece in (
        "On tweets the linear probe is better: -6.0 [-10.0, -2.0] points.",
        "The forecast for tweets promised more than its test set holds.",
        "It is weak on tweets, label good: 60.0%, against 80.0% on the rest.",
        "better than LP-FT by more than chance explains on 1 of 2 (films +6.0 points), and worse on 1 (tweets -6.0 points)",
        "This search comes first on 1 of 2 sets",
        "wins 140 examples and loses 120. On tweets it loses more than it wins, by more than chance explains",
        "For having looked at 12, p is corrected by Holm's method",
        "R² 0.97, a line; 4 pairs of 4 models",
        "R² 0.60, not a line",
        "The farthest off is tweets: by 2.0% on average",
        "better by more than chance explains on tweets (+7.0 [+4.0, +10.0] points at 25%)",
        "At the start itself a head of zeros decides nothing",
        "it is better than 1 of its 2 members",
        "over 12 drawn trials. Upright strokes: what shuffled scores give in one of twenty cases.",
        "Above it: learning rate; of 3 shares 0.2 would be by chance alone.",
        "It shows 7 of your examples",
    ):
        assert piece in words, piece


def test_one_mark_for_each_method_and_domain_and_trial(tmp_path: Path) -> None:
    _, page = whole(tmp_path, baselines=BASELINES)
    marks = [(mark["data-domain"], mark["data-method"]) for mark in page.marks("data-method")]
    own = [("films", "this search"), ("tweets", "this search"), ("tweets", "this search, corrected")]
    others = [(domain, method) for domain in ("films", "tweets") for method in ("LP-FT", "WiSE-FT")]
    for each in [*own, *others, ("tweets", "forecast"), ("tweets", "truth")]:
        assert each in marks
    assert [mark["data-trial"] for mark in page.marks("data-trial")] == ["0", "1", "2", "3", "4"]
    assert len(page.marks("data-alpha")) == 8, "four of five alphas on two sets; at the start nothing is decided"
    assert len(page.marks("data-bin")) == 16
    points = [mark["data-point"] for mark in page.marks("data-point")]
    assert points.count("two models agree") == 8
    assert points.count("a model is right") == 2
    assert [mark["data-bar"] for mark in page.marks("data-bar")] == [
        "learning rate",
        "weight of l2 zero",
        "layers that train",
        "optimizer rho (9 trials)",
    ]


def test_tables_have_scopes_and_drawings_have_titles(tmp_path: Path) -> None:
    text, page = whole(tmp_path, baselines=BASELINES)
    assert all(attrs.get("scope") in ("row", "col") for tag, attrs in page.tags if tag == "th")
    drawn = [at for at, (tag, attrs) in enumerate(page.tags) if tag == "svg" and attrs.get("role") == "img"]
    assert len(drawn) > 30
    assert all(page.tags[at + 1][0] == "title" for at in drawn)
    assert text.count("<table>") == text.count("<caption>")
    charts = [attrs for tag, attrs in page.tags if tag == "figure"]
    assert len(charts) == text.count("<figcaption>"), "a sentence under every chart"


@pytest.mark.parametrize(
    ("missing", "section"),
    [
        ("targets", "forecasts"),
        ("prior", "priors"),
        ("metrics", "accuracy"),
        ("leaderboard", "trials"),
        ("notes", "notes"),
    ],
)
def test_what_is_missing_is_left_out(tmp_path: Path, missing: str, section: str) -> None:
    found = copy.deepcopy(FOUND)
    if missing == "targets":
        del found["answer"]["targets"]
    elif missing == "prior":
        found["answer"]["targets"]["tweets"]["prior"] = None
    elif missing == "leaderboard":
        del found["leaderboard"], found["answer"]["scores"]
    else:
        del found[missing]
    _, page = report(tmp_path, found)
    assert section not in page.sections()
    assert not {"changes", "slices", "reliability", "path", "members"} & set(page.sections()), "there is no `why`"
    assert {"answer", "limits"} <= set(page.sections())


def test_baselines_alone_and_nothing_at_all(tmp_path: Path) -> None:
    assert report(tmp_path, {}, baselines=BASELINES)[1].sections() == ["accuracy", "limits"]
    assert report(tmp_path, {})[1].sections() == ["limits"]


@pytest.mark.parametrize(
    "missing", ["versus", "reliability", "labels", "slices", "changes", "path", "lines", "members"]
)
def test_an_explanation_that_lacks_a_part(tmp_path: Path, missing: str) -> None:
    why = {key: each for key, each in WHY.items() if key != missing}
    whole(tmp_path, why=why)
    whole(tmp_path, why={missing: WHY[missing]})
    whole(tmp_path, why={missing: {}})


def test_hostile_names_are_text(tmp_path: Path) -> None:
    # Through JSON, so that keys and values alike are hostile; `\ud800` is half a letter, `\0` one that HTML forbids.
    given = json.dumps({"found": FOUND, "why": WHY})
    names = ("tweets", "films", "shops", "best 2 of flyp", "one note", "Not to be trusted", "out of memory", "aline_d")
    for name in (*names, "longest quarter", "a sentence", "weight.l2_zero"):
        given = given.replace(name, json.dumps(f"{HOSTILE}\ud800\0 {name}")[1:-1])
    facts = json.loads(given)
    _, page = whole(
        tmp_path,
        facts["found"],
        facts["why"],
        baselines={HOSTILE: {HOSTILE: value(0.5)}},
        title=HOSTILE,
        classes=[HOSTILE, "b"],
        files={"recipe.yaml": HOSTILE},
        environment={HOSTILE: HOSTILE},
    )
    assert HOSTILE in page.words()
    assert (HOSTILE, HOSTILE) in [(mark["data-domain"], mark["data-method"]) for mark in page.marks("data-method")]
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)


@pytest.mark.parametrize(
    "picture",
    [
        "https://example.org/a.png",
        'x" onerror="alert(1)',
        "data:image/svg+xml;base64,AAAA",
        'data:image/png;base64,A" x="',
    ],
)
def test_a_thumbnail_is_a_picture_or_nothing(tmp_path: Path, picture: str) -> None:
    why = copy.deepcopy(WHY)
    why["changes"]["lost"][0]["image"] = picture
    _, page = whole(tmp_path, why=why)
    assert "img" not in {tag for tag, _ in page.tags}
    why["changes"]["lost"][0]["image"] = "data:image/png;base64,AAAA"
    _, page = whole(tmp_path, why=why)
    assert [attrs["src"] for tag, attrs in page.tags if tag == "img"] == ["data:image/png;base64,AAAA"]


@pytest.mark.parametrize("nothing", [None, float("nan"), float("inf")])
def test_figures_that_are_no_numbers(tmp_path: Path, nothing: float | None) -> None:
    def spoil(part: object) -> object:
        if isinstance(part, dict):
            return {key: each if key == "trial" else spoil(each) for key, each in part.items()}
        if isinstance(part, list):
            return [spoil(each) for each in part]
        return nothing if isinstance(part, float) else part

    spoiled, why = spoil(FOUND), spoil(WHY)
    assert isinstance(spoiled, dict)
    assert isinstance(why, dict)
    _, page = whole(tmp_path, spoiled, why, baselines=spoil(BASELINES))
    for key in ("data-domain", "data-trial", "data-bin", "data-bar", "data-point"):
        assert page.marks(key) == []
    for end in ("low", "high"):
        found = copy.deepcopy(FOUND)
        found["metrics"]["films"]["accuracy"][end] = nothing
        found["answer"]["judge domains"]["versus"]["lp_ft"]["accuracy"][end] = nothing
        found["answer"]["targets"]["tweets"]["prior"][end][0] = nothing
        _, page = report(tmp_path, found)
        assert "there is no interval, so the judge cannot tell them apart" in page.words()


def test_worse_is_said_and_shares_stay_within_bounds(tmp_path: Path) -> None:
    found = copy.deepcopy(FOUND)
    found["answer"]["judge domains"]["versus"]["wise_ft"]["accuracy"] = value(-0.05, 0.04)
    found["answer"]["judge domains"]["accuracy"] = value(0.99, 0.05)
    words = report(tmp_path, found)[1].words()
    assert "against WiSE-FT: worse on the judge domains" in words
    assert "(95% interval 94.0% to 100.0%)" in words


def test_a_diverged_trial_leaves_the_others_apart() -> None:
    trials = [Trial(n, score, "complete", False, "drawn") for n, score in enumerate([1.5, 1.4, 1.3, 1.2, 1e6])]
    page = read(scores("scores", trials))
    heights = {attrs["y"] for tag, attrs in page.tags if tag == "svg" and attrs.get("class") == "at"}
    assert len(heights) == 5
    assert len(page.marks("data-trial")) == 5


def test_of_thousands_of_trials_the_records_are_drawn() -> None:
    trials = [Trial(n, 2.0 - (n == 4321), "complete", False, "drawn") for n in range(20_000)]
    marks = [int(mark["data-trial"] or -1) for mark in read(scores("scores", trials)).marks("data-trial")]
    assert {0, 4321} <= set(marks)
    assert len(marks) <= 502


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_one_figure_has_an_axis(share: float) -> None:
    page = read(intervals("one", {"home": {"all": Reading(share)}}))
    at = next(float(attrs["cx"] or "nan") for tag, attrs in page.tags if tag == "circle")
    assert 128 <= at <= 346
    assert all(0 <= int(tick) <= 100 for tick in re.findall(r"(\d+)%", page.words()))


def test_a_way_below_zero_is_drawn_where_it_is():
    """A correlation can be negative; an accuracy cannot."""
    lines = [("rated", [(0.0, -0.3), (0.5, 0.2), (1.0, 0.5)])]
    drawn = curves("way", lines, y_name="metric", unit="", bounds=(-1.0, 1.0))
    tops = [float(top) for top in re.findall(r'<svg class="at" x="[^"]*" y="([0-9.]+)%"', drawn)][
        -3:
    ]  # after those of the legend
    assert "-30.0 \N{RIGHTWARDS ARROW} 50.0" in drawn
    # Evenly on one scale: from -0.3 to 0.2 is 5/3 of the way from 0.2 to 0.5.
    assert (tops[0] - tops[1]) / (tops[1] - tops[2]) == pytest.approx(5 / 3, abs=0.01)
