"""The specification of every kernel, in plain torch: any float dtype, autograd all through, no tricks and no speed.

Memory is gaussians × pixels. The CPU and CUDA kernels are measured against this file in float64. Where a kernel has leave to
differ, the docstring says so.

Sources: Zwicker et al., "EWA Splatting", TVCG 2002 (projection, eq. 22-32); Kerbl et al., "3D Gaussian Splatting for Real-Time
Radiance Field Rendering", SIGGRAPH 2023 (covariance eq. 5-6, blending eq. 3); Wang et al., "Image Quality Assessment", TIP 2004
(SSIM, eq. 13); Kingma and Ba, "Adam", ICLR 2015.
"""

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import conv2d, normalize

from kernels.step import AdamParams, CameraParams
from kernels.tensors import LOG_SCALES, MEANS, OPACITY, QUATS, ROW, SH_DC, SH_REST, GaussianTensors

MAX_OPACITY = 0.99
MIN_ALPHA = 1.0 / 255.0
MIN_TRANSMITTANCE = 1e-4
DILATION = 0.3  # pixels², as every viewer adds
VIEW_MARGIN = 0.15  # of the view's width and height, beyond each edge
TILE = 32  # pixels


@dataclass(frozen=True)
class Projected:
    """N gaussians on the screen. Only ``visible`` ones are drawn; the other rows hold whatever the formulas gave."""

    means2d: torch.Tensor  # [N, 2] pixels
    covs2d: torch.Tensor  # [N, 2, 2] pixels², dilated
    conics: torch.Tensor  # [N, 2, 2] inverse of covs2d
    opacities: torch.Tensor  # [N] 0..0.99
    colours: torch.Tensor  # [N, 3] from 0 up
    depths: torch.Tensor  # [N] along the camera's z
    radii: torch.Tensor  # [N] pixels: three standard deviations along the longer axis
    visible: torch.Tensor  # [N] bool


@dataclass(frozen=True)
class Losses:
    """Scalars of ``loss`` (0-dimensional tensors); means over the masked pixels and channels."""

    total: torch.Tensor
    l1: torch.Tensor
    ssim: torch.Tensor
    mse: torch.Tensor


@dataclass(frozen=True)
class AdamRows:
    """What ``adam_step`` reads and returns."""

    rows: torch.Tensor  # [N, 64] parameters
    moment1: torch.Tensor  # [N, 64]
    moment2: torch.Tensor  # [N, 64]
    last_step: torch.Tensor  # [N] int32, the last step that saw the gaussian, 0 for never


def quat_to_rotation(quats: torch.Tensor) -> torch.Tensor:  # [N, 4] wxyz -> [N, 3, 3]
    """Return the rotations of quaternions, which are normalised first (Hamilton's convention, as 3DGS files)."""
    w, x, y, z = normalize(quats, dim=-1).unbind(-1)
    entries = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(entries, dim=-1).reshape(*quats.shape[:-1], 3, 3)


def sh_basis(directions: torch.Tensor, degree: int) -> torch.Tensor:  # [N, 3] unit -> [N, (degree + 1)²]
    """Return the real spherical harmonics of unit directions, ordered by degree l and then m = -l..l.

    Orthonormal, with the Condon-Shortley phase (-1)^m: the signs and order of 3DGS PLY files.
    """
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    c1 = math.sqrt(3 / (4 * math.pi))
    c2 = [math.sqrt(each / (16 * math.pi)) for each in (60, 5, 15)]
    c3 = [math.sqrt(each / (32 * math.pi)) for each in (35, 840, 21, 14, 210)]
    bases = [
        torch.full_like(x, math.sqrt(1 / (4 * math.pi))),
        -c1 * y, c1 * z, -c1 * x,
        c2[0] * x * y, -c2[0] * y * z, c2[1] * (2 * zz - xx - yy), -c2[0] * x * z, c2[2] * (xx - yy),
        -c3[0] * y * (3 * xx - yy), c3[1] * x * y * z, -c3[2] * y * (4 * zz - xx - yy), c3[3] * z * (2 * zz - 3 * xx - 3 * yy),
        -c3[2] * x * (4 * zz - xx - yy), c3[4] * z * (xx - yy), -c3[0] * x * (xx - 3 * yy),
    ]  # fmt: skip
    return torch.stack(bases[: (degree + 1) ** 2], dim=-1)


def colours(gaussians: GaussianTensors, camera_centre: torch.Tensor) -> torch.Tensor:  # -> [N, 3]
    """Return max(0, 0.5 + Σ sh · basis), direction from ``camera_centre`` [3] to the mean, in world axes."""
    directions = normalize(gaussians.means - camera_centre, dim=-1)
    basis = sh_basis(directions, gaussians.sh_degree)
    return torch.clamp((basis[:, :, None] * gaussians.sh).sum(1) + 0.5, min=0)


def covs3d(gaussians: GaussianTensors) -> torch.Tensor:  # -> [N, 3, 3]
    """Return Σ = R S Sᵀ Rᵀ in world axes (3DGS eq. 6)."""
    axes = quat_to_rotation(gaussians.quats) * torch.exp(gaussians.log_scales)[:, None, :]
    return axes @ axes.transpose(1, 2)


def projection_jacobian(x_in_camera: torch.Tensor, camera: CameraParams) -> torch.Tensor:  # [N, 3] -> [N, 2, 3]
    """Return the derivative of the pixel by the point (EWA eq. 29), at x/z and y/z clamped to the view and 15 % around it.

    Far outside the view the linearisation would smear a gaussian over the whole image; the clamp bounds it, and no gradient
    flows through a clamped ratio.
    """
    x, y, z = x_in_camera.unbind(-1)
    u = torch.clamp(
        x / z, (-VIEW_MARGIN * camera.width - camera.cx) / camera.fx, ((1 + VIEW_MARGIN) * camera.width - camera.cx) / camera.fx
    )
    v = torch.clamp(
        y / z, (-VIEW_MARGIN * camera.height - camera.cy) / camera.fy, ((1 + VIEW_MARGIN) * camera.height - camera.cy) / camera.fy
    )
    zero = torch.zeros_like(z)
    entries = [camera.fx / z, zero, -camera.fx * u / z, zero, camera.fy / z, -camera.fy * v / z]
    return torch.stack(entries, dim=-1).reshape(-1, 2, 3)


def project(gaussians: GaussianTensors, camera: CameraParams, dilation: float = DILATION) -> Projected:
    """Return the gaussians on the camera's screen (EWA eq. 31; 3DGS eq. 5).

    ``visible``: the centre lies between the near and far planes, the opacity reaches 1/255, and the box around the ellipse where
    alpha is 1/255 meets the image. A kernel may also leave out gaussians whose ellipse holds no pixel centre.
    """
    pose = gaussians.means.new_tensor(camera.cam_from_world).reshape(3, 4)
    x_in_camera = gaussians.means @ pose[:, :3].T + pose[:, 3]
    depths = x_in_camera[:, 2]
    in_range = (depths >= camera.near_plane) & (depths <= camera.far_plane)
    # Behind the camera any number will do, as long as it is finite: NaN would reach the gradients through zero weights.
    x_in_camera = torch.where(in_range[:, None], x_in_camera, x_in_camera.new_tensor([0.0, 0.0, 1.0]))
    ratios = x_in_camera[:, :2] / x_in_camera[:, 2:]
    means2d = torch.stack([camera.fx * ratios[:, 0] + camera.cx, camera.fy * ratios[:, 1] + camera.cy], dim=-1)
    to_screen = projection_jacobian(x_in_camera, camera) @ pose[:, :3]
    covs2d = to_screen @ covs3d(gaussians) @ to_screen.transpose(1, 2) + dilation * torch.eye(2, dtype=pose.dtype)
    opacities = torch.clamp(torch.sigmoid(gaussians.opacity_logits), max=MAX_OPACITY)
    return Projected(
        means2d=means2d,
        covs2d=covs2d,
        conics=torch.linalg.inv(covs2d),
        opacities=opacities,
        colours=colours(gaussians, -pose[:, :3].T @ pose[:, 3]),
        depths=depths,
        radii=3 * torch.sqrt(torch.linalg.eigvalsh(covs2d.detach())[:, 1]),
        visible=in_range & _reaches_image(means2d, covs2d, opacities, camera),
    )


def _reaches_image(means2d: torch.Tensor, covs2d: torch.Tensor, opacities: torch.Tensor, camera: CameraParams) -> torch.Tensor:
    reach = torch.sqrt(2 * torch.log(torch.clamp(opacities / MIN_ALPHA, min=1.0)))
    half = reach[:, None] * torch.sqrt(torch.diagonal(covs2d, dim1=1, dim2=2))
    size = means2d.new_tensor([camera.width, camera.height])
    meets = ((means2d + half > 0) & (means2d - half < size)).all(dim=1)
    return meets & (opacities >= MIN_ALPHA)


def pixel_alphas(projected: Projected, camera: CameraParams) -> torch.Tensor:  # -> [N, H, W]
    """Return opacity · exp(-dᵀ conic d / 2) at every pixel centre; 0 where that is below 1/255 or the gaussian is not visible."""
    ys, xs = torch.meshgrid(torch.arange(camera.height) + 0.5, torch.arange(camera.width) + 0.5, indexing="ij")
    dx = xs.to(projected.means2d) - projected.means2d[:, 0, None, None]
    dy = ys.to(projected.means2d) - projected.means2d[:, 1, None, None]
    a, b, c = (projected.conics[:, i, j, None, None] for i, j in ((0, 0), (0, 1), (1, 1)))
    alphas = projected.opacities[:, None, None] * torch.exp(-0.5 * (a * dx * dx + 2 * b * dx * dy + c * dy * dy))
    drawn = (alphas >= MIN_ALPHA) & projected.visible[:, None, None]
    return torch.where(drawn, alphas, torch.zeros_like(alphas))


def bin_tiles(projected: Projected, camera: CameraParams, tile: int = TILE) -> list[torch.Tensor]:
    """Return, tile by tile in row-major order, the indices of the gaussians that some pixel of the tile sees, front to back.

    A kernel may list more (its test is against the tile's area, not its pixel centres), never fewer.
    """
    order = torch.argsort(projected.depths, stable=True)
    seen = pixel_alphas(projected, camera)[order] > 0
    tiles = [(y, x) for y in range(0, camera.height, tile) for x in range(0, camera.width, tile)]
    return [order[seen[:, y : y + tile, x : x + tile].any(dim=2).any(dim=1)] for y, x in tiles]


def blend_weights(
    projected: Projected, camera: CameraParams, min_transmittance: float = MIN_TRANSMITTANCE
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each gaussian's weight alpha · T at each pixel, [N, H, W], and the transmittance that is left, [H, W] (3DGS eq. 3).

    Front to back, ties in the order given. A pair counts while the transmittance T before it is at least ``min_transmittance``.
    A kernel works on blocks of pixels and may go on until the whole block has stopped: its result lies between the one with
    1e-4 and the one with 0.
    """
    order = torch.argsort(projected.depths, stable=True)
    alphas = pixel_alphas(projected, camera)[order]
    before = torch.cumprod(torch.cat([alphas.new_ones(1, camera.height, camera.width), 1 - alphas]), dim=0)
    counted = alphas * (before[:-1] >= min_transmittance)
    left = torch.prod(1 - counted, dim=0)
    weights = counted * before[:-1]
    return weights[torch.argsort(order)], left


def rasterize(
    projected: Projected,
    camera: CameraParams,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
    min_transmittance: float = MIN_TRANSMITTANCE,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the image Σ w c + T · background, [3, H, W], and the transmittance T, [H, W]."""
    weights, transmittance = blend_weights(projected, camera, min_transmittance)
    image = torch.einsum("nhw,nc->chw", weights, projected.colours)
    return image + transmittance * image.new_tensor(background)[:, None, None], transmittance


def render(
    gaussians: GaussianTensors, camera: CameraParams, background: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return image [3, H, W] and transmittance [H, W]: ``project``, then ``rasterize``."""
    return rasterize(project(gaussians, camera), camera, background)


def ssim(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:  # [C, H, W], [C, H, W] -> [C, H, W]
    """Return the structural similarity at each pixel and channel (SSIM eq. 13), values in 0..1.

    Gaussian window of 11 × 11 taps, sigma 1.5, weights summing to 1; outside the image both pictures are 0.
    """
    taps = torch.exp(-((torch.arange(11, dtype=image.dtype) - 5) ** 2) / (2 * 1.5**2))
    taps = taps / taps.sum()

    def blur(picture: torch.Tensor) -> torch.Tensor:
        across = conv2d(picture[:, None], taps.reshape(1, 1, 1, 11), padding=(0, 5))
        return conv2d(across, taps.reshape(1, 1, 11, 1), padding=(5, 0))[:, 0]

    mean_x, mean_y = blur(image), blur(target)
    var_x, var_y = blur(image * image) - mean_x**2, blur(target * target) - mean_y**2
    covariance = blur(image * target) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    return (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))


def loss(image: torch.Tensor, target: torch.Tensor, ssim_weight: float, mask: torch.Tensor | None = None) -> Losses:
    """Return (1 - w) · mean|image - target| + w · (1 - mean SSIM) and its parts.

    ``image`` is [3, H, W] float, ``target`` [H, W, 3] uint8, ``mask`` [H, W] uint8. The means go over the pixels where the mask is
    not 0. The others are 0 in both pictures, for SSIM's windows too: what is masked out leaves no trace in value or gradient.
    With no pixel left, l1 = mse = 0 and ssim = 1.
    """
    chosen = torch.ones_like(image[0]) if mask is None else (mask != 0).to(image)
    image, truth = image * chosen, target.permute(2, 0, 1).to(image) / 255 * chosen
    count = torch.clamp(chosen.sum() * 3, min=1)
    l1 = (image - truth).abs().sum() / count
    dissimilarity = ((1 - ssim(image, truth)) * chosen).sum() / count
    mse = ((image - truth) ** 2).sum() / count
    return Losses((1 - ssim_weight) * l1 + ssim_weight * dissimilarity, l1, 1 - dissimilarity, mse)


def learning_rates(adam: AdamParams) -> torch.Tensor:  # -> [64] float64
    """Return the rate of each column of a parameter row; 0 for the spare ones."""
    rates = torch.zeros(ROW, dtype=torch.float64)
    rates[MEANS], rates[LOG_SCALES], rates[QUATS] = adam.lr_means, adam.lr_log_scales, adam.lr_quats
    rates[OPACITY], rates[SH_DC] = adam.lr_opacity, adam.lr_sh_dc
    for channel in SH_REST:
        rates[channel] = adam.lr_sh_rest
    return rates


def regulariser_gradient(rows: torch.Tensor, adam: AdamParams) -> torch.Tensor:  # [N, 64] -> [N, 64]
    """Return the gradient of opacity_reg · sigmoid(logit) + scale_reg · Σ exp(log_scale), gaussian by gaussian."""
    gradient = torch.zeros_like(rows)
    opacity = torch.sigmoid(rows[:, OPACITY])
    gradient[:, OPACITY] = adam.opacity_reg * opacity * (1 - opacity)
    gradient[:, LOG_SCALES] = adam.scale_reg * torch.exp(rows[:, LOG_SCALES])
    return gradient


def adam_step(state: AdamRows, gradient: torch.Tensor, seen: torch.Tensor, adam: AdamParams) -> AdamRows:
    """Return the state after one step of Adam (Kingma and Ba, algorithm 1) for the gaussians in ``seen`` [N] bool; others rest.

    A gaussian that was away keeps still, and its moments have decayed by b^(steps since it was last seen) when it comes back.
    With ``step_sh_rest`` false the columns of the SH rest and their moments stay untouched; kernels do the same after a forward of
    degree 0.
    """
    gap = (adam.step - state.last_step).to(state.rows)[:, None]
    gradient = gradient + regulariser_gradient(state.rows, adam)
    moment1 = adam.beta1**gap * state.moment1 + (1 - adam.beta1) * gradient
    moment2 = adam.beta2**gap * state.moment2 + (1 - adam.beta2) * gradient**2
    unbiased1, unbiased2 = moment1 / (1 - adam.beta1**adam.step), moment2 / (1 - adam.beta2**adam.step)
    rows = state.rows - learning_rates(adam).to(state.rows) * unbiased1 / (torch.sqrt(unbiased2) + adam.eps)
    stepped = seen[:, None].repeat(1, ROW)
    if not adam.step_sh_rest:
        stepped[:, SH_DC.stop :] = False
    return AdamRows(
        torch.where(stepped, rows, state.rows),
        torch.where(stepped, moment1, state.moment1),
        torch.where(stepped, moment2, state.moment2),
        torch.where(seen, torch.full_like(state.last_step, adam.step), state.last_step),
    )


def density_statistics(
    density: torch.Tensor, grad_means2d: torch.Tensor, projected: Projected, camera: CameraParams
) -> torch.Tensor:  # [N, 4], [N, 2] -> [N, 4]
    """Return the statistics after one backward pass: [0] summed gradient norm, [1] times seen, [2] largest radius, [3] spare.

    ``grad_means2d`` is dloss/dmeans2d in 1/pixels; the norm is in NDC units (times W/2 and H/2), the radius a share of max(W, H).
    """
    half_size = grad_means2d.new_tensor([camera.width / 2, camera.height / 2])
    norms = torch.linalg.norm(grad_means2d * half_size, dim=1)
    radii = projected.radii / max(camera.width, camera.height)
    after = torch.stack([density[:, 0] + norms, density[:, 1] + 1, torch.maximum(density[:, 2], radii), density[:, 3]], dim=1)
    return torch.where(projected.visible[:, None], after, density)


def contribution(
    projected: Projected, camera: CameraParams, weight_map: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:  # -> [N], [N]
    """Return what each gaussian gave to the image: Σ weight_map · alpha · T over the pixels, and the largest alpha · T."""
    weights, _ = blend_weights(projected, camera)
    weighted = weights if weight_map is None else weights * weight_map
    return weighted.sum(dim=(1, 2)), weights.amax(dim=(1, 2))


def knn(points: torch.Tensor, k: int = 3) -> torch.Tensor:  # [N, 3] -> [N]
    """Return the mean squared distance of each point to its ``k`` nearest others; to all others if there are fewer, 0 if none."""
    n = len(points)
    if n <= 1:
        return points.new_zeros(n)
    squared = ((points[:, None] - points[None]) ** 2).sum(-1)
    squared.fill_diagonal_(math.inf)
    return squared.sort(dim=1).values[:, : min(k, n - 1)].mean(dim=1)
