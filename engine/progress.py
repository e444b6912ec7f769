"""Progress bars in a terminal, one a stage; plain lines where there is no terminal."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from engine import events
from engine.options import STAGES


class ProgressBars:
    """Shows the events of a run."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.fields[stage]:<9}"), BarColumn(30), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn())
        self._progress = Progress(*columns, TextColumn("{task.description}"), console=console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        for stage in STAGES:
            self._tasks[stage] = self._progress.add_task("", total=1.0, start=False, stage=stage)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def on_event(self, event: events.Event) -> None:
        """Show one event."""
        match event:
            case events.StageStarted(stage):
                self._progress.start_task(self._tasks[stage])
            case events.Progress(stage, fraction, message, _):
                self._progress.update(self._tasks[stage], completed=fraction, description=escape(message))
            case events.Warned(_, _, detail, _):
                self._progress.console.print(f"[yellow]![/yellow] {escape(detail)}")
            case events.StageDone(stage, seconds, skipped, _):
                said = "up to date" if skipped else f"{seconds:.1f} s"
                self._progress.update(self._tasks[stage], completed=1.0, description=said)
                self._progress.stop_task(self._tasks[stage])
            case _:
                return
