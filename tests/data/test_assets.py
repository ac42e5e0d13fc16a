"""Fetching against a real index: files served over HTTP on this machine."""

import hashlib
import http.server
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from contextlib import contextmanager

import pytest

from surefoot import assets, package_index
from surefoot.assets import Asset, cached, fetch
from surefoot.errors import AssetError, SurefootError

PAD = os.urandom(400_000)


def wheel(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("toy/__init__.py", "raise RuntimeError('never run')")
        for name in names:
            archive.writestr(name, PAD if name.endswith("weights") else f"content of {name}")
    return buffer.getvalue()


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("in/evil.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return buffer.getvalue()


WHEEL = wheel("toy/model/config.json", "toy/model/pool/weights")
SDIST = tar({"toy-1.0/inner.tar.gz": tar({"in/a.txt": b"A", "in/b.md": b"B"}), "toy-1.0/a.txt": b"wrong"})


def asset(content: bytes, filename: str = "toy-1.0-py3-none-any.whl", members: tuple[str, ...] = ("toy/model/*",)):
    return Asset("Toy_Pkg", "1.0", filename, hashlib.sha256(content).hexdigest(), members, 0.4)


class Index(http.server.BaseHTTPRequestHandler):
    """/simple/toy-pkg/ as HTML (relative links), /json/toy-pkg/ as PEP 691; /stall sends half and waits."""

    files: dict[str, bytes]
    hits: list[str]

    def do_GET(self):
        type(self).hits.append(self.path)
        kind, _, rest = self.path.strip("/").partition("/")
        name = rest.rpartition("/")[2]
        if kind == "moved":
            return self.answer(302, b"", {"Location": self.path.replace("/moved/", "/simple/")})
        if rest == "toy-pkg" and kind in ("simple", "stall"):
            page = "".join(f'<a href="../../{kind}/files/{file}#sha256=00">{file}</a>' for file in self.files)
            return self.answer(200, f"<html><body>{page}</body></html>".encode(), {"Content-Type": "text/html"})
        if rest == "toy-pkg" and kind == "json":
            body = {"files": [{"filename": file, "url": f"/simple/files/{file}"} for file in self.files]}
            kind = "application/vnd.pypi.simple.v1+json"
            return self.answer(200, json.dumps(body).encode(), {"Content-Type": kind})
        if kind == "busy":
            return self.answer(503, b"", {})
        if kind == "short" and name in self.files:
            return self.answer(200, self.files[name][:1000], {}, length=len(self.files[name]))
        if rest.startswith("files/") and name in self.files:
            return self.answer(200, self.files[name], {"Content-Encoding": "gzip"}, stall=kind == "stall")
        return self.answer(404, b"", {})

    def answer(self, status, body, headers, *, length=None, stall=False):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(length or len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if stall else body)
        if stall:
            self.wfile.flush()
            type(self).halfway.set()
            type(self).release.wait(20)

    def log_message(self, *args):
        pass


@contextmanager
def served(files):
    handler = type("Handler", (Index,), {})
    handler.files, handler.hits = files, []
    handler.halfway, handler.release = threading.Event(), threading.Event()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    handler.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield handler
    finally:
        handler.release.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def index(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_", "SUREFOOT_", "HF_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setitem(assets.ASSETS, "toy", asset(WHEEL))
    sdist = asset(SDIST, "toy-1.0.tar.gz", ("toy-1.0/inner.tar.gz", "in/*.txt"))
    monkeypatch.setitem(assets.ASSETS, "nested", sdist)
    monkeypatch.setitem(assets.ASSETS, "single", asset(WHEEL, members=("toy/model/pool/weights",)))
    with served({"toy-1.0-py3-none-any.whl": WHEEL, "toy-1.0.tar.gz": SDIST}) as handler:
        monkeypatch.setenv("SUREFOOT_INDEX_URL", handler.url + "/simple")
        yield handler


def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def everything(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.name.endswith(".lock"))


@pytest.mark.parametrize("path", ["/simple", "/json/", "/moved"])
def test_fetch_verifies_unpacks_and_keeps(index, monkeypatch, tmp_path, path):
    monkeypatch.setenv("SUREFOOT_INDEX_URL", index.url + path)
    assert cached("toy") is None
    folder = fetch("toy")
    assert everything(folder) == ["asset.json", "config.json", "pool", "pool/weights"]
    assert (folder / "pool" / "weights").read_bytes() == PAD
    assert json.loads((folder / "asset.json").read_text())["sha256"] == hashlib.sha256(WHEEL).hexdigest()
    no_network(monkeypatch)
    assert fetch("toy") == fetch("toy", offline=True) == cached("toy") == folder


def test_nested_archive_and_single_file(index):
    # The server labels every file "Content-Encoding: gzip", as some do: the bytes must arrive as they are.
    folder = fetch("nested")
    assert everything(folder) == ["a.txt", "asset.json"]
    assert (folder / "a.txt").read_bytes() == b"A"
    assert fetch("single").read_bytes() == PAD


@pytest.mark.parametrize("html", [True, False])
def test_index_in_a_folder(index, monkeypatch, tmp_path, html):
    package = tmp_path / "my simple" / "toy-pkg"
    package.mkdir(parents=True)
    (package / "toy-1.0-py3-none-any.whl").write_bytes(WHEEL)
    if html:
        (package / "index.html").write_text('<a href="toy-1.0-py3-none-any.whl#sha256=1">x</a>')
    monkeypatch.setenv("SUREFOOT_INDEX_URL", package.parent.as_uri())
    no_network(monkeypatch)
    assert (fetch("toy") / "config.json").exists()


@pytest.mark.parametrize("variable", ["SUREFOOT_ASSETS", "PIP_FIND_LINKS"])
def test_local_folder_serves_without_network_but_never_a_wrong_file(index, monkeypatch, tmp_path, variable):
    monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("SUREFOOT_OFFLINE", "1")
    no_network(monkeypatch)
    (tmp_path / "toy-1.0-py3-none-any.whl").write_bytes(WHEEL + b"x")
    with pytest.raises(AssetError, match="SHA-256 differs"):
        fetch("toy")
    (tmp_path / "toy-1.0-py3-none-any.whl").write_bytes(WHEEL)
    assert (fetch("toy") / "config.json").exists()


@pytest.mark.parametrize("variable", ["SUREFOOT_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_without_a_copy(index, monkeypatch, tmp_path, variable):
    monkeypatch.setenv(variable, "1")
    no_network(monkeypatch)
    with pytest.raises(AssetError, match="SUREFOOT_ASSETS") as caught:
        fetch("toy")
    assert "\n" not in str(caught.value)
    assert index.hits == []
    assert everything(tmp_path / "cache" / "assets") == []


def test_wrong_file_is_refused_and_removed(index, tmp_path):
    index.files["toy-1.0-py3-none-any.whl"] = wheel("toy/model/evil")
    with pytest.raises(AssetError, match="altered or damaged"):
        fetch("toy")
    assert everything(tmp_path / "cache" / "assets") == []
    index.files["toy-1.0-py3-none-any.whl"] = WHEEL
    assert fetch("toy").is_dir()


@pytest.mark.parametrize("name", ["toy/model/../../../escaped", "toy/model//etc/x", "toy/model/a\\..\\b"])
def test_paths_that_lead_out_are_refused(index, monkeypatch, tmp_path, name):
    index.files["toy-1.0-py3-none-any.whl"] = content = wheel(name)
    monkeypatch.setitem(assets.ASSETS, "toy", asset(content))
    with pytest.raises(AssetError, match="unsafe path"):
        fetch("toy")
    assert everything(tmp_path / "cache" / "assets") == []
    assert not list(tmp_path.rglob("*escaped*"))


def test_index_errors_are_one_sentence(index, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}/simple"
    cases = {
        index.url + "/nothing": "404",
        index.url + "/busy": "503",
        closed: "check the network",
        "ftp://example.org/simple": "cannot reach",
        "no address": "SUREFOOT_INDEX_URL",
    }
    for url, part in cases.items():
        monkeypatch.setenv("SUREFOOT_INDEX_URL", url)
        with pytest.raises(AssetError, match=part) as caught:
            fetch("toy")
        assert "\n" not in str(caught.value)
    monkeypatch.setenv("SUREFOOT_INDEX_URL", index.url + "/simple")
    del index.files["toy-1.0-py3-none-any.whl"]
    with pytest.raises(AssetError, match=r"has no toy-1\.0-py3"):
        fetch("toy")
    with pytest.raises(AssetError, match="did you mean `minilm`"):
        fetch("minilmm")


def test_answer_cut_short(index, monkeypatch, tmp_path):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(package_index, "find", lambda *names: f"{index.url}/short/toy-1.0-py3-none-any.whl")
    with pytest.raises(AssetError, match="cannot reach"):
        fetch("toy")
    assert len(index.hits) == 3
    assert everything(tmp_path / "cache" / "assets") == []


def test_credentials_never_show(index, monkeypatch):
    monkeypatch.setenv("SUREFOOT_INDEX_URL", index.url.replace("//", "//me:secret@") + "/nothing")
    with pytest.raises(AssetError) as caught:
        fetch("toy")
    assert "secret" not in str(caught.value)


def test_damaged_cache_is_fetched_again(index):
    folder = fetch("toy")
    (folder / "pool" / "weights").write_bytes(PAD[:10])
    assert cached("toy") is None
    assert (fetch("toy") / "pool" / "weights").read_bytes() == PAD


def test_cache_that_cannot_be_made(index, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path / "file"))
    with pytest.raises(SurefootError, match="SUREFOOT_CACHE"):
        fetch("toy")


def test_full_disk(index, monkeypatch, tmp_path):
    def fill(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(assets, "_unpack", fill)
    with pytest.raises(SurefootError, match="disk is full"):
        fetch("toy")
    assert everything(tmp_path / "cache" / "assets") == []


FETCH = """
import sys
from surefoot import assets
assets.ASSETS["toy"] = assets.Asset("Toy_Pkg", "1.0", "toy-1.0-py3-none-any.whl", sys.argv[1], ("toy/model/*",), 0.4)
print(assets.fetch("toy"))
"""


def start():
    digest = hashlib.sha256(WHEEL).hexdigest()
    return subprocess.Popen([sys.executable, "-c", FETCH, digest], stdout=subprocess.PIPE, text=True)


def test_killed_in_the_middle_of_a_download(index, monkeypatch, tmp_path):
    monkeypatch.setenv("SUREFOOT_INDEX_URL", index.url + "/stall")
    process = start()
    assert index.halfway.wait(20)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert cached("toy") is None
    rest = everything(tmp_path / "cache" / "assets")
    assert rest
    assert all(".tmp-" in name for name in rest)
    monkeypatch.setenv("SUREFOOT_INDEX_URL", index.url + "/simple")
    folder = fetch("toy")
    assert everything(folder.parent) == sorted(
        [folder.name, *(f"{folder.name}/{name}" for name in ("asset.json", "config.json", "pool", "pool/weights"))]
    )


def test_two_processes_at_once_download_once(index):
    processes = [start(), start()]
    outputs = [process.communicate(timeout=30)[0] for process in processes]
    assert outputs[0] == outputs[1] == f"{cached('toy')}\n"
    assert [path for path in index.hits if path.endswith(".whl")] == ["/simple/files/toy-1.0-py3-none-any.whl"]


def test_where_the_index_is_found(monkeypatch, tmp_path):
    for name in ("SUREFOOT_INDEX_URL", "PIP_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex-url = https://me:50%25@example.org/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    assert package_index.index_url() == "https://me:50%25@example.org/simple"
    config.write_text("not a configuration")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "mine=https://uv.example/simple")
    assert package_index.index_url() == "https://uv.example/simple"
    monkeypatch.setenv("PIP_INDEX_URL", "https://pip.example/simple")
    assert package_index.index_url() == "https://pip.example/simple"
    monkeypatch.setenv("SUREFOOT_INDEX_URL", "https://own.example/simple")
    assert package_index.index_url() == "https://own.example/simple"
    for name in ("SUREFOOT_INDEX_URL", "PIP_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    assert package_index.index_url() == "https://pypi.org/simple"


def test_cache_folder_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.delenv("SUREFOOT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform.startswith("linux"):
        assert assets.cache_folder() == tmp_path / "surefoot"
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path / "mine"))
    assert assets.cache_folder() == tmp_path / "mine"


def test_progress_bar_goes_to_standard_error(index, capsys):
    fetch("toy", progress=True)
    captured = capsys.readouterr()
    assert "fetching toy-1.0" in captured.err
    assert captured.out == ""
