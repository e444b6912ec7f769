"""``make demo``: a capture is made, sent to a service over HTTP, and what comes back is held against the truth.

In a terminal the service goes on running until Ctrl-C, so that the splat can be looked at; without one everything ends by itself. The
exit status is 1 when a promise is missed: all photos registered, 28 dB held out, 0.2° of rotation.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.poses import PoseErrors, compare_poses, poses_of
from cli import address, show
from cli.build import Request, build
from cli.client import Client
from engine.errors import CapacityError, SplatError
from engine.workspace import write_json
from tests.data.cameras import Walk
from tests.data.make_data import Truth, make_capture, read_truth, truth_path

START_S = 120.0
END_S = 40.0
MIN_PSNR_DB = 28.0
MAX_ROTATION_DEG = 0.2


@dataclass(frozen=True)
class Demo:
    """Where the demo keeps its things, and what it photographs."""

    folder: Path
    plan: Walk
    preset: str
    options: dict[str, Any] | None = None

    @property
    def photos(self) -> Path:
        """The capture."""
        return self.folder / "photos"

    @property
    def data(self) -> Path:
        """The service's data folder."""
        return self.folder / "data"

    @property
    def assets(self) -> Path:
        """What was downloaded."""
        return self.folder / "assets"


@dataclass(frozen=True)
class Outcome:
    """What the demo shows: ``report`` has the figures of report.json, ``viewer`` is where to look."""

    report: dict[str, Any]
    poses: PoseErrors
    viewer: str


def run(demo: Demo, url: str, truth: Truth) -> Outcome:
    """Send the photos to the service at ``url``, wait, download every asset, and compare with the truth."""
    demo.assets.mkdir(parents=True, exist_ok=True)
    photos = [demo.photos / name for name in sorted(truth.views)]
    with Client(url) as client:
        build(client, Request(photos, demo.assets / "scene.sog", demo.preset, demo.options))
        job_id = str(client.get("/v1/jobs", limit=1)["items"][0]["id"])
        files = download_all(client, job_id, demo.assets)
    figures = json.loads((demo.assets / "report.json").read_text())
    cameras = json.loads((demo.assets / "cameras.json").read_text())
    poses = compare_poses(poses_of(cameras), {name: view.cam_from_world for name, view in truth.views.items()})
    report = {
        **{key: figures[key] for key in ("registered", "photos", "psnr_db", "ssim", "gaussians", "seconds")},
        "rotation_error_deg": poses.rotation_median_deg,
        "files": files,
    }
    write_json(demo.folder / "report.json", report)
    return Outcome(report, poses, f"{url}/jobs/{job_id}/view")


def download_all(client: Client, job_id: str, folder: Path) -> dict[str, int]:
    """Fetch every asset of the job into ``folder``; return name -> bytes."""
    assets = client.get(f"/v1/jobs/{job_id}/assets")["items"]
    with show.transfer_bars() as bars:
        bar = bars.add_task(f"Download {len(assets)} files", total=sum(asset["size_bytes"] for asset in assets))
        for asset in assets:
            client.download(job_id, asset, folder / asset["name"], lambda count: bars.advance(bar, count))
    return {asset["name"]: asset["size_bytes"] for asset in assets}


def broken_promises(outcome: Outcome) -> list[str]:
    """Return what the run should have reached and did not, in words."""
    report, said = outcome.report, []
    if report["registered"] != report["photos"]:
        said.append(f"{report['registered']} of {report['photos']} photos were registered; all should be")
    if report["psnr_db"] < MIN_PSNR_DB:
        said.append(f"the held-out PSNR is {report['psnr_db']:.2f} dB; {MIN_PSNR_DB:g} were promised")
    if report["rotation_error_deg"] > MAX_ROTATION_DEG:
        said.append(f"the median rotation error is {report['rotation_error_deg']:.3f}°; {MAX_ROTATION_DEG:g}° were promised")
    return said


def describe(outcome: Outcome) -> list[tuple[str, str]]:
    """Return the lines that people read: title and figure."""
    report, poses = outcome.report, outcome.poses
    sizes = sorted(report["files"].items(), key=lambda each: -each[1])
    return [
        ("Photos registered", f"{report['registered']} of {report['photos']}"),
        ("Rotation error", f"{poses.rotation_median_deg:.4f}° median, {poses.rotation_max_deg:.4f}° at most"),
        ("Position error", f"{1000 * poses.position_median_m:.1f} mm median, {1000 * poses.position_max_m:.1f} mm at most"),
        ("Held-out PSNR", f"{report['psnr_db']:.2f} dB"),
        ("Held-out SSIM", f"{report['ssim']:.4f}"),
        ("Gaussians", f"{report['gaussians']:,}"),
        ("Seconds", ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in report["seconds"].items())),
        ("Files", ", ".join(f"{name} {size / 1000:,.0f} kB" for name, size in sizes)),
        ("Viewer", outcome.viewer),
    ]


def take_photos(demo: Demo) -> Truth:
    """Return the truth of the capture, made now unless an earlier demo left this very one."""
    wanted = demo.folder / "photos.plan.json"
    plan = json.dumps(vars(demo.plan))
    if truth_path(demo.photos).exists() and wanted.exists() and wanted.read_text() == plan:
        return read_truth(demo.photos)
    demo.photos.mkdir(parents=True, exist_ok=True)
    with show.transfer_bars() as bars:
        bar = bars.add_task("Take photos", total=demo.plan.n_photos)
        truth = make_capture(demo.photos, demo.plan, lambda done, _: bars.update(bar, completed=done))
    wanted.write_text(plan)
    return truth


@contextmanager
def serving(demo: Demo) -> Iterator[str]:
    """Yield the URL of a service on the demo's data folder; it is ended afterwards, with everything it started."""
    demo.data.mkdir(parents=True, exist_ok=True)
    log_path = demo.folder / "serve.log"
    command = [sys.executable, "-m", "cli.main", "serve", "--port", "0", "--data-dir", str(demo.data)]
    with log_path.open("wb") as log:
        # A session of its own: Ctrl-C in the terminal must reach us first, or the service would be gone before we say goodbye.
        child = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            yield wait_for(child, demo.data, log_path)
        finally:
            end(child)


def wait_for(child: "subprocess.Popen[bytes]", data: Path, log_path: Path) -> str:
    """Return the service's URL once it is ready. Raises ``CapacityError`` with the end of its log when it does not come up."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and child.poll() is None:
        found = address.read(data)
        if found and found.pid == child.pid:
            return found.url
        time.sleep(0.1)
    tail = "\n".join(log_path.read_text(errors="replace").splitlines()[-8:])
    raise CapacityError("capacity.cannot_start", "The service did not start", tail, f"The whole log is {log_path}.")


def end(child: "subprocess.Popen[bytes]") -> None:
    """Ask the service to end, and insist when it takes too long."""
    if child.poll() is not None:
        return
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def stay_until_interrupted() -> None:
    """Sleep until Ctrl-C."""
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        print("\nEnding the service.")


def main() -> int:
    """Run the demo as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".demo"))
    parser.add_argument("--photos", type=int, default=40)
    parser.add_argument("--preset", default="draft")
    given = parser.parse_args()
    demo = Demo(given.folder.resolve(), Walk(given.photos), given.preset)
    for number in (signal.SIGTERM, signal.SIGHUP):
        # A closed terminal ends the demo as Ctrl-C does: with the service that it started.
        signal.signal(number, signal.default_int_handler)
    started = time.monotonic()
    try:
        truth = take_photos(demo)
        with serving(demo) as url:
            outcome = run(demo, url, truth)
            for title, figure in describe(outcome):
                show.out.print(f"{title:<18} {figure}", markup=False, soft_wrap=True)
            broken = broken_promises(outcome)
            for line in broken:
                show.err.print(f"Missed: {line}", style="bold red", markup=False)
            show.out.print(
                f"{time.monotonic() - started:.0f} s in all; the same figures are in {given.folder / 'report.json'}", markup=False
            )
            if sys.stdout.isatty():
                show.out.print("The service goes on until Ctrl-C.", markup=False)
                stay_until_interrupted()
    except SplatError as error:
        show.error(error)
        return 1
    except KeyboardInterrupt:
        return 130
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
