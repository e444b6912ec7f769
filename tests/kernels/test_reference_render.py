import math

import pytest
import torch

from kernels import reference
from kernels.step import CameraParams
from kernels.tensors import GaussianTensors, from_rows, to_rows
from tests.kernels.scenes import SCENES, answer, blend_weights, camera_at, scene

F64 = torch.float64


def tiny_camera(width: int = 7, height: int = 5) -> CameraParams:
    pose = (1.0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
    return CameraParams(pose, 6.0, 7.0, width / 2, height / 2, width, height)


def tiny_gaussians(n: int, generator: torch.Generator) -> GaussianTensors:
    """Return overlapping gaussians in front of ``tiny_camera`` that reach every pixel with more than 1/255."""
    means = torch.cat(
        [0.4 * torch.randn(n, 2, generator=generator, dtype=F64), 2 + torch.rand(n, 1, generator=generator, dtype=F64)], dim=1
    )
    return GaussianTensors(
        means,
        0.2 * torch.rand(n, 3, generator=generator, dtype=F64) + 0.1,
        torch.randn(n, 4, generator=generator, dtype=F64),
        torch.rand(n, generator=generator, dtype=F64) * 2 - 1,
        0.2 * torch.randn(n, 4, 3, generator=generator, dtype=F64),
    )


def one_gaussian(depth: float = 2.0, logit: float = 9.0, scale: float = 3.0) -> GaussianTensors:
    return GaussianTensors(
        torch.tensor([[0, 0, depth]], dtype=F64),
        torch.full((1, 3), math.log(scale), dtype=F64),
        torch.tensor([[1, 0, 0, 0]], dtype=F64),
        torch.tensor([logit], dtype=F64),
        torch.tensor([[[1.0, 0, -1]]], dtype=F64),
    )


def test_gradients_agree_with_finite_differences(generator: torch.Generator) -> None:
    gaussians, camera = tiny_gaussians(3, generator), tiny_camera()
    projected = reference.project(gaussians, camera)
    assert bool((reference.pixel_alphas(projected, camera) > 1.5 / 255).all()), "the check must stay away from the cut"
    assert float(projected.opacities.max()) < 0.9
    rows = to_rows(gaussians).requires_grad_(True)

    def rendered(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return reference.render(from_rows(values, 1), camera, (0.3, 0.1, 0.7))

    assert torch.autograd.gradcheck(rendered, (rows,), eps=1e-6, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("name", SCENES)
def test_blending_agrees_with_a_loop_over_gaussians_in_depth_order(name: str) -> None:
    subject, truth = scene(name), answer(name)
    projected = truth.projected
    alphas = reference.pixel_alphas(projected, subject.camera)
    for y, x in ((0, 0), (18, 26), (36, 52), (5, 40)):
        colour, left = torch.zeros(3, dtype=F64), 1.0
        for i in projected.depths.argsort().tolist():
            if left < 1e-4:
                break
            colour += left * alphas[i, y, x] * projected.colours[i]
            left = left * (1 - float(alphas[i, y, x]))
        expected = colour + left * torch.tensor(subject.background, dtype=F64)
        torch.testing.assert_close(truth.image[:, y, x], expected, rtol=0, atol=1e-13)
        assert float(truth.transmittance[y, x]) == pytest.approx(left, abs=1e-13)


def test_alphas_agree_with_the_eigenvectors_of_the_covariance_and_are_cut_at_one_in_255() -> None:
    subject, truth = scene("needles"), answer("needles")
    alphas = reference.pixel_alphas(truth.projected, subject.camera)
    values, vectors = torch.linalg.eigh(truth.projected.covs2d)
    offset = torch.tensor([20.5, 11.5], dtype=F64) - truth.projected.means2d
    along = (offset[:, None] @ vectors)[:, 0]
    uncut = truth.projected.opacities * torch.exp(-(along**2 / values).sum(1) / 2) * truth.projected.visible
    torch.testing.assert_close(alphas[:, 11, 20], torch.where(uncut * 255 >= 1, uncut, 0 * uncut), rtol=1e-9, atol=1e-12)


def test_one_opaque_gaussian_covers_the_image_with_its_colour_at_99_percent() -> None:
    image, transmittance = reference.render(one_gaussian(scale=1000.0), tiny_camera(), (0.0, 1.0, 0.25))
    colour = torch.tensor([0.5 + 0.28209479177387814, 0.5, 0.5 - 0.28209479177387814], dtype=F64)
    expected = 0.99 * colour + 0.01 * torch.tensor([0.0, 1.0, 0.25], dtype=F64)
    torch.testing.assert_close(image, expected[:, None, None].expand(3, 5, 7), rtol=0, atol=1e-4)
    torch.testing.assert_close(transmittance, torch.full((5, 7), 0.01, dtype=F64), rtol=0, atol=1e-4)


def test_no_gaussians_give_the_background() -> None:
    image, transmittance = reference.render(from_rows(torch.zeros(0, 64, dtype=F64), 3), tiny_camera(), (0.1, 0.2, 0.3))
    assert image[:, 2, 3].tolist() == [0.1, 0.2, 0.3]
    assert torch.equal(transmittance, torch.ones(5, 7, dtype=F64))


@pytest.mark.parametrize("depth", [-2.0, 0.0, 0.009, 2e6])
def test_gaussians_outside_near_and_far_are_not_drawn_and_get_no_gradient(depth: float) -> None:
    rows = to_rows(one_gaussian(depth)).requires_grad_(True)
    image, transmittance = reference.render(from_rows(rows, 0), tiny_camera())
    (image.sum() + transmittance.sum()).backward()
    assert float(transmittance.detach().min()) == 1.0
    assert torch.equal(rows.grad, torch.zeros_like(rows))


def test_too_faint_gaussians_are_not_visible() -> None:
    camera = tiny_camera()
    just_below = math.log(1 / 255 / (1 - 1 / 255)) - 1e-6
    assert not bool(reference.project(one_gaussian(logit=just_below), camera).visible[0])
    assert bool(reference.project(one_gaussian(logit=just_below + 2e-6), camera).visible[0])


def test_the_order_of_the_rows_changes_nothing(generator: torch.Generator) -> None:
    subject, truth = scene("random"), answer("random")
    shuffled = subject.rows[torch.randperm(len(subject.rows), generator=generator)].double()
    image, transmittance = reference.render(from_rows(shuffled, 3), subject.camera, subject.background)
    torch.testing.assert_close(image, truth.image, rtol=0, atol=1e-13)
    torch.testing.assert_close(transmittance, truth.transmittance, rtol=0, atol=1e-13)


def test_moving_world_and_camera_together_changes_nothing(generator: torch.Generator) -> None:
    subject = scene("random")
    plain = from_rows(subject.rows.double(), 0)
    pose = torch.tensor(subject.camera.cam_from_world, dtype=F64).reshape(3, 4)
    turn = torch.randn(4, generator=generator, dtype=F64)
    rotation, shift = reference.quat_to_rotation(turn), torch.randn(3, generator=generator, dtype=F64)
    moved = GaussianTensors(
        plain.means @ rotation.T + shift,
        plain.log_scales,
        quat_product(turn, plain.quats),
        plain.opacity_logits,
        plain.sh,
    )
    new_rotation = pose[:, :3] @ rotation.T
    new_pose = torch.cat([new_rotation, (pose[:, 3] - new_rotation @ shift)[:, None]], dim=1)
    camera = CameraParams(tuple(new_pose.flatten().tolist()), *list(vars(subject.camera).values())[1:])
    torch.testing.assert_close(reference.render(moved, camera)[0], reference.render(plain, subject.camera)[0], rtol=0, atol=1e-12)


def quat_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the Hamilton product a ⊗ b, wxyz."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )


def test_scaling_world_and_camera_distance_together_changes_nothing() -> None:
    subject = scene("random")
    plain = from_rows(subject.rows.double(), 0)
    grown = GaussianTensors(plain.means * 2, plain.log_scales + math.log(2), plain.quats, plain.opacity_logits, plain.sh)
    pose = torch.tensor(subject.camera.cam_from_world, dtype=F64).reshape(3, 4)
    pose[:, 3] *= 2
    camera = CameraParams(tuple(pose.flatten().tolist()), *list(vars(subject.camera).values())[1:])
    torch.testing.assert_close(reference.render(grown, camera)[0], reference.render(plain, subject.camera)[0], rtol=0, atol=1e-12)


def test_weights_and_transmittance_sum_to_one_at_every_pixel() -> None:
    for name in SCENES:
        left = answer(name).transmittance
        torch.testing.assert_close(blend_weights(name).sum(0) + left, torch.ones_like(left), rtol=0, atol=1e-12)


def test_a_pixel_stops_once_less_than_a_ten_thousandth_is_left() -> None:
    weights, left = reference.blend_weights(answer("solid").projected, scene("solid").camera)
    everything, _ = reference.blend_weights(answer("solid").projected, scene("solid").camera, min_transmittance=0.0)
    stopped = left < 1e-4
    assert 0.1 < float(stopped.double().mean()) < 0.9
    assert float(left.min()) >= 1e-4 * 0.0099, "the pair that crosses the limit still counts, the next one does not"
    assert bool(((weights == everything) | (weights == 0)).all())
    assert bool((weights != everything).any())
    assert float((weights - everything).sum(0).abs().max()) < 1e-4


def test_every_tile_lists_the_gaussians_its_pixels_see_front_to_back() -> None:
    subject, truth = scene("random"), answer("random")
    alphas = reference.pixel_alphas(truth.projected, subject.camera)
    lists = reference.bin_tiles(truth.projected, subject.camera)
    assert len(lists) == 4
    bottom_right = set(torch.nonzero((alphas[:, 32:, 32:] > 0).flatten(1).any(1))[:, 0].tolist())
    assert set(lists[3].tolist()) == bottom_right
    for tile in lists:
        depths = truth.projected.depths[tile]
        assert bool((depths[1:] >= depths[:-1]).all())


def test_visible_gaussians_include_all_that_a_pixel_sees() -> None:
    for name in SCENES:
        truth = answer(name)
        assert not bool((truth.must_see & ~truth.projected.visible).any())
        assert not bool((truth.projected.visible & ~truth.may_see).any())


def test_contribution_is_the_image_of_ones() -> None:
    subject, truth = scene("random"), answer("random")
    sums, peaks = reference.contribution(truth.projected, subject.camera)
    assert float(sums.sum()) == pytest.approx(float((1 - truth.transmittance).sum()), rel=1e-12)
    assert float(peaks.max()) <= 0.99
    weight_map = torch.zeros(subject.camera.height, subject.camera.width, dtype=F64)
    weight_map[10, 20] = 3.0
    sums, _ = reference.contribution(truth.projected, subject.camera, weight_map)
    assert float(sums.sum()) == pytest.approx(3 * float(1 - truth.transmittance[10, 20]), rel=1e-12)


def test_density_statistics_count_only_visible_gaussians() -> None:
    subject, truth = scene("random"), answer("random")
    before = torch.tensor([[1.0, 2.0, 0.05, 7.0]], dtype=F64).repeat(len(subject.rows), 1)
    after = reference.density_statistics(before, truth.grad_means2d, truth.projected, subject.camera)
    seen = truth.projected.visible
    assert torch.equal(after[~seen], before[~seen])
    norms = torch.sqrt((truth.grad_means2d[:, 0] * 26.5) ** 2 + (truth.grad_means2d[:, 1] * 18.5) ** 2)
    torch.testing.assert_close(after[seen, 0], 1 + norms[seen])
    assert bool((after[seen, 1] == 3).all())
    torch.testing.assert_close(after[seen, 2], torch.clamp(truth.projected.radii[seen] / 53, min=0.05))


def test_the_radius_of_a_round_gaussian_is_three_standard_deviations() -> None:
    camera = camera_at((0.0, 0.0, 0.0))
    centre = torch.linalg.inv(torch.tensor(camera.cam_from_world, dtype=F64).reshape(3, 4)[:, :3])[:, 2] * 5.0
    gaussian = one_gaussian()
    placed = GaussianTensors(centre[None], gaussian.log_scales * 0 - 3, gaussian.quats, gaussian.opacity_logits, gaussian.sh)
    projected = reference.project(placed, camera)
    assert float(projected.depths[0]) == pytest.approx(5.0, abs=1e-6)
    longer_focal = 1.125 * 50.0
    assert float(projected.radii[0]) == pytest.approx(3 * math.sqrt((longer_focal * math.exp(-3) / 5) ** 2 + 0.3), rel=1e-6)
