"""Training on cut-outs: photos of an object with alpha, made from gaussians that are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from engine.errors import Cancelled
from engine.events import Event, Progress
from engine.formats.colmap import write_reconstruction
from engine.formats.ply import read_ply
from engine.gaussians import to_rows
from engine.options import RunOptions, TrainOptions, preset
from engine.render import camera_params, to_bytes
from engine.scene import Camera, Image, PinholeView, Points3D, Reconstruction
from engine.train import train, watch
from engine.train.init import round_gaussians
from engine.workspace import Workspace, read_json
from kernels.step import Device

SIDE, N_PHOTOS, STEPS = 80, 13, 400
TRAIN = TrainOptions(steps=STEPS, max_gaussians=1000, max_side=SIDE, sh_degree=0, min_psnr_db=0.0, checkpoint_s=0.0, preview_s=0.0)


def options(**changes: object) -> RunOptions:
    return replace(preset("draft"), threads=1, train=replace(TRAIN, **changes))


def ring(index: int) -> PinholeView:
    """Return a camera on a circle about the origin, looking at it from a little above."""
    turn, height = 2.0 * np.pi * index / N_PHOTOS, 0.4
    ahead = -np.array([np.cos(turn), height, np.sin(turn)])
    ahead /= np.linalg.norm(ahead)
    right = np.cross(ahead, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(ahead, right), ahead])
    pose = np.concatenate([rotation, np.array([[0.0], [0.0], [4.0]])], axis=1)
    return PinholeView(pose, 90.0, 90.0, SIDE / 2, SIDE / 2, SIDE, SIDE)


def picture(rows: torch.Tensor, view: PinholeView) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the gaussians show over black, [H, W, 3], and how much of each pixel they leave open, [H, W]."""
    image, transmittance = torch.empty((3, SIDE, SIDE)), torch.empty((SIDE, SIDE))
    Device(n_threads=1).forward(rows, camera_params(view), 0, (0.0, 0.0, 0.0), image, transmittance)
    return image.permute(1, 2, 0), transmittance


@pytest.fixture
def cut_outs(tmp_path: Path) -> Workspace:
    """Return a workspace with photos of a ball of coloured blobs, cut out, and points, some of them black and where nothing is."""
    rng = np.random.default_rng(0)
    places = rng.normal(size=(60, 3)) * 0.3
    blobs = round_gaussians(places.astype(np.float32), rng.uniform(0.0, 0.7, (60, 3)), np.full(60, 0.12, np.float32), 0.95)
    rows = torch.from_numpy(to_rows(blobs))
    workspace = Workspace.at(tmp_path / "work")
    for layer in ("images", "alpha"):
        (workspace.undistorted / layer).mkdir(parents=True)
    images = []
    for index in range(N_PHOTOS):
        name, view = f"{index:02}.png", ring(index)
        shown, transmittance = picture(rows, view)
        PillowImage.fromarray(to_bytes(shown.contiguous().numpy())).save(workspace.undistorted / "images" / name)
        PillowImage.fromarray(to_bytes(1.0 - transmittance.numpy())).save(workspace.undistorted / "alpha" / f"{name}.png")
        images.append(Image(index + 1, 1, name, view.cam_from_world))
    near = np.concatenate([places.repeat(4, axis=0) + rng.normal(size=(240, 3)) * 0.1, rng.uniform(-1.2, 1.2, (40, 3))])
    colours = np.concatenate([rng.integers(0, 255, (240, 3), dtype=np.uint8), np.zeros((40, 3), np.uint8)])
    points = Points3D(near, colours, np.ones(280), np.full(280, 3))
    camera = Camera(1, "PINHOLE", SIDE, SIDE, (90.0, 90.0, SIDE / 2, SIDE / 2))
    write_reconstruction(workspace.undistorted / "sparse", Reconstruction({1: camera}, images, points))
    return workspace


def open_around(workspace: Workspace) -> float:
    """Return how open the trained file leaves the pixels that the held-out photos leave open, 0..1."""
    rows = torch.from_numpy(to_rows(read_ply(workspace.train / "gaussians.ply")))
    shares = []
    for index in (0, 8):
        with PillowImage.open(workspace.undistorted / "alpha" / f"{index:02}.png.png") as opened:
            empty = torch.from_numpy(np.asarray(opened) == 0)
        shares.append(float(picture(rows, ring(index))[1][empty].mean()))
    return min(shares)


def test_nothing_stays_around_a_cut_out(cut_outs: Workspace) -> None:
    stats = train.run(cut_outs, options(), lambda _: None)
    assert open_around(cut_outs) > 0.97
    assert stats["psnr_db"] > 20.0
    assert read_json(cut_outs.train / "metrics.json")["measured"].endswith("cut-outs over white")


def test_over_black_alone_black_gaussians_may_stay(cut_outs: Workspace) -> None:
    # What the random background is for: over black, nothing tells black gaussians from none.
    train.run(cut_outs, options(), lambda _: None)
    random = open_around(cut_outs)
    train.run(cut_outs, options(background="black"), lambda _: None)
    assert open_around(cut_outs) < random - 0.3


def test_a_resumed_run_gives_the_same_file(cut_outs: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = options(exposure="on", steps=120)
    train.run(cut_outs, chosen, lambda _: None)
    whole = (cut_outs.train / "gaussians.ply").read_bytes()

    def interrupt(event: Event) -> None:
        if isinstance(event, Progress) and event.data.get("step", 0) >= 50:
            raise Cancelled.by_request()

    with monkeypatch.context() as patch:
        patch.setattr(watch, "REPORT_S", 0.0)
        with pytest.raises(Cancelled):
            train.run(cut_outs, chosen, interrupt)
    stats = train.run(cut_outs, chosen, lambda _: None)
    assert 50 <= stats["resumed_from_step"] < 120
    assert (cut_outs.train / "gaussians.ply").read_bytes() == whole


def test_one_and_two_threads_give_the_same_file(cut_outs: Workspace) -> None:
    files = []
    for threads in (1, 2):
        train.run(cut_outs, replace(options(exposure="on", steps=80), threads=threads), lambda _: None)
        files.append((cut_outs.train / "gaussians.ply").read_bytes())
    assert files[0] == files[1]
