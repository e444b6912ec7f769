"""Our side of the comparison, and the conventions that gsplat is called by. gsplat itself runs on cards only."""

import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.gpu_made_set import MadeSet, make_set
from bench.gpu_mcmc import McmcRun, World, first_parameters, strategy_of
from bench.gpu_opponent import OurLoss, View, parameters_of, rasterize, toolkit, unpack
from bench.gpu_train import Curve, workspaces_in
from engine.options import TrainOptions
from engine.train.views import load_split
from kernels import reference
from kernels.step import CameraParams, Device
from kernels.tensors import GaussianTensors
from tests.kernels.scenes import scene


def as_gsplat_documents(**given: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Render as gsplat's documentation says its arguments are meant, by the specification."""
    pose, intrinsics = given["viewmats"][0], given["Ks"][0]
    camera = CameraParams(
        tuple(pose[:3].flatten().tolist()),
        *(float(intrinsics[row, column]) for row, column in ((0, 0), (1, 1), (0, 2), (1, 2))),
        given["width"],
        given["height"],
        0.0625,
        100.0,
    )
    logits = torch.logit(given["opacities"])
    gaussians = GaussianTensors(given["means"], torch.log(given["scales"]), given["quats"], logits, given["colors"])
    image, transmittance = reference.render(gaussians, camera)
    return image.permute(1, 2, 0)[None], 1 - transmittance[None, ..., None], {"radii": torch.ones(1, len(logits), 2)}


def test_our_rows_and_camera_mean_the_same_to_gsplat() -> None:
    subject, device = scene("random"), Device("cpu")
    image = torch.empty(3, subject.camera.height, subject.camera.width)
    device.forward(subject.rows, subject.camera, 3, (0.0, 0.0, 0.0), image)
    view = View.of(subject.camera, torch.device("cpu"))
    picture = rasterize(SimpleNamespace(rasterization=as_gsplat_documents), parameters_of(subject.rows), view, 3)
    assert float((picture.image.detach().permute(2, 0, 1) - image).abs().mean()) < 1e-5
    assert picture.visible.all()


def test_our_loss_hands_its_gradient_to_autograd() -> None:
    generator = torch.Generator().manual_seed(2)
    image = torch.rand((20, 30, 3), generator=generator).requires_grad_(True)
    target = torch.randint(0, 256, (20, 30, 3), dtype=torch.uint8, generator=generator)
    OurLoss.apply(image, Device("cpu"), target, 0).backward()
    assert image.grad is not None
    got = image.grad.clone()
    image.grad = None
    reference.loss(image.permute(2, 0, 1), target, 0.2).total.backward()
    assert torch.allclose(got, image.grad, atol=1e-6)


def test_the_toolkit_is_where_nvcc_says_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_HOME", raising=False)
    wrapper = tmp_path / "bin" / "nvcc"
    wrapper.parent.mkdir()
    wrapper.write_text("#!/bin/sh\necho '#$ _HERE_=/far/away/cuda/bin' >&2\n")
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:/bin")
    assert toolkit() == "/far/away/cuda"
    monkeypatch.setenv("CUDA_HOME", "/named")
    assert toolkit() == "/named"
    monkeypatch.delenv("CUDA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert toolkit() == ""


def test_wheels_are_unpacked_to_where_they_are_imported_from(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "thing-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("thing/__init__.py", "")
    assert unpack(tmp_path, tmp_path / "out")[0] == tmp_path / "out"
    source = tmp_path / "out" / "thing" / "__init__.py"
    written = source.stat().st_mtime_ns
    unpack(tmp_path, tmp_path / "out")
    assert source.stat().st_mtime_ns == written, "sources that are newer are compiled anew"


def test_the_made_up_set_is_one_that_can_be_trained_on(tmp_path: Path) -> None:
    made = make_set(tmp_path / "made", MadeSet(2000, 9, 80, 48, 300), Device("cpu"))
    split, model = load_split(made / "undistorted", 80, 8)
    assert (len(split.train), len(split.test), len(model.points.xyz)) == (7, 2, 300)
    assert workspaces_in([tmp_path]) == workspaces_in([made]) == [made]


def test_the_opponent_starts_as_its_preset_says(tmp_path: Path) -> None:
    made = make_set(tmp_path / "made", MadeSet(2000, 9, 80, 48, 300), Device("cpu"))
    kept: dict[str, Any] = {}
    gsplat = SimpleNamespace(MCMCStrategy=lambda **given: kept.update(given))
    run = McmcRun(gsplat, Device("cpu"), made / "undistorted", TrainOptions(steps=3000, max_gaussians=1000, max_side=80, sh_degree=3))
    parameters = first_parameters(run, World.of(load_split(made / "undistorted", 80, 8)[1]))
    assert {name: tuple(value.shape[1:]) for name, value in parameters.items()} == {
        "means": (3,), "scales": (3,), "quats": (4,), "opacities": (), "sh0": (1, 3), "shN": (15, 3),
    }  # fmt: skip
    assert torch.allclose(torch.sigmoid(parameters["opacities"]), torch.tensor(0.5))
    strategy_of(run)
    assert kept == {"cap_max": 1000, "refine_start_iter": 50, "refine_stop_iter": 2500, "refine_every": 10}


def test_the_opponents_world_is_about_one_wide_and_shows_the_same_pictures(tmp_path: Path) -> None:
    made = make_set(tmp_path / "made", MadeSet(2000, 9, 80, 48, 300), Device("cpu"))
    split, scene = load_split(made / "undistorted", 80, 8)
    world = World.of(scene)
    centres = np.stack([image.centre_in_world for image in scene.images])
    assert world.unit > 2
    assert float(np.median(np.linalg.norm(world.points(centres), axis=1))) == pytest.approx(1.0)
    for photo in split.test:
        moved = world.view(photo.view)
        pixels = [
            (view.cam_from_world[:, :3] @ points.T + view.cam_from_world[:, 3:])
            for view, points in ((photo.view, scene.points.xyz), (moved, world.points(scene.points.xyz)))
        ]
        assert np.allclose(pixels[0], pixels[1] * world.unit)
        assert (moved.fx, moved.width) == (photo.view.fx, photo.view.width)


def test_more_points_than_the_cap_are_thinned_evenly_and_colours_have_the_degree_asked_for(tmp_path: Path) -> None:
    made = make_set(tmp_path / "made", MadeSet(4000, 9, 80, 48, 3000), Device("cpu"))
    scene = load_split(made / "undistorted", 80, 8)[1]
    run = McmcRun(None, Device("cpu"), made / "undistorted", TrainOptions(steps=3000, max_gaussians=1000, max_side=80, sh_degree=1))
    world = World.of(scene)
    parameters = first_parameters(run, world)
    assert parameters["shN"].shape == (1000, 3, 3)
    kept, everything = parameters["means"].detach(), torch.from_numpy(world.points(scene.points.xyz)).float()
    assert {tuple(point) for point in kept.tolist()} < {tuple(point) for point in everything.tolist()}
    assert not torch.allclose(kept, everything[:1000])


def test_the_time_to_a_psnr_lies_between_the_points() -> None:
    curve = Curve(Device("cpu"), 10)
    curve.points = [
        {"step": 10, "seconds": 1.0, "gaussians": 5, "psnr_db": 20.0},
        {"step": 20, "seconds": 3.0, "gaussians": 5, "psnr_db": 24.0},
    ]
    assert [curve.time_to(psnr) for psnr in (19.0, 22.0, 24.0, 25.0)] == pytest.approx([1.0, 2.0, 3.0, None])


def test_measuring_does_not_count_as_training() -> None:
    curve = Curve(Device("cpu"), 10)
    curve.start()
    at = curve.seconds()
    while curve.seconds() - at < 0.2:  # a slow measurement
        pass
    curve.add(10, at, 5, 20.0)
    assert curve.seconds() - at < 0.1
    curve.start(already_s=50.0)
    assert 50.0 <= curve.seconds() < 51.0
