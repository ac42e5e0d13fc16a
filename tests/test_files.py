"""Writing is whole or not at all."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from surefoot import files
from surefoot.errors import RunError, SurefootError
from surefoot.files import atomic_folder, atomic_write, write_json, write_text


def leftovers(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if ".tmp-" in entry.name)


def test_file_appears_only_when_whole(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with atomic_write(target) as temporary:
        assert temporary.parent == target.parent
        temporary.write_text("half")
        assert not target.exists()
    assert target.read_text() == "half"
    assert leftovers(target.parent) == []


def test_error_leaves_old_content(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "old")

    def fail():
        with atomic_write(target) as temporary:
            temporary.write_text("new")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_write_json_round_trip(tmp_path):
    import json

    write_json(tmp_path / "a.json", {"b": [1, 2.5, "é"]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"b": [1, 2.5, "é"]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", float("nan"))


@pytest.mark.parametrize("exchange", [True, False])
def test_folder_replaces_old_one_entirely(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda first, second: False)
    target = tmp_path / "run"
    for name in ("first", "second"):
        with atomic_folder(target) as temporary:
            (temporary / "sub").mkdir()
            (temporary / "sub" / name).write_text(name)
    assert os.listdir(target / "sub") == ["second"]
    assert os.listdir(tmp_path) == ["run"]


def test_folder_error_keeps_old_one(tmp_path):
    target = tmp_path / "run"
    with atomic_folder(target) as temporary:
        (temporary / "a").write_text("old")

    def fail():
        with atomic_folder(target) as temporary:
            (temporary / "a").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (target / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["run"]


KILLED = """
import sys, time
from surefoot.files import atomic_folder, atomic_write
make = {"file": atomic_write, "folder": atomic_folder}[sys.argv[1]]
with make(sys.argv[2]) as temporary:
    (temporary if sys.argv[1] == "file" else temporary / "part").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_killed_writer_leaves_a_recognisable_rest_that_the_next_write_removes(tmp_path, kind):
    target = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", KILLED, kind, str(target)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    # A living writer's temporary file is not touched by another writer of the same target.
    write_text(tmp_path / "other", "x")
    files.clean(target)
    assert len(leftovers(tmp_path)) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not target.exists()
    assert leftovers(tmp_path)[0].startswith(f".out.tmp-{process.pid}-")
    with (atomic_write if kind == "file" else atomic_folder)(target) as temporary:
        (temporary if kind == "file" else temporary / "part").write_text("whole")
    assert leftovers(tmp_path) == []


def test_kill_between_the_two_renames_is_mended(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / f".run.tmp-{gone.pid}-old0123abcd").mkdir()
    (tmp_path / f".run.tmp-{gone.pid}-old0123abcd" / "a").write_text("only copy")
    files.clean(tmp_path / "run")
    assert (tmp_path / "run" / "a").read_text() == "only copy"


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EDQUOT, "quota")],
)
def test_refusals_inside_the_block_become_one_sentence(tmp_path, number, expected):
    def write():
        with atomic_write(tmp_path / "a") as temporary:
            temporary.write_text("x")
            raise OSError(number, os.strerror(number))

    with pytest.raises(RunError, match=expected) as caught:
        write()
    assert str(tmp_path / "a") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_disk_full_told_by_a_library(tmp_path):
    def write():
        with atomic_write(tmp_path / "a"):
            raise RuntimeError("I/O error: No space left on device (os error 28)")

    with pytest.raises(RunError, match="disk is full"):
        write()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_really_full_disk(tmp_path):
    def write():
        with atomic_write(tmp_path / "a") as temporary:
            os.symlink("/dev/full", temporary)
            temporary.write_text("x")

    with pytest.raises(RunError, match="disk is full"):
        write()
    assert os.listdir(tmp_path) == []


def test_other_errors_of_the_block_pass_through(tmp_path):
    def read():
        with atomic_write(tmp_path / "a"):
            (tmp_path / "missing input").read_text()

    with pytest.raises(FileNotFoundError, match="missing input"):
        read()


@pytest.mark.parametrize("make", [atomic_write, atomic_folder])
def test_parent_that_is_a_file(tmp_path, make):
    (tmp_path / "file").write_text("")

    def write(path):
        with make(path):
            pass

    for path in (tmp_path / "file" / "a", tmp_path / "file" / "b" / "a"):
        with pytest.raises(SurefootError, match="a part of the path is a file"):
            write(path)


def test_target_in_the_way(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="a folder of that name"):
        write_text(tmp_path / "folder", "x")

    def folder():
        with atomic_folder(tmp_path / "file"):
            pass

    with pytest.raises(RunError, match="is a file"):
        folder()
    with pytest.raises(RunError, match="too long"):
        write_text(tmp_path / ("x" * 300), "x")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(RunError, match="no permission"):
            write_text(tmp_path / "a", "x")
    finally:
        tmp_path.chmod(0o700)


def test_no_permission_told_as_such(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError(errno.EACCES, "Permission denied", str(target))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(RunError, match="no permission"):
        write_text(tmp_path / "a", "x")
    assert os.listdir(tmp_path) == []


REPLACING = """
import sys
from surefoot.files import atomic_folder
for number in range(40):
    with atomic_folder(sys.argv[1]) as temporary:
        (temporary / "a").write_text(str(number))
"""


def test_concurrent_readers_never_see_the_folder_missing(tmp_path):
    if not sys.platform.startswith("linux"):
        pytest.skip("the exchange in one step is Linux's")
    target = tmp_path / "run"
    with atomic_folder(target) as temporary:
        (temporary / "a").write_text("0")
    process = subprocess.Popen([sys.executable, "-c", REPLACING, str(target)])
    misses, deadline = 0, time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        misses += not target.exists()
    assert process.wait() == 0
    assert misses == 0
