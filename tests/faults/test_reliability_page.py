"""The page of promises names only tests that exist, and some for every promise."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
NAMED = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")


def names_in(path: Path) -> set[str]:
    if not path.exists():
        return set()
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_test_that_the_page_names_exists():
    named = NAMED.findall(PAGE)
    assert len(named) > 30
    assert [f"{path}::{name}" for path, name in named if name not in names_in(ROOT / path)] == []


def test_every_promise_is_held_by_tests():
    rows = dict(re.findall(r"^\| (P\d+) \| (.*)$", PAGE, re.MULTILINE))
    assert list(rows) == [f"P{number}" for number in range(1, 16)]
    assert [number for number, row in rows.items() if not NAMED.search(row)] == []
