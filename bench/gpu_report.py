"""What a part of ``make gpu-check`` found: rows that are written at once, so that a part that is cut short leaves what it had."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.workspace import read_json, replacing

Cell = str | int | float | bool | None


@dataclass
class Report:
    """Rows of one table, lines beside it, and whether what they show is as it should be."""

    title: str
    path: Path | None = None  # written after every change
    rows: list[dict[str, Cell]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)  # curves and the like: for the JSON alone

    def add(self, row: Mapping[str, Cell]) -> None:
        """Add a row; columns are those of all rows, in the order they came."""
        self.rows.append(dict(row))
        self.write()

    def note(self, text: str) -> None:
        """Add a line below the table."""
        self.notes.append(text)
        self.write()

    def fail(self, text: str) -> None:
        """Say what is not as it should be."""
        self.failures.append(text)
        self.write()

    def keep(self, name: str, value: Any) -> None:
        """Keep JSON values that no table shows."""
        self.data[name] = value
        self.write()

    def write(self) -> None:
        """Write everything so far."""
        if self.path is not None:
            write_in_order(self.path, {name: value for name, value in asdict(self).items() if name != "path"})

    def markdown(self) -> str:
        """Return title, table and lines."""
        parts = [f"### {self.title}", ""]
        if self.rows:
            columns = list(dict.fromkeys(name for row in self.rows for name in row))
            parts += [
                _line(columns),
                _line(["---"] * len(columns)),
                *(_line([shown(row.get(name)) for name in columns]) for row in self.rows),
                "",
            ]
        parts += [f"- {text}" for text in self.notes] + [f"- **FAILED**: {text}" for text in self.failures]
        return "\n".join([*parts, ""])


def write_in_order(path: Path, value: Any) -> None:
    """Write JSON with keys in the order they came, which is that of a table's columns; aside, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as aside:
        aside.write_text(json.dumps(value, indent=1) + "\n")


def read_report(path: Path, title: str) -> Report:
    """Return what a part wrote; an empty report where it wrote nothing."""
    return Report(**read_json(path), path=path) if path.is_file() else Report(title, path)


def shown(value: Cell) -> str:
    """Return a cell as text: numbers to four figures, nothing as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return value.replace("|", "/").replace("\n", " ")


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
