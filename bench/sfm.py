"""Structure from motion against pycolmap's defaults: ``python -m bench.sfm --json OUT [--only NAME] [--cached] FOLDER…``.

Each set is done twice in one run, with the same number of threads, in child processes one after the other: by pycolmap's defaults
(extract, match every pair, map incrementally) and by our stages ingest and poses, from the same files to undistorted photos. CPU seconds
are those of the whole child, start and imports included. ``--cached`` takes the defaults' figures from OUT where an earlier run wrote them.
A folder with FOLDER.truth.json beside it, or with transforms_train.json in it, is also held against its true poses.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.poses import compare_poses
from bench.real import photos_of
from engine.formats.colmap import read_reconstruction
from engine.geometry import Array
from engine.workspace import Workspace, read_json, read_stamp, write_json
from tests.data.make_data import read_truth, truth_path

LIMIT_S = 1800.0
Figures = dict[str, Any]


def run_child(command: list[str]) -> tuple[str, float, float]:
    """Run a program; return what it said, its wall and its CPU seconds. Raises ``CalledProcessError``."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, timeout=LIMIT_S, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, round(time.monotonic() - started, 3), round(cpu_s, 3)


def defaults(photos: Path, n_threads: int) -> Figures:
    """Return what pycolmap's defaults make of the photos."""
    with tempfile.TemporaryDirectory() as scratch:
        said, wall_s, cpu_s = run_child(["bench.sfm_defaults", str(photos), scratch, str(n_threads)])
    figures: Figures = json.loads(said.splitlines()[-1])
    return figures | {"total_wall_s": wall_s, "total_cpu_s": cpu_s}


def ours(photos: Path, root: Path, n_threads: int) -> Figures:
    """Return what our stages make of the photos; a refusal is listed with its code."""
    workspace = Workspace.at(root, photos)
    steps: dict[str, float] = {}
    total_wall_s = total_cpu_s = 0.0
    for stage in ("ingest", "poses"):
        settings = ["--set", f"threads={n_threads}", "--set", "poses.source=estimate"]
        command = ["engine", "stage", stage, str(root), "--photos", str(photos), *settings]
        try:
            _, wall_s, cpu_s = run_child(command)
        except subprocess.CalledProcessError as failure:
            return {"error": json.loads(failure.stdout.splitlines()[-1]).get("error"), "registered": 0, "sound": 0}
        steps[stage], total_wall_s, total_cpu_s = cpu_s, total_wall_s + wall_s, total_cpu_s + cpu_s
    stamp = read_stamp(workspace, "poses")
    stats = stamp.stats if stamp else {}
    return {
        "registered": stats["n_registered"],
        "sound": stats["n_registered"],
        "points": stats["n_points"],
        "error_px": stats["reprojection_error_px"],
        "mapper": stats["mapper"],
        "attempts": stats["attempts"],
        "pairs": stats["pairs"],
        "wall_s": stats["seconds"],
        "cpu_s": {"ingest": steps["ingest"], **stats["cpu_seconds"]},
        "total_wall_s": round(total_wall_s, 3),
        "total_cpu_s": round(total_cpu_s, 3),
        "truth": against_truth(photos, workspace),
    }


def against_truth(photos: Path, workspace: Workspace) -> Figures:
    """Return the errors against true poses, distances in % of the cameras' mean distance from their middle; {} where none are known."""
    true = true_poses(photos)
    if not true:
        return {}
    estimated = {image.name: image.cam_from_world for image in read_reconstruction(workspace.sparse).images}
    # Ingest may have given names of its own; the record says which photo each was.
    sources = {record["name"]: Path(record["source_name"]).name for record in read_json(workspace.images_index)}
    errors = compare_poses({sources.get(name, name): pose for name, pose in estimated.items()}, true)
    centres = np.stack([-pose[:, :3].T @ pose[:, 3] for pose in true.values()])
    radius = float(np.linalg.norm(centres - centres.mean(axis=0), axis=1).mean())
    return {
        "photos": errors.n_compared,
        "rotation_median_deg": round(errors.rotation_median_deg, 5),
        "rotation_max_deg": round(errors.rotation_max_deg, 5),
        "position_median_percent": round(100 * errors.position_median_m / radius, 4),
        "position_max_percent": round(100 * errors.position_max_m / radius, 4),
    }


def true_poses(photos: Path) -> dict[str, Array]:
    """Return name -> cam_from_world [3, 4] of the made capture's truth or of a NeRF transforms_train.json; {} where there is neither."""
    if truth_path(photos).is_file():
        return {name: np.asarray(view.cam_from_world, np.float64) for name, view in read_truth(photos).views.items()}
    transforms = photos.parent / "transforms_train.json"
    if not transforms.is_file():
        return {}
    poses: dict[str, Array] = {}
    for frame in json.loads(transforms.read_text())["frames"]:
        # NeRF's cameras look along -z with y up: turn both to OpenCV's.
        world_from_cam = np.asarray(frame["transform_matrix"], np.float64) @ np.diag([1.0, -1.0, -1.0, 1.0])
        poses[Path(frame["file_path"]).name] = np.asarray(np.linalg.inv(world_from_cam)[:3], np.float64)
    return poses


def table(results: list[Figures]) -> str:
    """Return the comparison as a Markdown table, defaults / ours."""
    lines = ["| set | registered | sound | points | error px | CPU s | wall s | CPU ratio | our CPU s by step |", "|" + "---|" * 9]
    for result in results:
        base, mine = result["defaults"], result["ours"]
        both = [f"{base.get(key, 0)} / {mine.get(key, 0)}" for key in ("registered", "sound", "points", "error_px")]
        times = [f"{base[key]:.1f} / {mine.get(key, 0):.1f}" for key in ("total_cpu_s", "total_wall_s")]
        steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in mine.get("cpu_s", {}).items())
        ratio = f"{mine.get('total_cpu_s', 0) / base['total_cpu_s']:.2f}"
        lines.append("| " + " | ".join([result["set"], *both, *times, ratio, steps]) + " |")
    sums = [sum(result[who].get("total_cpu_s", 0) for result in results) for who in ("defaults", "ours")]
    lines.append(f"| **all** | | | | | {sums[0]:.1f} / {sums[1]:.1f} | | **{sums[1] / max(sums[0], 1e-9):.2f}** | |")
    return "\n".join(lines)


def main() -> int:
    """Run the sets of the command line; return 1 when ours places fewer photos on one of them."""
    parser = argparse.ArgumentParser(prog="python -m bench.sfm", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--json", type=Path, required=True, metavar="OUT")
    parser.add_argument("--only", action="append", metavar="NAME", help="of the folders only these")
    parser.add_argument("--cached", action="store_true", help="defaults' figures from OUT where they are there")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    earlier = {each["set"]: each for each in read_json(given.json)["results"]} if given.cached and given.json.is_file() else {}
    results: list[Figures] = []
    for folder in (each.resolve() for each in given.folders if not given.only or each.resolve().name in given.only):
        photos = photos_of(folder)
        base = earlier[folder.name]["defaults"] if folder.name in earlier else defaults(photos, given.threads)
        with tempfile.TemporaryDirectory() as scratch:
            mine = ours(photos, Path(scratch), given.threads)
        results.append({"set": folder.name, "n_photos": sum(path.is_file() for path in photos.iterdir()), "defaults": base, "ours": mine})
        done = {each["set"] for each in results}
        kept = [each for name, each in earlier.items() if name not in done]
        write_json(given.json, {"threads": given.threads, "load": os.getloadavg()[1], "results": results + kept})
        print(table(results[-1:]), file=sys.stderr, flush=True)
    print(table(results))
    return 1 if any(each["ours"]["sound"] < each["defaults"]["sound"] for each in results) else 0


if __name__ == "__main__":
    sys.exit(main())
