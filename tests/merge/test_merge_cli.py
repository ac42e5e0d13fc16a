"""`surefoot merge` on folders: what it writes, what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import apart, tuned, weights_of
from safetensors.torch import load_file, save_file

from command_line import contents, one_thread, refused, surefoot
from conftest import examples
from surefoot import load
from surefoot.data.tasks import write_examples
from surefoot.merge.checkpoint import open_checkpoint
from surefoot.merge.merging import merge
from surefoot.models.model import Model
from surefoot.models.save import save


@pytest.fixture(scope="module")
def folders(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return tuned(bert_folder, tmp_path_factory.mktemp("models"), 3)


@pytest.fixture(scope="module")
def classifiers(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three of two classes, and one of three."""
    place, found = tmp_path_factory.mktemp("classifiers"), []
    for number, classes in enumerate([("negative", "positive")] * 3 + [("a", "b", "c")]):
        model = load(bert_folder)
        model.set_classes(classes)
        torch.manual_seed(number)
        with torch.no_grad():
            for parameter in (*model.layers[-1].parameters(), *model.head.parameters()):
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.precision = "float32"
        save(model, place / f"c{number}")
        found.append(place / f"c{number}")
    return found


def test_the_sum_of_task_vectors(folders: list[Path], bert_folder: Path, tmp_path: Path) -> None:
    """Every tensor against float64 arithmetic; everything else of the folder as it was, so that it opens."""
    argv = ["merge", *folders, "--base", bert_folder, "--method", "task_arithmetic", "--option", "scaling=0.5"]
    result = surefoot(*argv, "--out", tmp_path / "out")
    assert result.exit_code == 0
    base, models = weights_of(bert_folder), [weights_of(each) for each in folders]
    expected = {
        name: value.double() + 0.5 * sum(each[name].double() - value.double() for each in models)
        for name, value in base.items()
    }
    assert apart(weights_of(tmp_path / "out"), expected) < 1e-6
    assert {each.name for each in folders[0].iterdir()} | {"merge.json"} == {
        each.name for each in (tmp_path / "out").iterdir()
    }
    assert json.loads((tmp_path / "out" / "merge.json").read_text())["options"] == {"scaling": 0.5}
    assert load(tmp_path / "out").dim == 32
    assert "the merged model is in" in result.stdout


def test_shards_and_single_files_are_the_same_weights(folders: list[Path], tmp_path: Path) -> None:
    """Read from shards and from single files, written as shards and as one file, in another dtype and back."""
    merge(folders, "uniform_soup", out=tmp_path / "one")
    merge(folders, "uniform_soup", out=tmp_path / "many", shard=20_000)
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    whole = weights_of(tmp_path / "one")
    again = open_checkpoint(tmp_path / "many").weights()
    assert set(again) == set(whole)
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    assert load(tmp_path / "many").dim == 32
    files = [each / "model.safetensors" for each in folders]
    merge(files, "uniform_soup", out=tmp_path / "files")
    assert all(torch.equal(weights_of(tmp_path / "files")[name], whole[name]) for name in whole)
    merge([tmp_path / "many" / "model.safetensors.index.json"] * 2, "linear", out=tmp_path / "half", dtype="bfloat16")
    half = weights_of(tmp_path / "half")
    assert all(torch.equal(half[name], whole[name].bfloat16()) for name in whole)


def test_large_tensors_come_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of 1,000 elements that are read anew for each pass give the bits of whole tensors."""
    from surefoot.merge import plan, stream

    torch.manual_seed(0)
    base = {"w": torch.randn(70, 90), "v": torch.randn(5), "n": torch.arange(4), "empty": torch.zeros(0, 3)}
    for number in range(4):
        moved = {k: v + 0.1 * torch.randn(v.shape) if v.is_floating_point() else v for k, v in base.items()}
        save_file(moved if number else base, tmp_path / f"{number}.safetensors")
    files = [tmp_path / f"{number}.safetensors" for number in (1, 2, 3)]
    for name in ("ties", "dare", "model_stock", "breadcrumbs"):
        merge(files, name, out=tmp_path / f"whole-{name}", base=tmp_path / "0.safetensors")
        with monkeypatch.context() as patch:
            for module in (plan, stream):
                patch.setattr(module, "PIECE", 1000)
                patch.setattr(module, "HELD", 0)
            merge(files, name, out=tmp_path / f"parts-{name}", base=tmp_path / "0.safetensors")
        assert apart(weights_of(tmp_path / f"parts-{name}"), weights_of(tmp_path / f"whole-{name}")) < 1e-6


def test_names_of_the_hub(folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout in which huggingface_hub keeps what it fetched, in mergekit's YAML too, and without a connection."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    for number, revision in ((0, "main"), (1, "v2")):
        repository, commit = tmp_path / "hub" / f"models--team--tiny-{number}", str(number) * 40
        shutil.copytree(folders[number], repository / "snapshots" / commit)
        (repository / "refs").mkdir()
        (repository / "refs" / revision).write_text(commit)
    merge(folders[:2], "linear", out=tmp_path / "local")
    models = ["team/tiny-0", "team/tiny-1@v2"]
    named = surefoot("--offline", "merge", *models, "--method", "linear", "--out", tmp_path / "named")
    config = {"merge_method": "linear", "models": [{"model": each, "parameters": {"weight": 1}} for each in models]}
    (tmp_path / "merge.yaml").write_text(json.dumps(config))
    own = surefoot("--offline", "merge", "--config", tmp_path / "merge.yaml", "--out", tmp_path / "configured")
    assert (named.exit_code, own.exit_code) == (0, 0)
    whole = weights_of(tmp_path / "local")
    assert whole
    assert apart(weights_of(tmp_path / "named"), whole) == 0
    assert apart(weights_of(tmp_path / "configured"), whole) < 1e-6
    refused(
        ["--offline", "merge", "team/other", models[0], "--method", "linear", "--out", tmp_path / "x"],
        ["team/other: neither a folder here", "offline"],
    )


def test_a_dry_run_says_what_it_takes(folders: list[Path], tmp_path: Path) -> None:
    result = surefoot("merge", *folders, "--method", "linear", "--dry-run", "--json", "--out", tmp_path / "out")
    plan = json.loads(result.stdout)
    size = sum(each.numel() * 4 for each in weights_of(folders[0]).values())
    assert plan["bytes_written"] == size
    assert plan["bytes_read"] == 3 * size
    assert plan["peak_memory"] > size
    assert not (tmp_path / "out").exists()


def test_heads_are_merged_averaged_or_kept(classifiers: list[Path], bert_folder: Path, tmp_path: Path) -> None:
    argv = ["merge", *classifiers[:2], "--method", "task_arithmetic", "--base", bert_folder]
    result = surefoot(*argv, "--out", tmp_path / "same")
    assert "the base has no head for these classes: the heads are averaged" in result.stderr
    heads = [load_file(each / "head.safetensors") for each in classifiers]
    found = load_file(tmp_path / "same" / "head.safetensors")
    torch.testing.assert_close(found["weight"], (heads[0]["weight"] + heads[1]["weight"]) / 2)
    assert load(tmp_path / "same").classes == ("negative", "positive")

    result = surefoot("merge", classifiers[0], classifiers[3], "--method", "linear", "--out", tmp_path / "other")
    assert "each model's head is kept under heads/" in result.stderr
    merged = load(tmp_path / "other")
    assert merged.classes == ()
    for number in (0, 3):
        model = load(tmp_path / "other" / "heads" / f"c{number}")
        assert torch.equal(model.head.weight, heads[number]["weight"])
        assert torch.equal(next(model.backbone.parameters()), next(merged.backbone.parameters()))


@pytest.fixture
def sets(tmp_path: Path) -> list[Path]:
    """Labelled sentences as files."""
    found = []
    for number in range(2):
        place = tmp_path / f"set{number}.parquet"
        write_examples(examples(24, number), place)
        found.append(place)
    return found


def test_a_soup_by_a_judge(classifiers: list[Path], sets: list[Path], tmp_path: Path) -> None:
    argv = ["merge", *classifiers[:3], "--method", "greedy_soup", "--judge", f"held={sets[0]}"]
    with one_thread():
        result = surefoot(*argv, "--out", tmp_path / "soup", "--json")
    found = json.loads(result.stdout)
    assert found["judge_accuracy"] >= max(found["single"])
    chosen = [weights_of(classifiers[each]) for each in found["members"]]
    mean = {name: torch.stack([each[name] for each in chosen]).mean(0) for name in chosen[0]}
    assert apart(weights_of(tmp_path / "soup"), mean) < 1e-6
    assert load(tmp_path / "soup").classes == ("negative", "positive")


def test_coefficients_by_each_task_s_data(
    classifiers: list[Path], sets: list[Path], bert_folder: Path, tmp_path: Path
) -> None:
    argv = ["merge", *classifiers[:2], "--base", bert_folder, "--method", "adamerging", "--option", "steps=2"]
    with one_thread():
        result = surefoot(*argv, "--data", sets[0], "--data", sets[1], "--out", tmp_path / "both")
    assert result.exit_code == 0
    assert "adamerging: mean coefficients 0." in result.stdout
    facts = json.loads((tmp_path / "both" / "merge.json").read_text())["found"]["coefficients"]
    base, models = weights_of(bert_folder), [weights_of(each) for each in classifiers[:2]]
    found = weights_of(tmp_path / "both")
    for name, row in facts.items():
        key = name.removeprefix("backbone.")
        expected = base[key] + sum(c * (each[key] - base[key]) for c, each in zip(row, models, strict=True))
        torch.testing.assert_close(found[key], expected, rtol=0, atol=1e-5)
    assert load(tmp_path / "both" / "heads" / "c1").classes == ("negative", "positive")


# --- bad input


def nan(folder: Path) -> None:
    weights = weights_of(folder)
    weights["encoder.layer.1.output.dense.weight"][3, 4] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def other_shape(folder: Path) -> None:
    weights = weights_of(folder)
    weights["pooler.dense.bias"] = torch.zeros(7)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def other_names(folder: Path) -> None:
    weights = weights_of(folder)
    weights["extra.weight"] = weights.pop("pooler.dense.bias")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def other_dtype(folder: Path) -> None:
    weights = {name: value.bfloat16() for name, value in weights_of(folder).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def other_config(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_attention_heads": 4}))


def other_tokens(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"superb"', '"dreadful"'))


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def adapters(folder: Path) -> None:
    shutil.copy(folder / "model.safetensors", folder / "additions.safetensors")


@pytest.mark.parametrize(
    ("damage", "fragments"),
    [
        (nan, ["m2: `encoder.layer.1.output.dense.weight` holds NaN", "leave the model out"]),
        (other_shape, ["m0 and m2 have other shapes in 1 tensors (`pooler.dense.bias`: [32] and [7])"]),
        (other_names, ["1 only in m0, such as `pooler.dense.bias`", "1 only in m2, such as `extra.weight`"]),
        (other_dtype, ["m0 and m2 have other dtypes", "float32 and bfloat16", "--dtype"]),
        (other_config, ["m0 and m2 are of other architectures (num_attention_heads 2 and 4)"]),
        (other_tokens, ["m0 and m2 have other tokenizers (2 tokens differ, such as 'superb')"]),
        (cut, ["model.safetensors: the weights are damaged or cut short"]),
        (pickled, ["pytorch_model.bin: a pickle can run code"]),
        (adapters, ["has parts beside its weights"]),
    ],
)
def test_models_that_do_not_fit(
    damage: Callable[[Path], None], fragments: list[str], folders: list[Path], tmp_path: Path
) -> None:
    """One sentence, exit status 2, and nothing half-written, not even a hidden folder."""
    bad = shutil.copytree(folders[2], tmp_path / "m2")
    damage(bad)
    before = contents(tmp_path)
    refused(["merge", *folders[:2], bad, "--method", "linear", "--out", tmp_path / "out"], fragments)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("argv", "fragments"),
    [
        (["{0}", "{1}", "--method", "ties"], ["`ties` starts from the model that all were tuned from", "--base"]),
        (["{0}", "--method", "linear"], ["one model", "name more"]),
        (["{0}", "{1}", "--method", "linaer"], ["unknown merge `linaer`", "`linear`"]),
        (["{0}", "{1}"], ["no method"]),
        (["--method", "linear"], ["no models"]),
        (["{0}", "{1}x", "--method", "linear"], ["no such folder or file", "did you mean `m1`"]),
        (["{0}", "{1}", "--method", "linear", "--option", "weights=[0.5,0.4]"], ["sum to 0.9"]),
        (["{0}", "{1}", "--method", "linear", "--option", "weights"], ["write it as NAME=VALUE"]),
        (["{0}", "{1}", "--method", "linear", "--option", "wieghts=[1,0]"], ["unknown option `wieghts`", "`weights`"]),
        (["{0}", "{1}", "--method", "linear", "--dtype", "int8"], ["unknown dtype `int8`"]),
        (["{0}", "{1}", "{2}", "--method", "slerp"], ["SLERP merges 2 checkpoints", "3 were given"]),
        (["{0}", "{1}", "--method", "greedy_soup"], ["give --judge"]),
        (["{0}", "{1}", "--method", "linear", "--judge", "x.csv"], ["--judge is for methods that learn"]),
        (["{0}", "{1}", "--method", "grafting", "--base", "{2}"], ["put it into a recipe's `after`"]),
        (["{0}", "{1}", "--method", "adamerging", "--base", "{2}"], ["one data set for each model"]),
    ],
)
def test_bad_commands(argv: list[str], fragments: list[str], folders: list[Path], tmp_path: Path) -> None:
    whole: list[Any] = [each.format(*folders) for each in argv]
    refused(["merge", *whole, "--out", tmp_path / "out"], fragments)
    assert contents(tmp_path) == {}


def test_what_is_there_is_not_written_over(folders: list[Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    refused(["merge", *folders, "--method", "linear", "--out", tmp_path / "out"], ["exists already"])
    assert contents(tmp_path / "out") == {"mine.txt": b"mine"}


def test_models_of_one_task_alone_make_a_soup(classifiers: list[Path], sets: list[Path], tmp_path: Path) -> None:
    argv = ["merge", classifiers[0], classifiers[3], "--method", "greedy_soup", "--judge", sets[0]]
    refused([*argv, "--out", tmp_path / "out"], ["c0 and c3 know other classes"])
    assert not (tmp_path / "out").exists()


def test_an_interrupted_merge_leaves_nothing(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from surefoot.merge import stream

    done: list[str] = []
    plain = stream.merged

    def stopped(planned: Any) -> Any:
        done.append(planned.name)
        if len(done) == 5:
            raise KeyboardInterrupt
        return plain(planned)

    monkeypatch.setattr(stream, "merged", stopped)
    with pytest.raises(KeyboardInterrupt):
        merge(folders, "linear", out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_runs_are_merged_too(tiny_bert: Model, tmp_path: Path) -> None:
    """Folders of `surefoot tune`, whose models lie within."""
    from surefoot import Recipe

    runs = []
    for seed in range(2):
        recipe = Recipe(epochs=1, batch_size=16, precision="float32", head="zero")
        recipe.fit(tiny_bert, examples(24), seed=seed, out=tmp_path / f"run{seed}")
        runs.append(tmp_path / f"run{seed}")
    merge(runs, "uniform_soup", out=tmp_path / "soup")
    one, other = (load(each).state_dict() for each in runs)
    found = load(tmp_path / "soup").state_dict()
    for name in found:
        torch.testing.assert_close(found[name], (one[name] + other[name]) / 2)
