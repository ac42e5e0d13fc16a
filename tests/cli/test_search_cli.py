"""The search through the command line: as options, as YAML, without a judge, estimates afterwards, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from command_line import one_thread, refused, surefoot
from conftest import sentences
from tiny_models import images, save_vit

#: File name, examples, seed of its texts, whether it has labels.
FILES = (("train", 80, 3, True), ("shop", 40, 4, True), ("news", 40, 5, True), ("short", 60, 6, False))
SEARCH = {"trials": 5, "epochs": 1, "batch_size": 16, "layers": "1-2", "starts": "fine_tune"}


def write(path: Path, count: int, seed: int, *, labelled: bool = True) -> None:
    texts, labels = sentences(count, seed)
    rows = [f"{text},{('bad', 'good')[label]}" if labelled else text for text, label in zip(texts, labels, strict=True)]
    path.write_text("\n".join(["text,label" if labelled else "text", *rows]) + "\n")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.csv at home, shop.csv and news.csv to judge, short.csv without labels and truth.csv with them."""
    folder = tmp_path_factory.mktemp("data")
    for name, count, seed, labelled in FILES:
        write(folder / f"{name}.csv", count, seed, labelled=labelled)
    write(folder / "truth.csv", 60, 6)
    return folder


def options(**changes: Any) -> list[object]:
    """What `SEARCH` says, as options; None leaves one out."""
    merged = {**SEARCH, **changes}
    return [
        word
        for name, value in merged.items()
        if value is not None
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]


def tune(model: Path, data: Path, out: Path, *argv: object, judges: tuple[str, ...] = ("shop", "news")) -> list[object]:
    judging = [word for name in judges for word in ("--judge", data / f"{name}.csv")]
    return ["tune", "--model", model, "--train", data / "train.csv", *judging, "--out", out, *argv]


@pytest.fixture(scope="module")
def run(bert_folder: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """A finished search: its folder, what `--json` said, and standard error."""
    out = tmp_path_factory.mktemp("search") / "run"
    target = ["--unlabelled", f"tweets={data / 'short.csv'}", "--test", f"tweets={data / 'truth.csv'}"]
    with one_thread():
        result = surefoot(*tune(bert_folder, data, out, *target, *options(), "--json"))
    assert result.exit_code == 0, result.stderr
    return out, json.loads(result.stdout), result.stderr


# --- what comes out


def test_json_and_a_line_for_each_trial(run: tuple[Path, dict[str, Any], str]) -> None:
    out, told, said = run
    assert {"answer", "metrics", "trials", "notes", "seconds", "run"} <= set(told)
    assert told["trials"] == 5
    assert told["run"] == str(out)
    assert told["answer"]["judge domains"]["domains"] == ["news", "shop"], "named after their files, in order"
    assert set(told["answer"]["judge domains"]["versus"]) == {"linear_probe", "lp_ft", "wise_ft"}
    assert 0 <= told["answer"]["targets"]["tweets"]["forecast"]["value"] <= 1
    assert told["metrics"]["tweets"]["examples"] == 60
    lines = [each for each in said.splitlines() if each.startswith("trial ")]
    assert [each.split(":")[0] for each in lines] == [f"trial {n} of 5" for n in (1, 2, 3, 4, 5)]
    assert "lp_ft, 2 layers: score" in lines[1]
    assert "fine_tune, " in lines[4], "the start that it was drawn from"


def test_table_and_resume(run: tuple[Path, dict[str, Any], str], bert_folder: Path, data: Path) -> None:
    out, _, _ = run
    before = (out / "model/model.safetensors").read_bytes()
    target = ["--unlabelled", f"tweets={data / 'short.csv'}", "--test", f"tweets={data / 'truth.csv'}"]
    result = surefoot(*tune(bert_folder, data, out, *target, *options()))
    assert result.exit_code == 0, result.stderr
    assert "5 trials" in result.stderr, "what is finished is not trained again"
    said = " ".join(result.stdout.split())
    for piece in ("candidate", "made of │ trial ", "judge domains", "over LP-FT", "over WiSE-FT", "R2"):
        assert piece in said
    for piece in ("forecast", "tweets", "label shares", "trust", "tests", "the model is in"):
        assert piece in said
    assert max(len(line) for line in result.stdout.splitlines()) <= 110
    assert (out / "model/model.safetensors").read_bytes() == before


def test_yaml_is_the_same_search(
    run: tuple[Path, dict[str, Any], str], bert_folder: Path, data: Path, tmp_path: Path
) -> None:
    """Paths are relative to the file, wherever one stands; an option wins over the file."""
    out, told, _ = run
    search = {**SEARCH, "layers": [1, 2], "starts": ["fine_tune"], "trials": 7}
    search |= {"model": str(bert_folder), "train": "train.csv", "judge": {"shop": "shop.csv", "news": "news.csv"}}
    search |= {"unlabelled": ["tweets=short.csv"], "test": {"tweets": "truth.csv"}, "out": "nowhere"}
    (data / "search.yaml").write_text(json.dumps(search))
    argv = ["tune", "--config", data / "search.yaml", "--trials", 5, "--out", tmp_path / "run", "--json"]
    result = surefoot(*argv)
    assert result.exit_code == 0, result.stderr
    for name in ("model.safetensors", "head.safetensors"):
        assert (tmp_path / "run/model" / name).read_bytes() == (out / "model" / name).read_bytes()
    assert json.loads(result.stdout)["answer"] == told["answer"]
    assert not (data / "nowhere").exists()


def test_one_judge_warns_and_time_is_an_end(bert_folder: Path, data: Path, tmp_path: Path) -> None:
    argv = tune(bert_folder, data, tmp_path / "run", *options(time_limit="0.5s", trials=None), judges=("shop",))
    result = surefoot(*argv)
    assert result.exit_code == 0, result.stderr
    assert "one judge, `shop`" in result.stderr
    assert (tmp_path / "run/model/model.safetensors").exists()


def test_without_a_judge(bert_folder: Path, data: Path, tmp_path: Path) -> None:
    argv = tune(bert_folder, data, tmp_path / "run", "--epochs", 1, "--trials", 9, "--json", judges=())
    result = surefoot(*argv)
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    for piece in ("no judge, so no search", "wise_ft", "not forecast", "`trials` had no use", "--judge NAME=FILE"):
        assert any(piece in note for note in told["notes"]), piece
    assert "name: wise_ft" in (tmp_path / "run/recipe.yaml").read_text()
    refused(["estimate", tmp_path / "run", "--data", data / "short.csv"], ["no search in it", "--judge"])


def test_images(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    model = save_vit(tmp_path / "vit")
    lines = ["image,label"]
    for number, (picture, label) in enumerate(zip(*images(90), strict=True)):
        picture.save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{('dark', 'bright')[label]}")
    for name, part in {"train": slice(1, 61), "shop": slice(61, 91)}.items():
        (tmp_path / f"{name}.csv").write_text("\n".join([lines[0], *lines[part]]))
    result = surefoot(*tune(model, tmp_path, tmp_path / "run", *options(starts=None), "--json", judges=("shop",)))
    assert result.exit_code == 0, result.stderr
    board = json.loads((tmp_path / "run/search.json").read_text())["leaderboard"]
    assert [each["state"] for each in board] == ["complete"] * 5, board[-1]


# --- estimates afterwards


def test_estimate(run: tuple[Path, dict[str, Any], str], data: Path) -> None:
    out, told, _ = run
    argv = ["estimate", out, "--data", f"tweets={data / 'short.csv'}", "--data", data / "truth.csv"]
    result = surefoot(*argv, "--json")
    assert result.exit_code == 0, result.stderr
    seen = json.loads(result.stdout)
    assert set(seen) == {"tweets", "truth"}
    assert seen["truth"]["forecast"] == seen["tweets"]["forecast"], "the labels that are there are not looked at"
    searched = told["answer"]["targets"]["tweets"]["forecast"]
    assert seen["tweets"]["forecast"]["value"] == pytest.approx(searched["value"], abs=0.02)
    assert set(seen["tweets"]["forecast"]["estimates"]) == set(searched["estimates"])
    assert "aline_d" in searched["estimates"], "five members can show a line"
    assert len(seen["tweets"]["prior"]["value"]) == 2
    shown = " ".join(surefoot(*argv).stdout.split())
    for piece in ("accuracy to expect", "tweets", "truth", "every estimator", "aline_d", "R2", "label shares"):
        assert piece in shown


def test_estimate_without_the_base(
    run: tuple[Path, dict[str, Any], str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from surefoot.search import estimate

    out, _, _ = run
    monkeypatch.setattr(estimate, "model_hash", lambda model: "another")
    result = surefoot("estimate", out, "--data", f"tweets={data / 'short.csv'}", "--json")
    seen = json.loads(result.stdout)["tweets"]["forecast"]
    assert "only the shipped model was asked" in seen["note"]
    assert "another model by now" in seen["note"]
    assert "aline_d" not in seen["estimates"]


def test_estimate_of_nothing(run: tuple[Path, dict[str, Any], str], data: Path, tmp_path: Path) -> None:
    out, _, _ = run
    refused(["estimate", tmp_path / "none", "--data", data / "short.csv"], ["none: no such folder"])
    refused(["estimate", out, "--data", "none.csv"], ["none.csv: no such file"])
    (tmp_path / "numbers.json").write_text('[{"features": [1]}, {"features": [2]}]')
    refused(["estimate", out, "--data", tmp_path / "numbers.json"], ["holds features", "reads text", "same kind"])


def test_one_training_by_a_strategy(bert_folder: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    argv = [
        "--recipe",
        "fine_tune",
        "--strategy",
        "self_tuning_network",
        "--batch-size",
        "16",
        "--epochs",
        "2",
        "--json",
    ]
    with one_thread():
        result = surefoot(*tune(bert_folder, data, out, *argv))
    assert result.exit_code == 0, result.stderr
    found = json.loads((out / "hyperparameters.json").read_text())
    assert found["strategy"] == "self_tuning_network"
    assert all(0 <= value < 1 for value in found["found"].values())
    assert "dropout.head" in found["found"]
    assert any("hyperparameters.json" in note for note in json.loads(result.stdout)["notes"])
    assert (out / "report.html").is_file()


# --- bad input

#: Options, what the sentence must hold.
OPTIONS: dict[str, tuple[list[str], list[str]]] = {
    "two trials": (["--trials", "2"], ["`trials` is 2", "greater than or equal to 3"]),
    "odd time": (["--time-limit", "5x"], ["'5x'", "90s, 5m, 1.5h"]),
    "no time": (["--time-limit", "0s"], ["`time_limit`", "greater than 0"]),
    "unknown objective": (["--bank", "cross_entropy,flip"], ["the bank has no `flip`", "did you mean `flyp`?"]),
    "empty bank": (["--bank", ","], ["the bank is empty"]),
    "unknown start": (["--starts", "finetune"], ["unknown recipe `finetune`", "did you mean `fine_tune`"]),
    "layers in words": (["--layers", "top"], ["`layers` is 'top'", "2-4"]),
    "layers the wrong way": (["--layers", "4-2"], ["`layers` is (4, 2)", "fewest"]),
    "a rate": (["--lr", "1e-4"], ["--lr goes with one recipe", "leave it out"]),
    "a recipe": (["--recipe", "lp_ft"], ["--judge is for a search", "--recipe", "leave one of them out"]),
    "a strategy without a recipe": (["--strategy", "path"], ["--strategy moves", "--recipe, such as fine_tune"]),
    "a strategy that tunes nothing": (
        ["--recipe", "fine_tune", "--strategy", "path"],
        ["strategy `path` tunes no training", "implicit_differentiation"],
    ),
    "an unknown strategy": (
        ["--recipe", "fine_tune", "--strategy", "implicit"],
        ["unknown strategy `implicit`", "`implicit_differentiation`"],
    ),
    "no epochs": (["--epochs", "0"], ["`epochs` is 0", "greater than 0"]),
    "negative seed": (["--seed", "-1"], ["--seed is -1"]),
    "same name twice": (["--judge", "shop=train.csv"], ["two judges are named `shop`"]),
    "nobody's file": (["--unlabelled", "tweets=none.csv"], ["none.csv: no such file"]),
    "no yaml": (["--config", "none.yaml"], ["none.yaml", "not readable"]),
}

#: --judge, --test or --validation: its content, what the sentence must hold.
SETS: dict[str, tuple[str, str, list[str]]] = {
    "judge without labels": ("judge", "text\nfine\n", ["odd.csv: no column `label`"]),
    "judge with a strange label": (
        "judge",
        "text,label\n" + "a,good\nb,goood\n" * 10,
        ["`goood` was not seen", "`good`?"],
    ),
    "small judge": ("judge", "text,label\na,good\nb,bad\n", ["odd.csv: 2 examples cannot judge", "at least 20"]),
    "test with a strange label": ("test", "text,label\na,good\nb,goood\n", ["row 2", "`goood` was not seen"]),
    "validation with a strange label": ("validation", "text,label\na,good\nb,goood\n", ["`goood` was not seen"]),
}

#: --config: its content, what the sentence must hold.
CONFIGS = {
    "unknown field": ("jugde: {a: b.csv}", ["unknown field `jugde`", "did you mean `judge`?"]),
    "a list": ("- judge", ["a search is a mapping of fields"]),
    "a number for a file": ("{train: 3, judge: a.csv}", ["`train` is 3", "write one name or path"]),
    "a number for files": ("{train: a.csv, judge: 3}", ["`judge` is 3", "{tweets: tweets.parquet}"]),
    "nothing": ("{trials: 4}", ["no training data", "--train FILE"]),
    "no folder": ("{train: train.csv, judge: shop.csv}", ["no folder", "--out RUN"]),
    "bad plan": ("{train: a.csv, judge: b.csv, out: new, trials: few}", ["`trials` is 'few'"]),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_option(case: str, bert_folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data)
    argv, fragments = OPTIONS[case]
    refused(tune(bert_folder, data, tmp_path / "new", *argv), fragments, out=tmp_path / "new")


@pytest.mark.parametrize("case", SETS)
def test_set(case: str, bert_folder: Path, data: Path, tmp_path: Path) -> None:
    option, content, fragments = SETS[case]
    (tmp_path / "odd.csv").write_text(content)
    argv = tune(bert_folder, data, tmp_path / "new", f"--{option}", tmp_path / "odd.csv")
    refused(argv, fragments, out=tmp_path / "new")


@pytest.mark.parametrize("case", CONFIGS)
def test_config(case: str, data: Path, tmp_path: Path) -> None:
    content, fragments = CONFIGS[case]
    path = tmp_path / "search.yaml"
    path.write_text(content)
    refused(["tune", "--config", path], fragments, out=tmp_path / "new")


def test_recipe_takes_no_config(data: Path, tmp_path: Path) -> None:
    (tmp_path / "search.yaml").write_text("{}")
    refused(["tune", "--config", tmp_path / "search.yaml", "--recipe", "lp_ft"], ["--config is for a search"])


def test_another_kind_of_model(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    model = save_vit(tmp_path / "vit")
    refused(tune(model, data, tmp_path / "new"), ["holds text but `vit` reads image"], out=tmp_path / "new")
