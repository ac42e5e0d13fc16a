"""The part of a Python package index that surefoot needs: find a file by name (PEP 503, PEP 691) and download it."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from surefoot.errors import AssetError

PYPI = "https://pypi.org/simple"

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


def index_url() -> str:
    """The index: `SUREFOOT_INDEX_URL`, pip's or uv's variable, pip's configuration files, else PyPI."""
    for name in ("SUREFOOT_INDEX_URL", "PIP_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX"):
        if value := os.environ.get(name, "").strip():
            return re.sub(r"^[\w.-]+=(?=\w+://)", "", value)  # uv allows "name=address"
    return _configured() or PYPI


def _configured() -> str | None:
    """`[global] index-url` of pip's configuration files; a later file wins, as in pip."""
    home = Path.home()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    override = os.environ.get("PIP_CONFIG_FILE")
    if override == os.devnull:
        return None
    files = [Path(folder) / "pip/pip.conf" for folder in os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")]
    files += [Path("/etc/pip.conf"), Path("/Library/Application Support/pip/pip.conf")]
    files += [home / ".pip/pip.conf", home / "Library/Application Support/pip/pip.conf", config / "pip/pip.conf"]
    if os.name == "nt":
        files += [Path(os.environ.get("APPDATA", home)) / "pip/pip.ini", home / "pip/pip.ini"]
    files += [Path(sys.prefix) / ("pip.ini" if os.name == "nt" else "pip.conf")]
    files += [Path(override)] if override else []
    found = None
    for file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeError):
            continue  # a broken pip configuration is pip's to report
        found = parser.get("global", "index-url", fallback=found)
    return found.strip() if found else None


def local_folders() -> list[Path]:
    """Folders that may hold the archives: `SUREFOOT_ASSETS` and `PIP_FIND_LINKS`."""
    places = os.environ.get("SUREFOOT_ASSETS", "").split(os.pathsep) + os.environ.get("PIP_FIND_LINKS", "").split()
    paths = [_local(place) if place.startswith("file:") else Path(place).expanduser() for place in places if place]
    return [path for path in paths if path.is_dir()]


def find(package: str, filename: str) -> str:
    """The address of `filename` on the index. Raises AssetError if the index or the file cannot be reached."""
    base = index_url().rstrip("/")
    page = f"{base}/{re.sub(r'[-_.]+', '-', package).lower()}/"
    links = _local_links(page) if page.startswith("file:") else _remote_links(page)
    for link in links:
        if unquote(urlsplit(link).path).rpartition("/")[2] == filename:
            return link.partition("#")[0]
    raise AssetError(
        f"the package index {redact(base)} has no {filename}; set SUREFOOT_INDEX_URL to one that has it, or put "
        "the file into a folder named by SUREFOOT_ASSETS"
    )


def download(link: str, path: Path, *, megabytes: float, progress: bool | None = None) -> None:
    """Stream `link` to `path`, with a progress bar when standard error is a terminal."""
    if link.startswith("file:"):
        try:
            shutil.copyfile(_local(link), path)
        except FileNotFoundError:
            raise AssetError(f"{link}: the index names this file but it is not there; mend the index") from None
        return
    import httpx

    show = sys.stderr.isatty() if progress is None else progress
    with _bar(path, link, megabytes, show) as advance:
        for attempt in _attempts(link):
            try:
                with path.open("wb") as out, _client(httpx) as client:
                    advance(None)
                    # Raw bytes: some servers label a .tar.gz as a gzip *encoding*, which must not be undone.
                    with client.stream("GET", link, headers={"Accept-Encoding": "identity"}) as answer:
                        _refuse(answer, link)
                        for chunk in answer.iter_raw(1 << 18):
                            out.write(chunk)
                            advance(len(chunk))
                return
            except httpx.TransportError as error:
                attempt(error)
            except (httpx.InvalidURL, httpx.TooManyRedirects) as error:
                raise AssetError(f"{redact(link)} cannot be fetched ({error}); use another index") from None


def redact(url: str) -> str:
    """The address without its user name and password, for messages.

    >>> redact("https://me:secret@example.org/simple")
    'https://example.org/simple'
    """
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.base = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if href and tag == "a":
            self.links.append(href)
        elif href and tag == "base":
            self.base = href


def _links_of_html(text: str, page: str) -> list[str]:
    parser = _Anchors()
    parser.feed(text)
    base = urljoin(page, parser.base)
    return [urljoin(base, link) for link in parser.links]


def _local(url: str) -> Path:
    from urllib.request import url2pathname

    return Path(url2pathname(urlsplit(url).path))


def _local_links(page: str) -> list[str]:
    folder = _local(page)
    if (index := folder / "index.html").is_file():
        return _links_of_html(index.read_text(encoding="utf-8"), page)
    return [file.as_uri() for file in folder.iterdir()] if folder.is_dir() else []


def _remote_links(page: str) -> list[str]:
    import httpx

    for attempt in _attempts(page):
        try:
            with _client(httpx) as client:
                answer = client.get(page, headers={"Accept": _ACCEPT})
        except httpx.TransportError as error:
            attempt(error)
            continue
        except (httpx.InvalidURL, httpx.TooManyRedirects) as error:
            raise AssetError(
                f"the package index {redact(page)} cannot be used ({error}); check SUREFOOT_INDEX_URL"
            ) from None
        _refuse(answer, page)
        if "json" in answer.headers.get("content-type", ""):
            try:
                return [urljoin(str(answer.url), file["url"]) for file in answer.json()["files"]]
            except (ValueError, KeyError, TypeError):
                raise AssetError(f"{redact(page)} is not a package index (PEP 691); check SUREFOOT_INDEX_URL") from None
        return _links_of_html(answer.text, str(answer.url))
    raise AssertionError("unreachable: the last attempt raises")


def _client(httpx: Any) -> Any:
    timeout = httpx.Timeout(60, connect=15)
    try:
        return httpx.Client(follow_redirects=True, timeout=timeout, headers={"User-Agent": "surefoot"})
    except OSError as error:
        raise AssetError(f"the certificates named by SSL_CERT_FILE cannot be read ({error}); correct it") from None


def _attempts(url: str, *, most: int = 3) -> Iterator[Any]:
    """Yield, up to `most` times, a function to report a failure to; the last report raises."""
    for attempt in range(most):

        def report(error: Exception, attempt: int = attempt) -> None:
            hopeless = type(error).__name__ in ("ConnectTimeout", "UnsupportedProtocol")
            if attempt == most - 1 or hopeless:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise AssetError(
                    f"cannot reach {redact(url)} ({reason}); check the network, or set SUREFOOT_INDEX_URL to an index "
                    "that can be reached"
                ) from None
            time.sleep(0.3 * 2**attempt)

        yield report


def _refuse(answer: Any, url: str) -> None:
    if answer.status_code == 404:
        raise AssetError(f"{redact(url)}: not found (404); set SUREFOOT_INDEX_URL to an index that has it")
    if answer.status_code in (401, 403, 407):
        raise AssetError(
            f"{redact(url)}: access refused ({answer.status_code}); check the credentials in the index address"
        )
    if answer.status_code >= 400:
        raise AssetError(
            f"{redact(url)}: the server answered {answer.status_code}; try again later or use another index"
        )


@contextmanager
def _bar(path: Path, link: str, megabytes: float, show: bool) -> Iterator[Any]:
    """Yield advance(bytes), where None means "from the start"."""
    if not show:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    name = unquote(urlsplit(link).path).rpartition("/")[2]
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"fetching {name}", total=megabytes * 1e6)
        yield lambda count: bar.reset(task) if count is None else bar.advance(task, count)
