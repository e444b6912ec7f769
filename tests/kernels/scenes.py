"""Small scenes that between them reach every branch of the kernels, and the reference's answers to them in float64."""

import functools
import math
from dataclasses import dataclass, fields

import torch

from kernels import reference
from kernels.step import CameraParams
from kernels.tensors import GaussianTensors, from_rows, to_rows

WIDTH, HEIGHT = 53, 37  # odd, and more than one 32-pixel tile each way
GROUPS = {
    "means": slice(0, 3),
    "log_scales": slice(3, 6),
    "quats": slice(6, 10),
    "opacity": slice(10, 11),
    "sh_dc": slice(11, 14),
    "sh_red": slice(16, 31),
    "sh_green": slice(32, 47),
    "sh_blue": slice(48, 63),
}


@dataclass(frozen=True, eq=False)
class Scene:
    """Gaussians whose values are exact in float32, seen by one camera. Compared by identity, so that answers can be kept."""

    name: str
    rows: torch.Tensor  # [N, 64] float32
    camera: CameraParams
    background: tuple[float, float, float]
    sh_degree: int


@dataclass(frozen=True)
class Answer:
    """The reference's results for a scene and a gradient of the image that the test may use as it is.

    ``clean`` pixels are those where the answer is not a matter of rounding: no pair within 0.1 % of the 1/255 cut, and enough
    transmittance left that no implementation stops early. ``grad_image`` and ``grad_transmittance`` are 0 elsewhere.
    """

    image: torch.Tensor  # [3, H, W] float64
    transmittance: torch.Tensor  # [H, W] float64
    clean: torch.Tensor  # [H, W] bool
    saturated: torch.Tensor  # [H, W] bool: stops early, or may
    grad_image: torch.Tensor  # [3, H, W] float32
    grad_transmittance: torch.Tensor  # [H, W] float32
    grad_rows: torch.Tensor  # [N, 64] float64
    grad_means2d: torch.Tensor  # [N, 2] float64
    projected: reference.Projected
    must_see: torch.Tensor  # [N] bool: some pixel centre is clearly inside the 1/255 ellipse
    may_see: torch.Tensor  # [N] bool: the ellipse's box meets the image, or nearly


def camera_at(position: tuple[float, float, float], width: int = WIDTH, height: int = HEIGHT, focal: float = 50.0) -> CameraParams:
    """Return a camera turned by 0.3 rad about an oblique axis, with a centre of projection off the middle."""
    axis = torch.tensor([0.3, 0.8, -0.2], dtype=torch.float64)
    half = 0.15
    quat = torch.cat([torch.tensor([math.cos(half)], dtype=torch.float64), axis / axis.norm() * math.sin(half)])
    rotation = reference.quat_to_rotation(quat)
    translation = -rotation @ torch.tensor(position, dtype=torch.float64)
    pose = torch.cat([rotation, translation[:, None]], dim=1).float().flatten().tolist()
    return CameraParams(tuple(pose), focal, focal * 1.125, width * 0.5 + 1.25, height * 0.5 - 0.75, width, height, 0.0625, 100.0)


Range = tuple[float, float]


@dataclass(frozen=True)
class Kind:
    """What the gaussians of a scene type are drawn from, uniformly."""

    n: int
    depths: Range = (1.5, 6.0)
    spread: float = 0.7  # |x/z| and |y/z| up to this; the view ends at about 0.55
    log_scales: tuple[Range, Range, Range] = ((-4.5, -1.2),) * 3
    logits: Range = (-6.5, 6.0)  # from too faint to draw to clamped


KINDS = {
    "random": Kind(150),
    "dense": Kind(600, log_scales=((-4.5, -3.2),) * 3),
    "huge": Kind(30, spread=1.4, log_scales=((0.3, 1.5),) * 3, logits=(-4.0, -0.5)),  # many centres beyond the Jacobian's clamp
    "near": Kind(600, depths=(-1.5, 0.6), spread=1.4, log_scales=((-5.0, -2.0),) * 3),  # on both sides of the near plane and the camera
    "needles": Kind(80, log_scales=((-1.0, 0.3), (-6.5, -5.0), (-6.5, -5.0))),
    "solid": Kind(60, log_scales=((-1.5, 0.0),) * 3, logits=(0.0, 6.0)),  # pixels stop after a few gaussians
    "crowded": Kind(700, spread=0.25, log_scales=((-4.5, -3.2),) * 3, logits=(-5.0, -2.0)),  # more than one piece of a tile's list
    "fog": Kind(420, spread=0.5, log_scales=((-0.5, 0.7),) * 3, logits=(-3.3, -2.5)),  # pixels stop after hundreds
}
SCENES = tuple(KINDS)


def scene_rows(name: str, n: int, generator: torch.Generator, camera: CameraParams) -> torch.Tensor:
    """Return ``n`` rows of a scene type; means are placed in camera axes, then moved to the world."""
    kind = KINDS[name]

    def uniform(bounds: Range, *shape: int) -> torch.Tensor:
        return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(*shape, generator=generator, dtype=torch.float64)

    depths = uniform(kind.depths, n)
    ratios = uniform((-kind.spread, kind.spread), n, 2)
    in_camera = torch.cat([ratios * depths[:, None].abs(), depths[:, None]], dim=1)
    pose = torch.tensor(camera.cam_from_world, dtype=torch.float64).reshape(3, 4)
    means = (in_camera - pose[:, 3]) @ torch.linalg.inv(pose[:, :3]).T
    log_scales = torch.stack([uniform(bounds, n) for bounds in kind.log_scales], dim=1)
    sh = 0.25 * torch.randn(n, 16, 3, generator=generator, dtype=torch.float64)
    sh[:, 0] = uniform((-1.5, 2.5), n, 3)
    quats = torch.randn(n, 4, generator=generator, dtype=torch.float64) * uniform((0.3, 3.0), n, 1)
    return to_rows(GaussianTensors(means, log_scales, quats, uniform(kind.logits, n), sh)).float()


@functools.cache
def scene(name: str) -> Scene:
    """Return the scene of that name."""
    generator = torch.Generator().manual_seed(7 + SCENES.index(name))
    camera = camera_at((0.4, -0.3, 0.2))
    rows = scene_rows(name, KINDS[name].n, generator, camera)
    return Scene(name, rows, camera, (0.2, 0.5, 0.8), 3)


@functools.cache
def sized_scene(width: int, height: int, n: int = 100) -> Scene:
    """Return a random scene seen by a camera of that many pixels."""
    camera = camera_at((0.1, 0.0, -0.3), width, height, focal=0.6 * max(width, height) + 4)
    rows = scene_rows("random", n, torch.Generator().manual_seed(width), camera)
    return Scene("sized", rows, camera, (0.9, 0.1, 0.4), 2)


@functools.cache
def needle_scene(aspect: float) -> Scene:
    """Return needles whose long axis is that many times the others, each across a good part of the image."""
    generator = torch.Generator().manual_seed(41)
    camera = camera_at((0.1, 0.2, -0.1), 97, 70, focal=120.0)
    rows = scene_rows("needles", 60, generator, camera)
    rows[:, 3] = -0.3 + torch.rand(60, generator=generator)
    rows[:, 4:6] = rows[:, 3:4] - math.log(aspect)
    return Scene("thin", rows, camera, (0.1, 0.2, 0.3), 3)


@functools.cache
def degree_scene(sh_degree: int) -> Scene:
    """Return the random scene drawn with the bases up to a degree."""
    plain = scene("random")
    return Scene("degree", plain.rows, plain.camera, plain.background, sh_degree)


@functools.cache
def answer_for(subject: Scene) -> Answer:
    """Return what the reference says about a scene, in float64, computed once per session."""
    rows = subject.rows.double().requires_grad_(True)
    projected = reference.project(from_rows(rows, subject.sh_degree), subject.camera)
    projected.means2d.retain_grad()
    image, transmittance = reference.rasterize(projected, subject.camera, subject.background)
    with torch.no_grad():
        alphas = _uncut_alphas(projected, subject.camera)
        cut = ((alphas * 255 - 1).abs() < 1e-3).any(dim=0)
        _, unstopped = reference.rasterize(projected, subject.camera, subject.background, min_transmittance=0.0)
        saturated = unstopped < 1.01 * reference.MIN_TRANSMITTANCE
        clean = ~cut & ~saturated
        generator = torch.Generator().manual_seed(3)
        grad_image = torch.randn(3, *clean.shape, generator=generator) * clean
        grad_transmittance = torch.randn(clean.shape, generator=generator) * clean
        must_see = (alphas * 255 > 1.001).flatten(1).any(dim=1)
        may_see = _may_see(projected, subject.camera)
    ((image * grad_image).sum() + (transmittance * grad_transmittance).sum()).backward()
    assert rows.grad is not None
    assert projected.means2d.grad is not None
    return Answer(
        image.detach(),
        transmittance.detach(),
        clean,
        saturated,
        grad_image,
        grad_transmittance,
        rows.grad,
        projected.means2d.grad,
        reference.Projected(**{spec.name: getattr(projected, spec.name).detach() for spec in fields(projected)}),
        must_see,
        may_see,
    )


def _uncut_alphas(projected: reference.Projected, camera: CameraParams) -> torch.Tensor:
    """Return the alphas without the cut at 1/255, by the eigenvectors of the covariance: not the reference's own formula."""
    ys, xs = torch.meshgrid(torch.arange(camera.height) + 0.5, torch.arange(camera.width) + 0.5, indexing="ij")
    offsets = torch.stack([xs, ys], dim=-1).double().reshape(-1, 2)[None] - projected.means2d[:, None]
    values, vectors = torch.linalg.eigh(projected.covs2d)
    mahalanobis = ((offsets @ vectors) ** 2 / values[:, None]).sum(-1)
    alphas = projected.opacities[:, None] * torch.exp(-mahalanobis / 2) * projected.visible[:, None]
    return alphas.reshape(-1, camera.height, camera.width)


def _may_see(projected: reference.Projected, camera: CameraParams) -> torch.Tensor:
    """Return which gaussians a kernel may count as seen: box of the 1/255 ellipse, half a pixel and 0.1 % larger, meets the image."""
    in_range = (projected.depths >= camera.near_plane * 0.9999) & (projected.depths <= camera.far_plane * 1.0001)
    reach = torch.sqrt(2 * torch.log(torch.clamp(projected.opacities * 255 * 1.001, min=1.0)))
    half = reach[:, None] * torch.sqrt(torch.diagonal(projected.covs2d, dim1=1, dim2=2)) + 0.5
    size = projected.means2d.new_tensor([camera.width, camera.height])
    meets = ((projected.means2d + half > 0) & (projected.means2d - half < size)).all(dim=1)
    return in_range & meets & (projected.opacities * 255 > 0.999)


def answer(name: str) -> Answer:
    """Return the reference's answer for the scene of that name."""
    return answer_for(scene(name))


@functools.cache
def blend_weights(name: str) -> torch.Tensor:
    """Return the reference's weights of the scene of that name, [N, H, W], computed once per session."""
    return reference.blend_weights(answer(name).projected, scene(name).camera)[0]


def relative_error(value: torch.Tensor, truth: torch.Tensor) -> float:
    """Return the largest difference as a share of the largest true magnitude."""
    if truth.numel() == 0:
        return 0.0
    return float((value.double() - truth.double()).abs().max() / truth.double().abs().max().clamp(min=1e-30))
