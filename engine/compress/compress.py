"""Stage: from trained gaussians to the files that users download.

Prunes, orders, writes every asked format, reads each back and measures what it lost. All files carry the trainer's frame untouched
(COLMAP's axes; viewers turn it as they do with any 3DGS file).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.compress.gate import REACH, check_finite_share, check_geometry
from engine.compress.kept import Tries, hash_scene, read_tally, write_tally
from engine.compress.prune import Contribution, Tally, finite_rows, measure_contribution, prune, pull_in
from engine.compress.verify import Reference
from engine.compress.views import NamedView, Views, load_views
from engine.compress.write import TARGET_DB, SogChoice, read_back, write_asset
from engine.device import open_device
from engine.errors import InternalError
from engine.events import OnEvent, Progress, Warned
from engine.formats.archive import write_stored_zip
from engine.formats.ply import read_ply
from engine.gaussians import Gaussians
from engine.options import RunOptions
from engine.order import morton_order
from engine.preview import write_preview
from engine.unfinished import Headway, Pieces, place, unfinished
from engine.workspace import Workspace, hash_file, replacing_folder, write_json
from kernels.step import Device

STAGE = "compress"
MODEL_FILES = ("cameras.bin", "images.bin", "points3D.bin")


@dataclass(frozen=True)
class Scene:
    """The gaussians to write, in order, what each contributes, and how they came about."""

    gaussians: Gaussians
    contribution: Contribution
    stats: dict[str, Any]


def run(workspace: Workspace, options: RunOptions, on_event: OnEvent) -> dict[str, Any]:
    """Write assets/: scene.<format> for every asked format, cameras.json, colmap.zip, preview.webp. All of them appear at once.

    Raises ``CaptureError`` ``capture.degenerate_geometry`` when what was trained is no scene.
    """
    torch.set_num_threads(1)  # the kernels have their own pool
    trained = workspace.train / "gaussians.ply"
    if not trained.is_file():
        raise InternalError("internal.missing_artefact", "Missing file", "train/gaussians.ply is missing; run the train stage")
    device = open_device(n_threads=options.threads)
    views = load_views(workspace.undistorted, options.train)
    with unfinished(workspace.root, STAGE, made_from(workspace, options)) as scratch:
        pieces = Pieces(scratch, Headway(STAGE, on_event))
        scene = reduce_scene(device, read_back(read_ply, trained), views, options.compress.prune_share, pieces)
        written = write_files(device, scene, views, options, pieces)
        with replacing_folder(workspace.assets) as folder:
            place(written, folder)
            on_event(Progress(STAGE, 0.95, "Rendering the preview"))
            write_model(folder / "colmap.zip", workspace.sparse)
            shown = [each for each in views.photos if not each.is_held_out] or views.photos
            best = write_preview(folder / "preview.webp", scene.gaussians, [each.view for each in shown], device)
            write_json(folder / "cameras.json", describe_cameras(views, shown[best].name))
    on_event(Progress(STAGE, 1.0, "Files written and checked"))
    return {**scene.stats, "files": {path.name: figures for path, figures in written.items()}, "preview_photo": shown[best].name}


def made_from(workspace: Workspace, options: RunOptions) -> dict[str, Any]:
    """Return all that the gaussians to write depend on, as JSON values."""
    views = sorted((path.name, hash_file(path)) for path in (workspace.undistorted / "sparse").iterdir() if path.is_file())
    seen = {"views": views, "max_side": options.train.max_side, "holdout_every": options.train.holdout_every}
    return {"gaussians": hash_file(workspace.train / "gaussians.ply"), "prune": options.compress.prune_share, "seed": options.seed, **seen}


def reduce_scene(device: Device, trained: Gaussians, views: Views, share: float, pieces: Pieces) -> Scene:
    """Prune, check the geometry, and put what is left into Morton order."""
    finite = finite_rows(trained)
    n_broken = int(len(trained) - finite.sum())
    check_finite_share(n_broken, len(trained))
    whole = trained.select(finite)
    contribution = measure_contribution(device, whole, views.training_size, *watched(len(whole), views, device, pieces))
    pruned = prune(device, whole, contribution, views.extent, share)
    kept = whole.select(pruned.kept)
    reach = check_geometry(kept, views)
    kept, n_far = pull_in(kept, views.centre, REACH * views.extent)
    loss = Reference.of(whole, views.measured, device).psnr_db(kept)
    order = morton_order(kept.means)
    stats = {
        "n_trained": len(trained),
        "n_gaussians": len(kept),
        "dropped": {"not_finite": n_broken, **pruned.dropped},
        "pulled_in": n_far,
        "prune_psnr_db": round(loss, 2),
        **reach,
    }
    sorted_contribution = Contribution(pruned.contribution.sums[order], pruned.contribution.peaks[order])
    return Scene(kept.select(order), sorted_contribution, stats)


def watched(n: int, views: Views, device: Device, pieces: Pieces) -> tuple[Callable[[Tally], None], Tally]:
    """Return who is to see the tally of ``n`` gaussians after each view, to tell of it and keep it, and the tally to go on from."""
    n_views = len(views.photos)

    def on_view(tally: Tally) -> None:
        if pieces.headway.is_due or tally.n_views == n_views:
            write_tally(pieces, tally)
        words = f"Measuring what each gaussian gives ({tally.n_views}/{n_views} photos)"
        pieces.headway.on_event(Progress(STAGE, 0.3 * tally.n_views / n_views, words))

    return on_view, read_tally(pieces, n, device)


def write_files(device: Device, scene: Scene, views: Views, options: RunOptions, pieces: Pieces) -> dict[Path, dict[str, Any]]:
    """Write and check scene.<format> for every asked format; return the figures of each file."""
    reference = Reference.of(scene.gaussians, views.measured, device)
    choice = SogChoice(options.compress.sog_palette, scene.contribution.sums, options.seed)
    written: dict[Path, dict[str, Any]] = {}
    kinds = list(dict.fromkeys(options.compress.formats))
    on_event = pieces.headway.on_event

    def tell(name: str) -> None:
        on_event(Progress(STAGE, 0.3 + 0.6 * len(written) / len(kinds), f"Writing {name}"))

    tries = Tries(pieces, hash_scene(scene.gaussians, scene.contribution), tell)
    for kind in kinds:
        path, figures = write_asset(kind, reference, choice, tries)
        written[path] = figures
        if kind in ("spz", "sog") and figures["self_psnr_db"] < TARGET_DB:
            detail = f"{path.name} differs from the trained scene by {figures['self_psnr_db']} dB; {TARGET_DB:.0f} dB were aimed at"
            on_event(Warned(STAGE, "compress.visible_loss", detail, {"file": path.name, **figures}))
    return written


def describe_cameras(views: Views, preview: str) -> list[dict[str, Any]]:
    """Return cameras.json: where each photo was taken from, in the frame of the files; OpenCV axes, pixels, pixel centres at .5.

    The list that 3DGS writes beside its PLY (``id`` to ``fy``, rotation and position of the camera in the world), so that tools which
    know that file find what they look for; ``cam_from_world``, the principal point, ``held_out`` and ``preview`` (the
    best first view) are ours.
    """
    return [{**_describe_camera(index, each), "preview": each.name == preview} for index, each in enumerate(views.photos)]


def _describe_camera(index: int, photo: NamedView) -> dict[str, Any]:
    view = photo.view
    rotation = view.cam_from_world[:, :3].T
    return {
        "id": index,
        "img_name": photo.name,
        "width": view.width,
        "height": view.height,
        "position": (-rotation @ view.cam_from_world[:, 3]).tolist(),
        "rotation": rotation.tolist(),
        "fx": view.fx,
        "fy": view.fy,
        "cx": view.cx,
        "cy": view.cy,
        "name": photo.name,
        "cam_from_world": view.cam_from_world.tolist(),
        "held_out": photo.is_held_out,
    }


def write_model(path: Path, sparse: Path) -> None:
    """Write the COLMAP model as a ZIP with the folder layout that COLMAP's own tools make."""
    missing = [name for name in MODEL_FILES if not (sparse / name).is_file()]
    if missing:
        raise InternalError("internal.missing_artefact", "Missing file", f"sparse/{missing[0]} is missing; run the poses stage")
    write_stored_zip(path, {f"sparse/0/{name}": (sparse / name).read_bytes() for name in MODEL_FILES})
