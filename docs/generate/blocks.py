"""Run the code blocks of a page in order, as a reader would, and write or compare the outputs that stand beneath them.

A page is Markdown. In it

    ```python            runs in one namespace per page
    ```sh                each command runs in one folder per page; `surefoot` runs in this process
    ```yaml title="x"    is written to the file x of that folder
    ```text title="Output"   after a block: what it printed on standard output; `make docs-outputs` writes it
    <!-- check ... -->   Python that is not shown: what the text around it claims, as assertions
    <!-- not run: why -->   before a block: it is left alone

Everything runs with one thread of torch, so that the same processor gives the same figures.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1]
#: The pages whose blocks run.
PAGES = (
    "start.md",
    "tutorials/text.md",
    "tutorials/images.md",
    "tutorials/embeddings.md",
    "concepts/choosing.md",
    "concepts/data.md",
)
OUTPUT = '```text title="Output"\n'
_BLOCK = re.compile(
    r'(?P<skip><!-- not run:[^>]*-->\n+)?^```(?P<language>\w+)(?: title="(?P<title>[^"]*)")?\n(?P<code>.*?)^```$'
    r"|^<!-- check\n(?P<check>.*?)-->",
    re.S | re.M,
)


@dataclass(frozen=True)
class Block:
    """`end`: where in the page it ends; `output`: what the page says it prints, and where; None if it says nothing."""

    language: str
    title: str
    code: str
    line: int
    end: int
    output: str | None
    output_end: int


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a page that run, in order."""
    found = list(_BLOCK.finditer(text))
    for number, match in enumerate(found):
        if match["skip"] or match["title"] == "Output":
            continue
        after = found[number + 1] if number + 1 < len(found) else None
        shows = after is not None and after["title"] == "Output" and not text[match.end() : after.start()].strip()
        yield Block(
            language="check" if match["check"] is not None else match["language"],
            title=match["title"] or "",
            code=match["check"] or match["code"] or "",
            line=text[: match.start()].count("\n") + 1,
            end=match.end(),
            output=after["code"] if after is not None and shows else None,
            output_end=after.end() if after is not None and shows else match.end(),
        )


@dataclass
class Page:
    """A page that is being run in `folder`."""

    path: Path
    folder: Path
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "page"})

    def run(self) -> Iterator[tuple[Block, str]]:
        """Every block with what it printed; AssertionError, with the line of the page, where one fails."""
        with contextlib.chdir(self.folder), _one_thread():
            for block in blocks(self.path.read_text("utf8")):
                try:
                    yield block, self._run(block)
                except Exception as error:
                    raise AssertionError(
                        f"{self.path.name}, line {block.line}: {type(error).__name__}: {error}"
                    ) from error

    def _run(self, block: Block) -> str:
        if block.language in ("python", "check"):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(block.code, f"{self.path.name}:{block.line}", "exec"), self.names)
            return printed.getvalue()
        if block.language == "sh":
            commands = block.code.replace("\\\n", " ").strip().split("\n")
            return "".join(_command(each) for each in commands if each.strip() and not each.startswith("#"))
        if block.title:
            Path(block.title).write_text(block.code, "utf8")
        return ""


def _command(line: str) -> str:
    """What a command prints on standard output; RuntimeError if it fails."""
    words = shlex.split(line, comments=True)
    if words[0] == "surefoot":
        return _surefoot(words[1:])
    # `python` and others are those of this environment.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": path, "LC_ALL": "C"},
    )
    if done.returncode:
        raise RuntimeError(f"`{line}` ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _surefoot(argv: list[str]) -> str:
    """The command line in this process: a second import of torch for each command would take longer than the command."""
    import importlib
    import pkgutil

    from typer.testing import CliRunner

    import surefoot.cli

    for module in pkgutil.iter_modules(surefoot.cli.__path__):
        importlib.import_module(f"surefoot.cli.{module.name}")
    result = CliRunner().invoke(surefoot.cli.app.app, argv)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code:
        raise RuntimeError(f"surefoot {shlex.join(argv)} ended with {result.exit_code}: {result.stderr.strip()}")
    return str(result.stdout)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def clean(printed: str) -> str:
    """What is shown of an output: no spaces at ends of lines, no blank lines at its ends."""
    return "\n".join(line.rstrip() for line in printed.strip("\n").split("\n")) + "\n" if printed.strip() else ""


#: A figure that may differ between processors, and times, which always do.
_NUMBER = re.compile(r"[+-]?\d[\d,]*\.\d+(?:e[+-]?\d+)?")
_TIME = re.compile(r"\d[\d,.]* (?=s\b|examples/s|MiB)")
#: How far apart two figures may be: this, and this part of the first. Rounding differs between processors.
CLOSE, PART = 0.1, 0.05


#: A page whose outputs hang on the processor says on which they were written.
WRITTEN_ON = re.compile(r"<!-- outputs: (.+) -->")


def difference(shown: str, found: str) -> str | None:
    """The first line in which an output differs from what the page shows; None where they agree.

    Words and counts have to be equal, decimal figures close, times are not compared. Frames of tables are as wide as
    their figures, so they are not compared either.

    >>> difference("right: 70.1 of 100 in 3 s", "right:  70.2 of 100 in 9 s")
    >>> difference("right: 70.1 of 100", "right: 70.1 of 90")
    "the page shows 'right: 70.1 of 100', and it printed 'right: 70.1 of 90'"
    """
    first, second = _lines(shown), _lines(found)
    for one, other in zip(first, second, strict=False):
        numbers = list(zip(map(_value, _NUMBER.findall(one)), map(_value, _NUMBER.findall(other)), strict=False))
        alike = _NUMBER.sub("#", one) == _NUMBER.sub("#", other)
        if not alike or any(abs(a - b) > CLOSE + PART * abs(a) for a, b in numbers):
            return f"the page shows {one!r}, and it printed {other!r}"
    if len(first) != len(second):
        return f"the page shows {len(first)} lines, and it printed {len(second)}"
    return None


def _lines(text: str) -> list[str]:
    """Lines without frames, spacing and times."""
    plain = (_TIME.sub("", re.sub(r"[\s\u2500-\u257f]+", " ", line)).strip() for line in text.split("\n"))
    return [line for line in plain if line]


def _value(text: str) -> float:
    return float(text.replace(",", ""))
