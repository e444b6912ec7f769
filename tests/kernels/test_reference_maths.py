import math

import pytest
import torch

from kernels import reference
from kernels.tensors import GaussianTensors, from_rows, to_rows
from tests.kernels.scenes import camera_at, scene


def sphere_quadrature(n: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points of the sphere and weights that integrate polynomials up to degree 2n - 1 exactly."""
    k = torch.arange(1, n, dtype=torch.float64)
    off_diagonal = k / torch.sqrt(4 * k * k - 1)
    z, vectors = torch.linalg.eigh(torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1))  # Golub and Welsch
    weights = 2 * vectors[0] ** 2
    angles = torch.arange(2 * n, dtype=torch.float64) * math.pi / n
    r = torch.sqrt(1 - z * z)
    points = torch.stack([torch.outer(r, torch.cos(angles)), torch.outer(r, torch.sin(angles)), z[:, None].expand(-1, 2 * n)], dim=-1)
    return points.reshape(-1, 3), (weights[:, None] * (math.pi / n)).expand(-1, 2 * n).reshape(-1)


def associated_legendre(degree: int, order: int, x: float) -> float:
    """Return P_l^m(x) with the Condon-Shortley phase, by the textbook recurrence."""
    value = (-1.0) ** order * math.prod(range(2 * order - 1, 0, -2)) * (1 - x * x) ** (order / 2)
    below = 0.0
    for current in range(order + 1, degree + 1):
        value, below = (x * (2 * current - 1) * value - (current + order - 1) * below) / (current - order), value
    return value


def test_sh_basis_is_orthonormal_on_the_sphere() -> None:
    points, weights = sphere_quadrature()
    basis = reference.sh_basis(points, 3)
    torch.testing.assert_close(basis.T @ (basis * weights[:, None]), torch.eye(16, dtype=torch.float64), rtol=0, atol=1e-13)


def test_sh_basis_has_the_signs_and_order_of_associated_legendre_functions(generator: torch.Generator) -> None:
    for direction in torch.nn.functional.normalize(torch.randn(5, 3, generator=generator, dtype=torch.float64), dim=1):
        x, y, z = direction.tolist()
        azimuth = math.atan2(y, x)
        expected = []
        for degree in range(4):
            for order in range(-degree, degree + 1):
                m = abs(order)
                norm = math.sqrt((2 * degree + 1) / (4 * math.pi) * math.factorial(degree - m) / math.factorial(degree + m))
                turn = 1.0 if m == 0 else math.sqrt(2) * (math.cos(m * azimuth) if order > 0 else math.sin(m * azimuth))
                expected.append(norm * turn * associated_legendre(degree, m, z))
        torch.testing.assert_close(
            reference.sh_basis(direction[None], 3)[0], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-14
        )


def test_sh_basis_has_the_constants_that_3dgs_files_use() -> None:
    x, y, z = 0.6, -0.48, 0.64
    basis = reference.sh_basis(torch.tensor([[x, y, z]], dtype=torch.float64), 2)[0].tolist()
    assert basis[0] == pytest.approx(0.28209479177387814, abs=1e-16)
    assert basis[1:4] == pytest.approx([-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x], abs=1e-15)
    assert basis[4] == pytest.approx(1.0925484305920792 * x * y, abs=1e-15)
    assert basis[6] == pytest.approx(0.31539156525252005 * (2 * z * z - x * x - y * y), abs=1e-15)


def test_a_degree_zero_colour_is_the_same_from_everywhere(generator: torch.Generator) -> None:
    rows = scene("random").rows.double()
    plain = from_rows(rows, 0)
    expected = torch.clamp(0.28209479177387814 * rows[:, 11:14] + 0.5, min=0)
    for centre in torch.randn(3, 3, generator=generator, dtype=torch.float64) * 9:
        torch.testing.assert_close(reference.colours(plain, centre), expected, rtol=0, atol=1e-14)


def test_colours_never_fall_below_zero() -> None:
    values = reference.colours(from_rows(scene("random").rows.double(), 3), torch.zeros(3, dtype=torch.float64))
    assert float(values.min()) == 0.0
    assert float(values.max()) > 0.5


def test_quaternions_of_any_length_give_rotations_and_minus_q_the_same_one(generator: torch.Generator) -> None:
    quats = torch.randn(50, 4, generator=generator, dtype=torch.float64) * 3
    rotations = reference.quat_to_rotation(quats)
    identity = torch.eye(3, dtype=torch.float64).expand(50, 3, 3)
    torch.testing.assert_close(rotations @ rotations.transpose(1, 2), identity, rtol=0, atol=1e-14)
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(50, dtype=torch.float64))
    torch.testing.assert_close(reference.quat_to_rotation(-7 * quats), rotations)


def test_a_quarter_turn_about_z_takes_x_to_y() -> None:
    half = math.pi / 4
    rotation = reference.quat_to_rotation(torch.tensor([math.cos(half), 0, 0, math.sin(half)], dtype=torch.float64))
    expected = torch.tensor([[0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(rotation, expected, rtol=0, atol=1e-15)


def test_covariances_have_the_squared_scales_as_eigenvalues() -> None:
    gaussians = from_rows(scene("needles").rows.double(), 0)
    values = torch.linalg.eigvalsh(reference.covs3d(gaussians))
    torch.testing.assert_close(values, torch.exp(2 * gaussians.log_scales).sort(dim=1).values, rtol=1e-6, atol=1e-15)


def test_the_jacobian_is_the_derivative_of_the_pixel_inside_the_view_and_clamped_far_outside() -> None:
    camera = camera_at((0, 0, 0))

    def pixel(point: torch.Tensor) -> torch.Tensor:
        return torch.stack([camera.fx * point[0] / point[2] + camera.cx, camera.fy * point[1] / point[2] + camera.cy])

    inside = torch.tensor([0.4, -0.3, 1.5], dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(pixel, inside)
    torch.testing.assert_close(reference.projection_jacobian(inside[None], camera)[0], expected)

    outside = torch.tensor([[90.0, 0, 1.5]], dtype=torch.float64)
    edge = (1.15 * camera.width - camera.cx) / camera.fx
    assert float(reference.projection_jacobian(outside, camera)[0, 0, 2]) == pytest.approx(-camera.fx * edge / 1.5)


def test_the_projected_covariance_is_that_of_projected_samples(generator: torch.Generator) -> None:
    camera = camera_at((0.1, 0.2, -4.0))
    gaussians = GaussianTensors(
        torch.tensor([[-0.9, 0.5, 0.1]], dtype=torch.float64),
        torch.log(torch.tensor([[0.04, 0.01, 0.002]], dtype=torch.float64)),
        torch.tensor([[0.4, 0.5, -0.3, 0.9]], dtype=torch.float64),
        torch.zeros(1, dtype=torch.float64),
        torch.zeros(1, 1, 3, dtype=torch.float64),
    )
    axes = reference.quat_to_rotation(gaussians.quats[0]) * torch.exp(gaussians.log_scales[0])
    samples = gaussians.means + torch.randn(100_000, 3, generator=generator, dtype=torch.float64) @ axes.T
    pose = torch.tensor(camera.cam_from_world, dtype=torch.float64).reshape(3, 4)
    in_camera = samples @ pose[:, :3].T + pose[:, 3]
    focal = torch.tensor([camera.fx, camera.fy], dtype=torch.float64)
    measured = torch.cov((focal * in_camera[:, :2] / in_camera[:, 2:]).T)
    # 100 000 samples know a variance to 0.5 %; the linearisation adds about (0.04 / 4)².
    torch.testing.assert_close(reference.project(gaussians, camera, dilation=0.0).covs2d[0], measured, rtol=0.02, atol=1e-4)


def test_rows_and_named_tensors_are_the_same_thing_both_ways() -> None:
    rows = scene("random").rows
    assert torch.equal(to_rows(from_rows(rows, 3)), rows)
    first = from_rows(rows, 1)
    assert first.sh.shape == (len(rows), 4, 3)
    assert torch.equal(first.sh[:, 1:, 2], rows[:, 48:51])
    assert torch.equal(from_rows(to_rows(first), 1).sh, first.sh)


def test_named_tensors_refuse_shapes_that_do_not_agree() -> None:
    good = from_rows(scene("random").rows, 1)
    with pytest.raises(ValueError, match=r"quats is torch.float32 \(150, 3\), expected a float tensor \(150, 4\)"):
        GaussianTensors(good.means, good.log_scales, good.quats[:, :3], good.opacity_logits, good.sh)
    with pytest.raises(ValueError, match=r"K = 1, 4, 9 or 16"):
        GaussianTensors(good.means, good.log_scales, good.quats, good.opacity_logits, good.sh[:, :3])


def test_knn_of_a_grid_is_its_squared_spacing() -> None:
    side = torch.arange(4, dtype=torch.float64) * 0.5
    grid = torch.cartesian_prod(side, side, side)
    torch.testing.assert_close(reference.knn(grid, 3), torch.full((64,), 0.25, dtype=torch.float64))


def test_knn_of_few_points_takes_what_there_is() -> None:
    points = torch.tensor([[0.0, 0, 0], [3, 0, 0], [0, 4, 0]], dtype=torch.float64)
    assert reference.knn(points, 8).tolist() == [12.5, 17.0, 20.5]
    assert reference.knn(points[:1], 3).tolist() == [0.0]
    assert reference.knn(points[:0], 3).tolist() == []
