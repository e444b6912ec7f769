"""What the commands show: bars while work goes on, figures at the end."""

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TransferSpeedColumn
from rich.table import Table

from engine.errors import SplatError

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

STAGE_TITLES = {"ingest": "Read photos", "poses": "Find cameras", "train": "Train gaussians", "compress": "Write files"}
ENDED = ("done", "skipped")
STATE_COLOURS = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "running": "cyan"}


def error(problem: SplatError) -> None:
    """Write an error: title, what was seen, what to do."""
    err.print(problem.title, markup=False, style="bold red")
    err.print(problem.detail, markup=False, style="default")
    if problem.hint:
        err.print(problem.hint, markup=False, style="cyan")


def transfer_bars() -> Progress:
    """Return progress bars that count bytes."""
    return Progress(
        TextColumn("{task.description:<18}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
        console=err,
        transient=True,
    )


class StageBars:
    """A bar for each stage of a job, drawn from the job as the server tells it; ended stages leave a line."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[note]}", markup=False),
            console=err,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._told: set[str] = set()

    def __enter__(self) -> "StageBars":
        self._bars.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._bars.stop()

    def update(self, job: dict[str, Any]) -> None:
        """Draw the job."""
        for stage in job["stages"]:
            name, state = stage["name"], stage["state"]
            title = STAGE_TITLES.get(name, name)
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(title, total=1.0, note="")
            fraction = 1.0 if state in ENDED else float(stage.get("progress") or 0.0)
            note = str(stage.get("message") or "") if state == "running" else state
            self._bars.update(self._tasks[name], completed=fraction, note=note)
            if state in ENDED and name not in self._told:
                self._told.add(name)
                took = f"{stage['seconds']:.1f} s" if stage.get("seconds") is not None else ""
                self._bars.console.print(f"[green]✓[/] {title:<18} {state} {took}".rstrip())

    def warn(self, detail: str) -> None:
        """Write a remark of the engine above the bars."""
        self._bars.console.print(f"[yellow]![/] {escape(detail)}")


def rejected(photos: list[tuple[str, str]]) -> None:
    """List the photos that were left out, each with the reason."""
    if not photos:
        return
    err.print(f"[yellow]{len(photos)} photo{'s' if len(photos) > 1 else ''} left out:[/]")
    for name, reason in photos:
        err.print(f"  {name}: {reason}", markup=False)


def figures(report: dict[str, Any]) -> None:
    """Write the figures of a finished run."""
    lines: list[tuple[str, str]] = []

    def add(title: str, key: str, form: Callable[[Any], str]) -> None:
        if report.get(key) is not None:
            lines.append((title, form(report[key])))

    if report.get("registered") is not None and report.get("photos") is not None:
        lines.append(("Photos registered", f"{report['registered']} of {report['photos']}"))
    add("Gaussians", "gaussians", lambda n: f"{n:,}")
    add("PSNR, held out", "psnr_db", lambda value: f"{value:.2f} dB")
    add("SSIM, held out", "ssim", lambda value: f"{value:.4f}")
    add("Time", "seconds", lambda seconds: ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items()))
    for title, value in lines:
        out.print(f"{title:<18} {value}", markup=False)


def jobs(page: list[dict[str, Any]]) -> None:
    """Write a table of jobs."""
    table = Table("id", "state", "stage", "progress", "preset", "created", box=None, pad_edge=False)
    for job in page:
        colour = STATE_COLOURS.get(job["state"], "default")
        table.add_row(
            job["id"],
            f"[{colour}]{job['state']}[/]",
            job.get("stage") or "",
            f"{100 * job['progress']:.0f} %",
            job["preset"],
            job["created_at"],
        )
    out.print(table)


def job(one: dict[str, Any]) -> None:
    """Write one job with its stages."""
    out.print(f"{one['id']}  {one['state']}  {100 * one['progress']:.0f} %  {one['preset']}", markup=False)
    for stage in one["stages"]:
        note = stage.get("message") or ""
        out.print(
            f"  {stage['name']:<10} {stage['state']:<8} {100 * float(stage.get('progress') or 0.0):>3.0f} %  {note}".rstrip(), markup=False
        )
    failure = one.get("error")
    if failure:
        out.print(f"{failure['title']}: {failure['detail']}\n{failure.get('hint') or ''}".rstrip(), markup=False)
