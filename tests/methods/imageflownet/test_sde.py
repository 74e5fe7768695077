"""The latent SDE against closed forms, scipy and hand-made gradients."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from namd.methods.imageflownet.sde import LatentSDE, drift, euler_maruyama
from namd.methods.imageflownet.settings import SDESettings
from tests.methods.imageflownet.made import SIZE, white

RATE, SIGMA, START, TAU, DT = -0.8, 0.7, 2.0, 1.5, 0.01


def evolved(noise):
    state = torch.full((8, 2, 64, 64), START, dtype=torch.float64)
    steps = round(TAU / DT)
    return euler_maruyama(lambda h: RATE * h, state, torch.tensor(SIGMA), noise, DT, steps)


def fresh():
    generator = torch.Generator().manual_seed(0)
    return lambda _n: torch.randn(8, 2, 64, 64, generator=generator)


def is_ornstein_uhlenbeck(state) -> bool:
    """E h = h0 e^(a tau); Var h = sigma^2 (e^(2 a tau) - 1) / (2 a)."""
    mean = START * math.exp(RATE * TAU)
    variance = SIGMA**2 * (math.exp(2 * RATE * TAU) - 1) / (2 * RATE)
    return bool(abs(state.mean() - mean) < 0.01 and abs(state.var() / variance - 1) < 0.03)


def test_mean_and_variance_are_the_closed_form_of_a_linear_drift():
    assert is_ornstein_uhlenbeck(evolved(fresh()))


def test_noise_of_another_size_or_the_same_at_each_step_is_found():
    noise = fresh()
    same = noise(0)
    assert not is_ornstein_uhlenbeck(evolved(lambda n: math.sqrt(DT) * noise(n)))
    assert not is_ornstein_uhlenbeck(evolved(lambda _n: same))


def test_without_noise_it_is_eulers_method_for_the_ode():
    """Its error against scipy's solution halves with the step."""

    solved = solve_ivp(lambda _t, h: np.sin(h) + 0.5, (0, 2.0), [0.3], rtol=1e-10, atol=1e-12)

    def error(steps: int) -> float:
        state = torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64)
        still = torch.zeros_like(state)
        ended = euler_maruyama(
            lambda h: torch.sin(h) + 0.5,
            state,
            torch.tensor(0.0),
            lambda _n: still,
            2.0 / steps,
            steps,
        )
        return abs(float(ended) - solved.y[0, -1])

    coarse, fine = error(100), error(200)
    assert coarse < 0.02
    assert fine == pytest.approx(coarse / 2, rel=0.05)


def test_the_drift_is_never_negative_and_has_no_norm_parameters():
    f = drift(4)
    state = 3 * white(2)("x", 0, (4, SIZE, SIZE))
    assert f(state).min() == 0
    assert f(state).max() > 0
    assert [name for name, _ in f.named_parameters()] == [
        "1.weight",
        "1.bias",
        "4.weight",
        "4.bias",
    ]
    # Twin: without its last ReLU it falls somewhere.
    assert f[:-1](state).min() < 0


def test_an_instance_norm_makes_the_drift_ignore_scale_and_offset():
    f = drift(4)
    state = white(2)("x", 0, (4, SIZE, SIZE))
    assert torch.allclose(f(5 * state + 2), f(state), atol=1e-4)
    assert not torch.allclose(f(state.flip(-1)), f(state), atol=1e-2)


def test_sigma_is_one_scalar_that_learns_unless_it_is_fixed():
    state, noise = torch.zeros(2, 3, 8, 8), white(2)
    for learned in (True, False):
        sde = LatentSDE(3, SDESettings(tau=1.0, dt=0.5, learned_sigma=learned))
        assert sde.sigma.shape == ()
        assert sde.sigma.item() == 0.5
        sde(state, lambda n: noise("x", n, state.shape[1:])).square().mean().backward()
        assert (sde.sigma.grad is not None) is learned


def test_a_drift_that_is_computed_again_has_equal_gradients():
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        sde = LatentSDE(3, SDESettings(tau=1.0, dt=0.25, recompute=recompute))
        noise = white(2)
        state = white(2, 1)("state", 0, (3, 8, 8)).requires_grad_()
        sde(state, lambda n, noise=noise: noise("x", n, (3, 8, 8))).square().mean().backward()
        found.append([state.grad, *(p.grad for p in sde.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert all(gradient.abs().max() > 0 for gradient in found[0])
