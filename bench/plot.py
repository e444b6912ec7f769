"""Pictures of what ``bench.train`` measured. Alone: ``python -m bench.plot RUNS.json OUT.png`` draws figures that were written earlier."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # no window, wherever it runs
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

# Okabe and Ito's colours: told apart by everybody. Lines differ in style too, for paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")
ROW_INCHES, COLUMN_INCHES = 2.7, 4.0
PANELS = (
    ("cpu_seconds", "psnr_db", "CPU seconds", "held-out PSNR, dB"),
    ("step", "psnr_db", "step", "held-out PSNR, dB"),
    ("step", "gaussians", "step", "gaussians, thousands"),
)


def write_learning_curves(runs: list[dict[str, Any]], target: Path) -> Path:
    """Draw one row a set (PSNR over CPU seconds and over steps, gaussians over steps), one line a configuration; return ``target``.

    Raises ``ValueError`` when there is no run to draw.
    """
    if not runs:
        raise ValueError("there is no run to draw")
    sets = list(dict.fromkeys(run["set"] for run in runs))
    labels = list(dict.fromkeys(run["label"] for run in runs))
    size = (COLUMN_INCHES * len(PANELS), ROW_INCHES * len(sets) + 0.5)
    figure, grid = plt.subplots(len(sets), len(PANELS), figsize=size, squeeze=False, layout="constrained")
    for row, name in zip(grid, sets, strict=True):
        for axes, panel in zip(row, PANELS, strict=True):
            draw_panel(axes, [run for run in runs if run["set"] == name], labels, panel)
        row[0].set_title(name, loc="left", fontweight="bold")
    handles, shown = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, shown, loc="outside upper center", ncols=min(len(labels), 4), frameon=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110)
    plt.close(figure)
    return target


def draw_panel(axes: Axes, runs: list[dict[str, Any]], labels: list[str], panel: tuple[str, str, str, str]) -> None:
    """Draw the curves of one set."""
    across, up, across_title, up_title = panel
    unit = 1e-3 if up == "gaussians" else 1.0
    for run in runs:
        index = labels.index(run["label"])
        xs, ys = ([point[name] for point in run["curve"]] for name in (across, up))
        style = STYLES[index % len(STYLES)]
        axes.plot(xs, [unit * y for y in ys], style, color=COLOURS[index % len(COLOURS)], label=run["label"], linewidth=1.6)
    axes.set_xlabel(across_title)
    axes.set_ylabel(up_title)
    axes.set_xlim(left=0)
    if up == "gaussians":
        axes.set_ylim(bottom=0)
    axes.grid(visible=True, color="0.9")
    axes.spines[["top", "right"]].set_visible(False)


def main() -> int:
    """Draw the figures of a JSON file."""
    parser = argparse.ArgumentParser(prog="python -m bench.plot", description=__doc__)
    parser.add_argument("json", type=Path)
    parser.add_argument("target", type=Path)
    given = parser.parse_args()
    print(write_learning_curves(json.loads(given.json.read_text())["runs"], given.target))
    return 0


if __name__ == "__main__":
    sys.exit(main())
