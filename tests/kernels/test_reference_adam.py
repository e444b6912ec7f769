from dataclasses import replace

import torch

from kernels import reference
from kernels.step import AdamParams
from kernels.tensors import SPARE

F64 = torch.float64
RATES = AdamParams(1, lr_means=1e-3, lr_log_scales=5e-3, lr_quats=1e-3, lr_opacity=5e-2, lr_sh_dc=2.5e-3, lr_sh_rest=1e-4, eps=1e-8)


def fresh(generator: torch.Generator, n: int = 6) -> reference.AdamRows:
    rows = torch.randn(n, 64, generator=generator, dtype=F64)
    return reference.AdamRows(rows, torch.zeros(n, 64, dtype=F64), torch.zeros(n, 64, dtype=F64), torch.zeros(n, dtype=torch.int32))


def test_steps_that_see_everything_are_those_of_torch_optim_adam(generator: torch.Generator) -> None:
    state, seen = fresh(generator), torch.ones(6, dtype=torch.bool)
    parameters = [state.rows[:, i].clone().requires_grad_(True) for i in range(64)]
    rates = reference.learning_rates(RATES).tolist()
    groups = [{"params": [parameter], "lr": rate} for parameter, rate in zip(parameters, rates, strict=True)]
    optimiser = torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-8)
    for step in range(1, 6):
        gradient = torch.randn(6, 64, generator=generator, dtype=F64)
        for i, parameter in enumerate(parameters):
            parameter.grad = gradient[:, i].clone()
        optimiser.step()
        state = reference.adam_step(state, gradient, seen, replace(RATES, step=step))
    torch.testing.assert_close(state.rows, torch.stack(parameters, dim=1).detach(), rtol=1e-12, atol=1e-14)


def test_moments_of_a_gaussian_that_was_away_are_those_of_zero_gradients(generator: torch.Generator) -> None:
    gradients = torch.randn(5, 6, 64, generator=generator, dtype=F64)
    lazy = dense = fresh(generator)
    away = torch.ones(6, dtype=torch.bool)
    away[2] = False
    everyone = torch.ones(6, dtype=torch.bool)
    for step in range(1, 6):
        missing = step in (2, 3, 4)
        gradient = gradients[step - 1] * (away if missing else everyone)[:, None]
        lazy = reference.adam_step(lazy, gradient, away if missing else everyone, replace(RATES, step=step))
        dense = reference.adam_step(dense, gradient, everyone, replace(RATES, step=step))
    torch.testing.assert_close(lazy.moment1, dense.moment1, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(lazy.moment2, dense.moment2, rtol=1e-12, atol=1e-15)
    assert not torch.allclose(lazy.rows[2], dense.rows[2], atol=1e-6), "the one that was away kept still meanwhile"
    torch.testing.assert_close(lazy.rows[3], dense.rows[3], rtol=0, atol=1e-15)


def test_unseen_gaussians_keep_everything(generator: torch.Generator) -> None:
    state = fresh(generator)
    seen = torch.tensor([True, False, True, False, True, False])
    after = reference.adam_step(state, torch.randn(6, 64, generator=generator, dtype=F64), seen, RATES)
    assert torch.equal(after.rows[~seen], state.rows[~seen])
    assert torch.equal(after.moment1[~seen], state.moment1[~seen])
    assert after.last_step.tolist() == [1, 0, 1, 0, 1, 0]


def test_sh_rest_and_its_moments_rest_when_asked(generator: torch.Generator) -> None:
    state, everyone = fresh(generator), torch.ones(6, dtype=torch.bool)
    gradient = torch.randn(6, 64, generator=generator, dtype=F64)
    after = reference.adam_step(state, gradient, everyone, replace(RATES, step_sh_rest=False))
    assert torch.equal(after.rows[:, 16:], state.rows[:, 16:])
    assert torch.equal(after.moment1[:, 16:], state.moment1[:, 16:])
    assert bool((after.rows[:, :14] != state.rows[:, :14]).all())


def test_spare_columns_never_move(generator: torch.Generator) -> None:
    state, everyone = fresh(generator), torch.ones(6, dtype=torch.bool)
    after = reference.adam_step(state, torch.randn(6, 64, generator=generator, dtype=F64), everyone, RATES)
    assert torch.equal(after.rows[:, SPARE], state.rows[:, SPARE])


def test_regularisers_are_the_gradients_of_opacity_and_scale(generator: torch.Generator) -> None:
    rows = torch.randn(4, 64, generator=generator, dtype=F64).requires_grad_(True)
    adam = replace(RATES, opacity_reg=0.01, scale_reg=0.02)
    (0.01 * torch.sigmoid(rows[:, 10]).sum() + 0.02 * torch.exp(rows[:, 3:6]).sum()).backward()
    torch.testing.assert_close(reference.regulariser_gradient(rows.detach(), adam), rows.grad, rtol=1e-12, atol=1e-16)
