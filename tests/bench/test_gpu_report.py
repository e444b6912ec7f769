import json
from pathlib import Path

from bench.gpu_report import Report, read_report, shown


def test_every_row_is_on_disk_at_once_and_read_back_as_it_was(tmp_path: Path) -> None:
    report = Report("Speed", tmp_path / "a" / "speed.json")
    report.add({"scene": "1 M", "ms": 1.25})
    assert json.loads((tmp_path / "a" / "speed.json").read_text())["rows"] == [{"scene": "1 M", "ms": 1.25}]
    report.add({"scene": "3 M", "ms": None, "gate": True})
    report.note("as measured")
    report.keep("curve", [1, 2])
    report.fail("too slow")
    again = read_report(tmp_path / "a" / "speed.json", "another title")
    assert again == report
    assert again.markdown().splitlines() == [
        "### Speed",
        "",
        "| scene | ms | gate |",
        "| --- | --- | --- |",
        "| 1 M | 1.25 | – |",
        "| 3 M | – | yes |",
        "",
        "- as measured",
        "- **FAILED**: too slow",
    ]


def test_a_part_that_wrote_nothing_has_an_empty_report(tmp_path: Path) -> None:
    report = read_report(tmp_path / "none.json", "Title")
    assert (report.title, report.rows, report.failures) == ("Title", [], [])


def test_cells_are_short_and_cannot_break_a_table() -> None:
    assert [shown(value) for value in (1234567, 0.000012345, 12345.6, False, "a|b\nc")] == [
        "1,234,567",
        "1.234e-05",
        "12346",
        "NO",
        "a/b c",
    ]
