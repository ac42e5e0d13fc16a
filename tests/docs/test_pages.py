"""Every page of the documentation that can be run is run, and prints what it shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from generate.blocks import DOCS, PAGES, WRITTEN_ON, Page, blocks, clean, difference

from surefoot.environment import processor
from surefoot.models.model import Model


@pytest.mark.parametrize("name", PAGES)
def test_a_page_prints_what_it_shows(name: str, minilm: Model, tmp_path: Path) -> None:
    ran = 0
    for block, printed in Page(DOCS / name, tmp_path).run():
        where = f"docs/{name}, line {block.line}"
        if block.output is None:
            assert not clean(printed), f"{where}: it prints something that the page does not show; make docs-outputs"
        else:
            found = difference(block.output, printed) if _comparable(DOCS / name) else None
            assert found is None, (
                f"{where}: {found}; if that is right, make docs-outputs and look at what is said of it"
            )
        ran += 1
    assert ran


def _comparable(path: Path) -> bool:
    """Whether the page's outputs hold on this processor: which trial a search chooses may hang on the last bits of bfloat16,
    and pages on which it does say where they were written."""
    written = WRITTEN_ON.search(path.read_text("utf8"))
    return written is None or written[1] == processor()


def test_a_page_of_another_processor_is_run_and_not_compared(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    for said, comparable in {
        "": True,
        f"<!-- outputs: {processor()} -->": True,
        "<!-- outputs: Z80 -->": False,
    }.items():
        path.write_text(f"{said}\n# Page\n")
        assert _comparable(path) is comparable


def test_every_page_with_code_is_run_or_says_why_not() -> None:
    for path in DOCS.rglob("*.md"):
        name = str(path.relative_to(DOCS))
        written = name == "index.md" or name.startswith(("tutorials/", "concepts/", "start"))
        if written and name not in PAGES:
            assert [block.language for block in blocks(path.read_text("utf8"))] == [], name


PAGE = """
```python
x = 41 + 1
print(x, "and", x / 5, "in", 3, "s")
```

```text title="Output"
42 and 8.4 in 9 s
```

<!-- not run: it fails -->
```python
raise SystemExit
```

```yaml title="a/b.yaml"
x: 1
```

<!-- check
assert x == 42
-->

```sh
echo one
# a comment
echo two  \\
  three
```
"""


def test_blocks_run_in_order_in_one_namespace_and_folder(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    (tmp_path / "a").mkdir()
    path.write_text(PAGE)
    ran = list(Page(path, tmp_path).run())
    assert [block.language for block, _ in ran] == ["python", "yaml", "check", "sh"]
    first, printed = ran[0]
    assert first.output is not None
    assert difference(first.output, printed) is None
    assert (tmp_path / "a" / "b.yaml").read_text() == "x: 1\n"
    assert ran[3][1] == "one\ntwo three\n"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("x = 41 + 1", "x = 1 / 0", "page.md, line 2: ZeroDivisionError"),
        ("assert x == 42", "assert x == 43", "page.md, line 20: AssertionError"),
        ("echo one", "ls no-such-file", "page.md, line 24: RuntimeError: `ls no-such-file` ended with"),
        ("echo one", "surefoot evaluate no-such-run --data x=y", "no-such-run: no such folder"),
    ],
)
def test_a_block_that_fails_is_named(tmp_path: Path, before: str, after: str, message: str) -> None:
    path = tmp_path / "page.md"
    (tmp_path / "a").mkdir()
    path.write_text(PAGE.replace(before, after))
    with pytest.raises(AssertionError) as caught:
        list(Page(path, tmp_path).run())
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("accuracy 71.0", "accuracy 72.0", True),
        ("accuracy 71.0", "accuracy 79.0", False),
        ("chosen: lp_ft", "chosen: wise_ft", False),
        ("200 examples", "300 examples", False),
        ("done in 12 s", "done in 95.5 s", True),
        ("│ 9.8 │", "│  10.1   │", True),
        ("one\ntwo", "one", False),
        ("gain +0.3", "gain -0.3", False),
    ],
)
def test_what_counts_as_different(shown: str, printed: str, same: bool) -> None:
    assert (difference(shown, printed) is None) is same
