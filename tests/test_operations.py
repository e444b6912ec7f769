"""What docs/operations.md lists is what there is."""

import ast
import re
from pathlib import Path

import pytest

from api.settings import Settings
from tests.services import installed, stack_of

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/operations.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table under a heading."""
    section = PAGE.partition(f"## {heading}\n")[2]
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE).group()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def listed_metrics() -> dict[str, tuple[str, set[str]]]:
    """Return (type, labels) by name, as the page lists them."""
    return {cells[0].strip("`"): (cells[1], set(filter(None, cells[2].split(", ")))) for cells in rows("Metrics")}


def tallied() -> dict[str, set[str]]:
    """Return the labels of everything that is counted in the database, from the calls in the source."""
    found: dict[str, set[str]] = {}
    for package in ("api", "worker"):
        for path in (ROOT / package).rglob("*.py"):
            for call in filter(lambda node: isinstance(node, ast.Call), ast.walk(ast.parse(path.read_text()))):
                if ast.unparse(call.func) in ("tallies.add", "tallies.observe"):
                    found[f"splatworks_{ast.literal_eval(call.args[1])}"] = {each.arg for each in call.keywords}
    return found


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What an installation with nothing but an api says of itself."""
    with stack_of("embedded") as stack, installed(stack, tmp_path_factory.mktemp("operations") / "data") as made, made.api() as client:
        client.get("/v1/jobs")
        return client.get("/metrics").text, client.get("/readyz").json()


def test_the_page_lists_every_metric_with_its_type_and_no_other(answers):
    shown = dict(re.findall(r"^# TYPE (\S+) (\w+)$", answers[0], re.MULTILINE))
    shown = {name: kind for name, kind in shown.items() if not name.endswith("_created")}
    assert {name: kind for name, (kind, _labels) in listed_metrics().items()} == shown


def test_the_page_lists_the_labels_of_every_metric(answers):
    listed, counted = listed_metrics(), tallied()
    assert len(counted) >= 7
    for name, labels in counted.items():
        assert listed[name][1] == labels, name
    seen: dict[str, set[str]] = {}
    for sample, labels in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", answers[0], re.MULTILINE):
        seen.setdefault(sample, set()).update(set(re.findall(r'(\w+)="', labels)) - {"le"})
    for name, (kind, labels) in listed.items():
        if name not in counted:
            assert seen[f"{name}_count" if kind == "histogram" else name] == labels, name


def test_alerts_ask_for_metrics_that_there_are():
    alerts = PAGE.partition("```promql\n")[2].partition("```")[0]
    asked = set(re.findall(r"splatworks_\w+", alerts))
    assert len(asked) >= 6
    assert asked <= set(listed_metrics())


def test_the_page_explains_every_check_of_readiness(answers):
    assert {cells[0].strip("`") for cells in rows("Is it well?")} == set(answers[1]["data"]["checks"])


def test_the_page_names_settings_that_there_are():
    names = {name.lower() for name in re.findall(r"\bSPLATWORKS_([A-Z_]+)", PAGE)}
    assert len(names) >= 10
    assert names <= set(Settings.model_fields)


def test_every_page_that_is_linked_is_there():
    for page in (ROOT / "docs").glob("*.md"):
        for name in re.findall(r"\]\(([\w/.-]+\.md)(?:#[\w-]+)?\)", page.read_text()):
            assert (page.parent / name).is_file(), f"{page.name}: {name}"
    for name in ("operations", "webhooks", "access", "reliability"):
        assert f"(docs/{name}.md)" in (ROOT / "README.md").read_text(), name
